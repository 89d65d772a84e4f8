"""Gradients of blended pixels by the kernel for GPUs, against those of blending in float64.

Without a GPU the kernel's source is compiled as C++: the threads of a warp then take turns (`cuda_on_a_cpu.h`).
"""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stand_in_gsplat import weights
from torch import Tensor

from z1g.render import _pixels
from z1g.render._pixels import SIDE, SOURCE, Projected, pixels

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SUPPORT = Path(__file__).parent.parent / "support"
NAMES = ("means", "conics", "colors", "opacities")
BOUND, ROUNDED = 2e-5 if DEVICE.type == "cpu" else 1e-4, 2e-7
"""Largest differences of gradients, as a share of the largest.

The second one is for each share of light that is left behind a pixel's Gaussians: alpha in float32 tells it to 6e-8.
"""
LAUNCH = """
extern "C" void run(int blocks, int threads, void **a, int *n) {
    launch(blocks, threads / LANES, [=] {
        blend_slopes(
            (float *)a[0], (float *)a[1], (float4 *)a[2], (float *)a[3], (int *)a[4], (int *)a[5], (float *)a[6],
            (int *)a[7], (float4 *)a[8], (float *)a[9], (float *)a[10], (float *)a[11], (float *)a[12], (float *)a[13],
            n[0], n[1], n[2], n[3], n[4]);
    });
}
"""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """The kernel for a CPU, called as torch calls it for a GPU."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("kernel")
    kernel = SOURCE.read_text(encoding="utf-8").replace('extern "C" ', "")
    (folder / "kernel.cpp").write_text('#include "cuda_on_a_cpu.h"\n' + kernel + LAUNCH, encoding="utf-8")
    options = ["-O1", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", f"-I{SUPPORT}"]
    subprocess.run([compiler, *options, "kernel.cpp", "-o", "kernel.so"], cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "kernel.so"))

    def run(grid: tuple[int, int, int], block: tuple[int, int, int], arguments: list[Any]) -> None:
        tensors = [x for x in arguments if isinstance(x, Tensor)]
        numbers = [x for x in arguments if not isinstance(x, Tensor)]
        assert all(x.is_contiguous() for x in tensors)
        pointers = (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))
        library.run(grid[0], block[0], pointers, (ctypes.c_int * len(numbers))(*numbers))

    return run


@pytest.fixture(autouse=True)
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pixels, "FEW", 0)
    if DEVICE.type == "cpu":
        run = request.getfixturevalue("compiled")
        monkeypatch.setattr(_pixels, "usable", lambda means: True)
        monkeypatch.setattr(_pixels, "kernel", lambda device: run)


class Package:
    """The part of gsplat that draws, in float64, as its compiled function."""

    __version__ = "1.5.3"

    def __init__(self) -> None:
        self.cuda = self
        self._wrapper = self

    def _make_lazy_cuda_func(self, name: str) -> object:
        assert name == "rasterize_to_pixels_3dgs_fwd"
        return self.draw

    @staticmethod
    def draw(
        means: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, backgrounds: None, masks: None, width: int,
        height: int, tile: int, starts: Tensor, order: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        parts = (exact(means), exact(conics), exact(colors), exact(opacities))
        image, alpha, last = blended(parts, width, height, tile, starts.cpu(), order.cpu())
        return image.float().to(DEVICE), alpha.float().to(DEVICE), last.to(DEVICE)


def exact(x: Tensor) -> Tensor:
    """In float64 on the CPU."""
    return x.detach().double().cpu()


def blended(
    gaussians: Projected, width: int, height: int, tile: int, starts: Tensor, order: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Colors, alpha and the last place in `order` of each pixel, by autograd in float64 on the CPU."""
    means, conics, colors, opacities = gaussians
    b, v, rows, columns = starts.shape
    bounds = [*starts.flatten().tolist(), len(order)]
    size = (b, v, rows * tile, columns * tile)
    image, alpha = (torch.zeros(*size, k, dtype=torch.float64) for k in (colors.shape[-1], 1))
    last = torch.zeros(size, dtype=torch.int32)
    flat = (means.flatten(0, 2), conics.flatten(0, 2), opacities.flatten(), colors.flatten(0, 2))
    for number in range(starts.numel()):
        start, end = bounds[number : number + 2]
        ids = order[start:end].long()
        mean, conic, opacity, color = (part[ids] for part in flat)
        share = weights(mean, conic, opacity, (number % columns, number // columns % rows), tile)
        item, view = divmod(number // (rows * columns), v)
        y, x = number // columns % rows * tile, number % columns * tile
        here = (item, view, slice(y, y + tile), slice(x, x + tile))
        image[here] = (share @ color).view(tile, tile, -1)
        alpha[here] = share.sum(1).view(tile, tile, 1)
        places = torch.where(share.detach() > 0, torch.arange(start, end), 0)
        last[here] = places.amax(1).view(tile, tile).int() if end > start else 0
    cut = (slice(None), slice(None), slice(height), slice(width))
    return image[cut].contiguous(), alpha[cut].contiguous(), last[cut].contiguous()


def wanted(x: Tensor) -> Tensor:
    """A tensor on the device whose gradient is wanted."""
    return x.to(DEVICE).contiguous().requires_grad_(True)


def scene(
    n: int, b: int, v: int, width: int, height: int, spread: float, seed: int, *, opaque: bool = False,
    some: bool = False,
) -> tuple[Projected, Tensor, Tensor]:  # fmt: skip
    """Gaussians in image coordinates with gradients wanted; `starts` and `order`.

    Each is in every tile, or in some: then tiles have any part of the image's Gaussians, or none.
    """
    draw = torch.Generator().manual_seed(seed)
    means = torch.rand(b, v, n, 2, generator=draw) * torch.tensor([width, height])
    angle = torch.rand(b, v, n, generator=draw) * torch.pi
    axes = spread * torch.exp(torch.randn(b, v, n, 2, generator=draw))
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).unflatten(-1, (2, 2))
    inverse = turn @ torch.diag_embed(axes**-2) @ turn.mT
    conics = torch.stack([inverse[..., 0, 0], inverse[..., 0, 1], inverse[..., 1, 1]], -1)
    colors = torch.rand(b, v, n, 4, generator=draw)
    opacities = torch.rand(b, v, n, generator=draw)
    if opaque:
        opacities = 1 - 1e-4 * opacities
    rows, columns = -(-height // SIDE), -(-width // SIDE)
    tiles = [i // (rows * columns) * n + torch.randperm(n, generator=draw) for i in range(b * v * rows * columns)]
    if some:
        tiles = [ids[: int(torch.randint(n + 1, (), generator=draw))] for ids in tiles]
    starts = torch.tensor([0, *accumulate(len(ids) for ids in tiles)][:-1]).int().view(b, v, rows, columns)
    order = torch.cat(tiles)
    parts = (wanted(means), wanted(conics), wanted(colors), wanted(opacities))
    return parts, starts.to(DEVICE), order.int().to(DEVICE)


def check(parts: Projected, starts: Tensor, order: Tensor, width: int, height: int) -> None:
    image, alpha = pixels(Package(), parts, (width, height), SIDE, starts, order)
    assert type(image.grad_fn).__name__ == "_PixelsBackward"
    means, conics, colors, opacities = (exact(part).requires_grad_(True) for part in parts)
    leaves = (means, conics, colors, opacities)
    images = blended(leaves, width, height, SIDE, starts.cpu(), order.cpu())[:2]
    draw = torch.Generator().manual_seed(9)
    upstream = [torch.randn(x.shape, generator=draw) for x in images]
    slopes = torch.autograd.grad([image, alpha], parts, [x.to(DEVICE) for x in upstream])
    expected = torch.autograd.grad(images, leaves, [x.double() for x in upstream])
    bound = BOUND + ROUNDED / float((1 - images[1].detach()).min())
    for name, ours, theirs in zip(NAMES, slopes, expected, strict=True):
        assert ours.shape == theirs.shape
        assert not theirs.numel() or (ours.cpu() - theirs).abs().max() <= bound * theirs.abs().max(), name


@pytest.mark.parametrize(("n", "spread"), [(1, 3), (32, 3), (33, 1), (70, 0.2), (40, 20)])
def test_gradients(n: int, spread: float) -> None:
    """Fewer Gaussians than a warp reads at a time, as many, and more; in tiles within images and across their edges."""
    check(*scene(n, 2, 2, 21, 19, spread, seed=n), 21, 19)


@pytest.mark.parametrize("spread", [4.0, 40.0])
def test_full_pixels(spread: float) -> None:
    """Pixels whose last Gaussians are not drawn."""
    check(*scene(150, 1, 2, 13, 9, spread, seed=1), 13, 9)


@pytest.mark.parametrize("spread", [2.0, 20.0])
def test_opaque_gaussians(spread: float) -> None:
    """Above an opacity of 0.999, where it no longer has a gradient; a pixel then ends after one or two Gaussians."""
    check(*scene(30, 1, 2, 16, 16, spread, seed=3, opaque=True), 16, 16)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 80), width=st.integers(1, 30), height=st.integers(1, 30), spread=st.floats(0.3, 30),
    seed=st.integers(0, 10**6), some=st.booleans(),
)  # fmt: skip
def test_gradients_of_any_scene(n: int, width: int, height: int, spread: float, seed: int, some: bool) -> None:
    check(*scene(n, 1, 2, width, height, spread, seed, some=some), width, height)


def test_without_gradients_in_other_tiles_and_in_few_gsplat_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, starts, order = scene(5, 1, 1, 8, 8, 2, seed=0)
    package, image = Package(), torch.zeros(1)
    monkeypatch.setattr(package, "rasterize_to_pixels", lambda *_: (image, image), raising=False)
    assert pixels(package, parts, (8, 8), 16, starts, order)[0] is image
    with torch.no_grad():
        assert pixels(package, parts, (8, 8), SIDE, starts, order)[0] is image
    monkeypatch.setattr(_pixels, "FEW", 1)
    assert pixels(package, parts, (8, 8), SIDE, starts, order)[0] is image


def test_kernels_of_an_unknown_gsplat_are_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, starts, order = scene(5, 1, 1, 8, 8, 2, seed=0)
    package, image = Package(), torch.zeros(1)
    monkeypatch.setattr(package, "rasterize_to_pixels", lambda *_: (image, image), raising=False)
    monkeypatch.setattr(Package, "__version__", "2.0.0")
    assert pixels(package, parts, (8, 8), SIDE, starts, order)[0] is image


@pytest.mark.parametrize("architecture", ["75", "80", "90", "100"])
def test_the_kernel_compiles(architecture: str) -> None:
    """By torch's compiler, which needs no GPU."""
    tools: Any = pytest.importorskip("torch.cuda._utils")
    source = SOURCE.read_text(encoding="utf-8")
    try:
        compiled, name = tools._nvrtc_compile(source, "blend_slopes", architecture, None, ["--use_fast_math"])
    except (AttributeError, OSError) as error:
        pytest.skip(f"this torch has no compiler of CUDA: {error}")
    assert name == "blend_slopes"
    assert compiled


def test_where_cuda_cannot_be_compiled_gsplat_draws(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("libnvrtc.so: cannot open shared object file")

    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "_compile_kernel", fails, raising=False)
    assert _pixels.kernel.__wrapped__(DEVICE) is None
    assert "gsplat's, which take twice as long" in caplog.text
    assert "libnvrtc" in caplog.text
