// Enough of CUDA to run kernels without a GPU: the threads of a warp are contexts that take turns, and exchange values
// when all of them have reached the same exchange. Blocks and warps run one after the other, so that a kernel must not
// wait for other warps.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__ static
#define __shared__ static
using std::max;
using std::min;

struct float4 { float x, y, z, w; };
struct Place { int x; };
static Place threadIdx, blockIdx;
static const int LANES = 32;
static const size_t STACK = 1 << 16;

static ucontext_t scheduler, threads[LANES];
static std::vector<char> stacks(LANES * STACK);
static uint64_t shared_values[LANES];
static bool done[LANES];
static int lane_now;
static std::function<void()> body;

static void start() {
    body();
    done[lane_now] = true;
    swapcontext(&threads[lane_now], &scheduler);
}

// Let the other threads of the warp run up to the same point.
static void wait() { swapcontext(&threads[lane_now], &scheduler); }

template <typename T> static T exchanged(T value, int from) {
    memcpy(&shared_values[lane_now], &value, sizeof(T));
    wait();
    T other;
    memcpy(&other, &shared_values[from], sizeof(T));
    wait();
    return other;
}

template <typename T> static T __shfl_xor_sync(unsigned, T value, int far) { return exchanged(value, lane_now ^ far); }
static void __syncwarp() { wait(); }
static int __any_sync(unsigned, int flag) {
    for (int far = 16; far > 0; far /= 2) flag |= exchanged(flag, lane_now ^ far);
    return flag;
}

static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
static int __float_as_int(float x) { int y; memcpy(&y, &x, 4); return y; }
// A macro, because C libraries have a function of this name.
#define __expf(x) std::exp(static_cast<float>(x))
static float __fdividef(float x, float y) { return x / y; }
static float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
static void atomicAdd(float *to, float value) { *to += value; }

static void launch(int blocks, int warps, std::function<void()> kernel) {
    body = kernel;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (int warp = 0; warp < warps; ++warp) {
            for (int lane = 0; lane < LANES; ++lane) {
                done[lane] = false;
                getcontext(&threads[lane]);
                threads[lane].uc_stack = {&stacks[lane * STACK], 0, STACK};
                threads[lane].uc_link = nullptr;
                makecontext(&threads[lane], start, 0);
            }
            for (int left = LANES; left > 0;) {
                left = 0;
                for (lane_now = 0; lane_now < LANES; ++lane_now) {
                    if (done[lane_now]) continue;
                    threadIdx.x = warp * LANES + lane_now;
                    swapcontext(&scheduler, &threads[lane_now]);
                    left += !done[lane_now];
                }
            }
        }
}
