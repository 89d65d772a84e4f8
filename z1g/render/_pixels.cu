// The gradient of blending, for tiles of 8 × 8 pixels: a warp has a tile, a thread two of its pixels.
//
// For Gaussian k in a pixel, with d its center less the pixel's, σ = (A·dx² + C·dy²) / 2 + B·dx·dy,
// α = opacity·exp(-σ), T the light that reaches k, v the gradient of the pixel's color and u = color·v, the gradient of
// α is
//
//     T·u + (T_end·v_alpha - Σ_{behind k} α·T·u) / (1 - α),
//
// where T_end is what is left behind all Gaussians. Sources: Kerbl et al. 2023, appendix C; Ye et al. 2025 (gsplat).

#define ALL 0xffffffffu
#define SIDE 8
#define WARPS 4
#define SUMS 10
#define LARGEST_ALPHA 0.999f
#define SMALLEST_ALPHA (1.0f / 255.0f)

// Sums of ten values over the threads of a warp, one a thread: that of number `place(lane)`. Each exchange halves the
// values that a thread still has to add, so that 12 are enough, where sums of one value after the other take 50.
__device__ float sum_across(const float *v, int lane) {
    float fives[5], threes[3], twos[2];
    const bool p = lane & 16, q = lane & 8, r = lane & 4, s = lane & 2;
    for (int i = 0; i < 5; ++i)
        fives[i] = (p ? v[i + 5] : v[i]) + __shfl_xor_sync(ALL, p ? v[i] : v[i + 5], 16);
    for (int i = 0; i < 2; ++i)
        threes[i] = (q ? fives[i + 3] : fives[i]) + __shfl_xor_sync(ALL, q ? fives[i] : fives[i + 3], 8);
    threes[2] = (q ? 0.0f : fives[2]) + __shfl_xor_sync(ALL, q ? fives[2] : 0.0f, 8);
    twos[0] = (r ? threes[2] : threes[0]) + __shfl_xor_sync(ALL, r ? threes[0] : threes[2], 4);
    twos[1] = (r ? 0.0f : threes[1]) + __shfl_xor_sync(ALL, r ? threes[1] : 0.0f, 4);
    const float one = (s ? twos[1] : twos[0]) + __shfl_xor_sync(ALL, s ? twos[0] : twos[1], 2);
    return one + __shfl_xor_sync(ALL, one, 1);
}

// The number of the value whose sum a thread has, or -1 if another thread has the same.
__device__ int place(int lane) {
    const int p = lane >> 4 & 1, q = lane >> 3 & 1, r = lane >> 2 & 1, s = lane >> 1 & 1;
    return (lane & 1) || (r && s) || (q && r) ? -1 : 5 * p + 3 * q + 2 * r + s;
}

// means [G,2], conics [G,3], colors [G,4], opacities [G]: of all images. starts [tiles of all images]: where each
// tile's part of `order` begins, indices of Gaussians from the nearest to the farthest. alphas [I,H,W]. lasts [I,H,W]:
// the last place in `order` of a pixel's color. dimage [I,H,W,4], dalphas [I,H,W]: gradients of the images. Those of
// the Gaussians are added to the last four. columns, tiles: of an image. count: of all tiles.
extern "C" __global__ void blend_slopes(
    const float *means, const float *conics, const float4 *colors, const float *opacities, const int *starts,
    const int *order, const float *alphas, const int *lasts, const float4 *dimage, const float *dalphas, float *dmeans,
    float *dconics, float *dcolors, float *dopacities, int width, int height, int columns, int tiles, int count
) {
    __shared__ float4 taken[WARPS][32][3];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tile = blockIdx.x * WARPS + warp;
    if (tile >= count) return;
    const int left = tile % tiles % columns * SIDE, top = tile % tiles / columns * SIDE, x = left + lane % SIDE;
    const float px = x + 0.5f;
    float py[2], t[2], behind[2];
    float4 v[2];
    int last[2], end = -1;
    for (int i = 0; i < 2; ++i) {
        const int y = top + lane / SIDE + i * SIDE / 2;
        const bool inside = x < width && y < height;
        const size_t where = inside ? ((size_t)(tile / tiles) * height + y) * width + x : 0;
        py[i] = y + 0.5f;
        // A pixel without a Gaussian has 0 as its last place, which may be another tile's.
        last[i] = inside && alphas[where] > 0.0f ? lasts[where] : -1;
        t[i] = 1.0f - alphas[where];
        behind[i] = -t[i] * dalphas[where];
        v[i] = dimage[where];
        end = max(end, last[i]);
    }
    for (int far = 16; far > 0; far /= 2) end = max(end, __shfl_xor_sync(ALL, end, far));

    // Where this thread adds its sums: number and distance of the values in memory.
    const int number = place(lane), begin = starts[tile];
    float *to = dopacities;
    if (number < 2) to = dmeans + number;
    else if (number < 5) to = dconics + number - 2;
    else if (number < 9) to = dcolors + number - 5;
    const int stride = number < 2 ? 2 : number < 5 ? 3 : number < 9 ? 4 : 1;

    for (int first = end; first >= begin; first -= 32) {
        const int n = min(32, first + 1 - begin);
        __syncwarp();
        if (lane < n) {
            const int g = order[first - lane];
            const float *mean = means + 2 * (size_t)g, *conic = conics + 3 * (size_t)g;
            taken[warp][lane][0] = make_float4(mean[0], mean[1], opacities[g], __int_as_float(g));
            taken[warp][lane][1] = make_float4(conic[0], conic[1], conic[2], 0.0f);
            taken[warp][lane][2] = colors[g];
        }
        __syncwarp();
        for (int k = 0; k < n; ++k) {
            const float4 at = taken[warp][k][0], conic = taken[warp][k][1], color = taken[warp][k][2];
            float sums[SUMS] = {0.0f};
            bool drawn = false;
            for (int i = 0; i < 2; ++i) {
                const float dx = at.x - px, dy = at.y - py[i];
                // As gsplat's kernel that drew the pixel rounds it: what was not drawn there must not be drawn here.
                const float twice = __fmaf_rn(dx, conic.x * dx, conic.z * dy * dy);
                const float sigma = __fmaf_rn(dy, conic.y * dx, 0.5f * twice);
                const float share = __expf(-sigma), whole = at.z * share;
                if (first - k > last[i] || sigma < 0.0f || !(whole >= SMALLEST_ALPHA)) continue;
                drawn = true;
                const float alpha = fminf(LARGEST_ALPHA, whole), scale = __fdividef(1.0f, 1.0f - alpha);
                const float u = color.x * v[i].x + color.y * v[i].y + color.z * v[i].z + color.w * v[i].w;
                t[i] *= scale;
                const float weight = alpha * t[i], slope = t[i] * u - scale * behind[i];
                behind[i] += weight * u;
                sums[5] += weight * v[i].x;
                sums[6] += weight * v[i].y;
                sums[7] += weight * v[i].z;
                sums[8] += weight * v[i].w;
                if (whole > LARGEST_ALPHA) continue;
                const float dsigma = -whole * slope, sx = dsigma * dx, sy = dsigma * dy;
                sums[0] += conic.x * sx + conic.y * sy;
                sums[1] += conic.y * sx + conic.z * sy;
                sums[2] += 0.5f * sx * dx;
                sums[3] += sx * dy;
                sums[4] += 0.5f * sy * dy;
                sums[9] += share * slope;
            }
            if (!__any_sync(ALL, drawn)) continue;
            const float sum = sum_across(sums, lane);
            if (number >= 0) atomicAdd(to + stride * (size_t)__float_as_int(at.w), sum);
        }
    }
}
