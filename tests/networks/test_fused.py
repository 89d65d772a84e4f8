"""Fused kernels against plain torch in float64. Without a GPU, Triton's interpreter runs them, see conftest.py."""

import copy
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

pytest.importorskip("triton")

from z1g.bench.diffusion_size import SIZES
from z1g.networks import perceptual
from z1g.networks.fused import available, features, modules, operations, tokens
from z1g.networks.fused.lpips import distance
from z1g.networks.fused.tokens import added_norm, geglu, linear, rotate
from z1g.networks.multiview import attention, attributes
from z1g.networks.multiview.inputs import with_inputs
from z1g.networks.multiview.rotary import Rotary

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
REPLACED: dict[str, set[type]] = {
    "encoder": {ResnetBlock2D, nn.GroupNorm},
    "decoder": {ResnetBlock2D, nn.GroupNorm, Upsample2D},
    "unet": {ResnetBlock2D, nn.GroupNorm, Upsample2D, Transformer2DModel, BasicTransformerBlock, GEGLU},
    "attributes": {ResnetBlock2D, nn.GroupNorm, Upsample2D, attributes.AttributeBlock, GEGLU, Rotary},
}
SHAPES = [(2, 32, 5, 7, 4), (1, 8, 1, 1, 2)]
MANY_GROUPS = [(1, 96, 3, 3, 32), (3, 24, 9, 4, 8)]
MANY_PIXELS = (2, 64, 30, 20, 4)
"""Several programs compute its sums."""


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """Disable TF32, so that convolutions of a GPU are in float32."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def gradients(function: object, inputs: list[Tensor], upstream: Tensor) -> tuple[Tensor, list[Tensor]]:
    leaves = [x.detach().clone().requires_grad_(True) for x in inputs]
    out = function(*leaves)  # type: ignore[operator]
    out.backward(upstream.to(out.dtype))
    return out.detach().double(), [leaf.grad.double() for leaf in leaves]


def close(actual: Tensor, expected: Tensor, tolerance: float, rounding: float = 1e-9) -> None:
    assert float((actual - expected).norm()) <= tolerance * float(expected.norm()) + rounding


def agree(results: list[list[Tensor | None]], tolerance: float) -> None:
    """Results and gradients of both runs, where there are any."""
    for actual, expected in zip(*results, strict=True):
        assert (actual is None) == (expected is None)
        if actual is not None and expected is not None:
            close(actual.double(), expected, tolerance)


@pytest.mark.parametrize(
    ("shape", "silu", "shifts"),
    [
        *itertools.product(SHAPES, [True, False], [0, 1, None]),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                *itertools.product(MANY_GROUPS, [True, False], [0, 1, None]),
                (MANY_PIXELS, True, 1),
                (MANY_PIXELS, False, None),
            ]
        ),
    ],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), pytest.param(torch.bfloat16, 1.5e-2, marks=pytest.mark.slow)]
)
def test_group_norm(
    shape: tuple[int, ...], silu: bool, shifts: int | None, dtype: torch.dtype, tolerance: float
) -> None:
    b, c, h, w, groups = shape
    x = (3 * drawn(b, c, h, w) + 2).to(dtype)
    weight, bias = (1 + 0.3 * drawn(c, seed=1)).to(dtype), drawn(c, seed=2).to(dtype)
    shift = [] if shifts is None else [drawn(b if shifts else 1, c, seed=3, dtype=dtype)]
    upstream = drawn(b, c, h, w, seed=4, dtype=dtype)

    def fused(x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None = None) -> Tensor:
        return operations.group_norm(x, weight, bias, groups, 1e-5, silu, shift)

    def plain(x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None = None) -> Tensor:
        moved = x if shift is None else x + shift[:, :, None, None]
        out = functional.group_norm(moved, groups, weight, bias, 1e-5)
        return functional.silu(out) if silu else out

    given = [x, weight, bias, *shift]
    out, slopes = gradients(fused, given, upstream)
    expected, expected_slopes = gradients(plain, [value.double() for value in given], upstream)
    close(out, expected, tolerance)
    for slope, expected_slope in zip(slopes, expected_slopes, strict=True):
        # A shift of all of a group's channels has no effect: for groups of one channel its gradient is rounding error.
        assert float((slope - expected_slope).norm()) <= tolerance * max(
            float(expected_slope.norm()), 0.1 * float(upstream.norm())
        )
    assert operations.group_norm(x, *given[1:3], groups, 1e-5, silu).is_contiguous(memory_format=torch.channels_last)


def test_group_norm_of_values_far_from_zero() -> None:
    """A mean of 30 standard deviations costs means of squares three of seven digits; bfloat16 has only two."""
    x, weight, bias = drawn(2, 32, 9, 7) + 30, drawn(32, seed=1), drawn(32, seed=2)
    expected = functional.group_norm(x.double(), 4, weight.double(), bias.double(), 1e-5)
    close(operations.group_norm(x, weight, bias, 4, 1e-5, silu=False).double(), expected, 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("added", [True, False])
def test_add_bias(dtype: torch.dtype, added: bool) -> None:
    given = [drawn(2, 48, 13, 9, dtype=dtype), drawn(48, seed=1, dtype=dtype)]
    given += [drawn(2, 48, 13, 9, seed=2, dtype=dtype)] if added else []
    upstream = drawn(2, 48, 13, 9, seed=3, dtype=dtype)

    def plain(x: Tensor, bias: Tensor, other: Tensor | None = None) -> Tensor:
        out = x + bias[:, None, None]
        return out if other is None else out + other

    out, slopes = gradients(operations.add_bias, given, upstream)
    expected, expected_slopes = gradients(plain, [value.double() for value in given], upstream)
    close(out, expected, 1e-6 if dtype == torch.float32 else 5e-3)
    for slope, expected_slope in zip(slopes, expected_slopes, strict=True):
        close(slope, expected_slope, 1e-6 if dtype == torch.float32 else 5e-3)


def test_bias_relu() -> None:
    x, bias = drawn(2, 16, 6, 5), drawn(16, seed=1)
    upstream = drawn(2, 16, 6, 5, seed=2)
    out, (slope,) = gradients(lambda x: operations.bias_relu(x, bias), [x], upstream)
    expected, (expected_slope,) = gradients(lambda x: (x + bias.double()[:, None, None]).relu(), [x.double()], upstream)
    close(out, expected, 1e-6)
    close(slope, expected_slope, 1e-6)


@pytest.mark.parametrize("used", ["both", "image", "norm"])
def test_group_norm_of_what_is_also_added(used: str) -> None:
    """As in a residual block, whose sum and norm both send gradients to an image; and where only one of them does."""
    given = [drawn(2, 16, 5, 3), 1 + drawn(16, seed=1), drawn(16, seed=2)]
    upstream = drawn(2, 16, 5, 3, seed=3)

    def fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        kept, out = operations.kept_group_norm(x, weight, bias, 4, 1e-5, silu=True)
        return {"both": kept.sin() + out, "image": kept.sin(), "norm": out}[used]

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out = functional.silu(functional.group_norm(x, 4, weight, bias, 1e-5))
        return {"both": x.sin() + out, "image": x.sin(), "norm": out}[used]

    results = []
    for run, kind in ((fused, torch.float32), (plain, torch.float64)):
        leaves = [x.to(kind).clone().requires_grad_(True) for x in given]
        out = run(*leaves)
        out.backward(upstream.to(kind))
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    agree(results, 2e-5)


@pytest.mark.parametrize("shape", [(2, 8, 5, 3), (1, 6, 1, 1), (3, 160, 7, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_doubled(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Against Kronecker products: each pixel is a square of four."""
    b, c, h, w = shape
    x, upstream = drawn(*shape, dtype=dtype), drawn(b, c, 2 * h, 2 * w, seed=1, dtype=dtype)
    out, (slope,) = gradients(operations.doubled, [x], upstream)
    square = torch.ones(1, 1, 2, 2, device=DEVICE, dtype=torch.float64)
    expected, (expected_slope,) = gradients(lambda x: torch.kron(x, square), [x.double()], upstream)
    assert torch.equal(out, expected)
    close(slope, expected_slope, 1e-6 if dtype == torch.float32 else 5e-3)
    assert operations.doubled(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(2, 5, 20), (3, 700, 6), (1, 1, 48), (2, 3, 320)])
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("used", ["both", "sum", "norm"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 2e-2)])
def test_added_norm(
    shape: tuple[int, ...],
    added: bool,
    used: str,
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against the definition in float64; several programs sum the gradients of weight and bias."""
    monkeypatch.setattr(tokens, "PROGRAMS", 3)
    given = [2 * drawn(*shape) + 1, 1 + 0.3 * drawn(shape[-1], seed=1), drawn(shape[-1], seed=2)]
    given += [drawn(*shape, seed=3)] if added else []
    given = [x.to(dtype) for x in given]
    upstream = [drawn(*shape, seed=seed, dtype=dtype) for seed in (4, 5)]
    weights = {"both": (1, 1), "sum": (1, 0), "norm": (0, 1)}[used]

    def fused(x: Tensor, weight: Tensor, bias: Tensor, more: Tensor | None = None) -> Tensor:
        results = added_norm(x, more, weight, bias, 1e-5)
        terms = [(y * up).sum(dtype=torch.float64) for y, up, on in zip(results, upstream, weights, strict=True) if on]
        return torch.stack(terms).sum() + 0 * weight.sum() + 0 * bias.sum()

    def plain(x: Tensor, weight: Tensor, bias: Tensor, more: Tensor | None = None) -> Tensor:
        total = x if more is None else x + more
        # What the network keeps has its own precision.
        total = total + (total.to(dtype).double() - total).detach()
        apart = total - total.mean(-1, keepdim=True)
        norm = apart / (apart.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias
        return weights[0] * (total * upstream[0]).sum() + weights[1] * (norm * upstream[1]).sum()

    one = torch.ones((), device=DEVICE, dtype=torch.float64)
    out, slopes = gradients(fused, given, one)
    expected, expected_slopes = gradients(plain, [x.double() for x in given], one)
    scale = sum(float(up.double().norm()) for up in upstream)
    assert abs(float(out - expected)) <= tolerance * scale * 3
    for slope, expected_slope in zip(slopes, expected_slopes, strict=True):
        close(slope, expected_slope, tolerance, 1e-6)


def test_added_norm_of_mixed_types_has_their_common_type() -> None:
    """As under autocast: tokens in float32, to which a branch in bfloat16 is added."""
    x, more, weight, bias = drawn(2, 3, 8), drawn(2, 3, 8, seed=1, dtype=torch.bfloat16), drawn(8).abs(), drawn(8)
    leaves = [value.detach().clone().requires_grad_(True) for value in (x, more)]
    kept, out = added_norm(leaves[0], leaves[1], weight, bias, 1e-5)
    assert kept.dtype == out.dtype == torch.float32
    torch.testing.assert_close(kept.detach(), x + more)
    (kept.sum() + out.square().sum()).backward()
    assert [leaf.grad.dtype for leaf in leaves if leaf.grad is not None] == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("trained", ["xwb", "x", "wb", "b"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_linear(trained: str, dtype: torch.dtype, tolerance: float) -> None:
    """Values and the gradients that are asked for, as of frozen weights with adapters."""
    given = [drawn(2, 300, 12, dtype=dtype), drawn(96, 12, seed=1, dtype=dtype), drawn(96, seed=2, dtype=dtype)]
    upstream, asked = drawn(2, 300, 96, seed=3, dtype=dtype), [letter in trained for letter in "xwb"]
    results = []
    for run, kind in ((linear, dtype), (functional.linear, torch.float64)):
        leaves = [x.to(kind).clone().requires_grad_(on) for x, on in zip(given, asked, strict=True)]
        out = run(*leaves)
        out.backward(upstream.to(kind))
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    agree(results, tolerance)


def test_linear_layers_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens and weights in float32, of which torch makes bfloat16; gradients come back in float32."""
    layer, x = nn.Linear(12, 96).to(DEVICE), drawn(2, 30, 12).requires_grad_(True)
    modules.fuse(layer)
    monkeypatch.setattr(modules, "runs_fused", lambda x: True)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert [p.grad.dtype for p in (x, layer.weight, layer.bias) if p.grad is not None] == [torch.float32] * 3


@pytest.mark.parametrize("shape", [(3, 7, 20), (2, 5000, 6), (2, 9, 300)])
@pytest.mark.parametrize("biased", [True, False])
def test_geglu(shape: tuple[int, ...], biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "GATE_PROGRAMS", 5)
    given, upstream = [2 * drawn(*shape)], drawn(*shape[:-1], shape[-1] // 2, seed=1)
    given += [drawn(shape[-1], seed=2)] if biased else []

    def plain(x: Tensor, bias: Tensor | None = None) -> Tensor:
        value, gate = (x if bias is None else x + bias).chunk(2, dim=-1)
        return value * functional.gelu(gate)

    out, slopes = gradients(geglu, given, upstream)
    expected, expected_slopes = gradients(plain, [x.double() for x in given], upstream)
    close(out, expected, 1e-5)
    for slope, expected_slope in zip(slopes, expected_slopes, strict=True):
        close(slope, expected_slope, 1e-5)


@pytest.mark.parametrize("shape", [(2, 12, 3, 10), (3, 700, 1, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotate(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Against products of complex numbers, also of tensors in another memory order."""
    rows, tokens, heads, width = shape
    angles, x = 3 * drawn(tokens, width // 2), drawn(heads, tokens, rows, width, seed=1, dtype=dtype).transpose(0, 2)
    upstream = drawn(*shape, seed=2, dtype=dtype)

    def plain(x: Tensor) -> Tensor:
        unit = torch.polar(torch.ones_like(angles), angles).cdouble()[:, None]
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * unit).flatten(-2)

    out, (slope,) = gradients(lambda x: rotate(x, angles.cos(), angles.sin()), [x], upstream)
    expected, (expected_slope,) = gradients(plain, [x.double()], upstream)
    close(out, expected, 1e-6 if dtype == torch.float32 else 4e-3)
    close(slope, expected_slope, 1e-6 if dtype == torch.float32 else 4e-3)


@pytest.mark.parametrize("channels", [64, 48])
def test_unit_distance(channels: int) -> None:
    a, b = drawn(3, channels, 6, 7).relu(), drawn(3, channels, 6, 7, seed=1).relu()
    weight, upstream = drawn(channels, seed=2).abs(), drawn(3, seed=3)
    b[1, :, 2, 3] = 0

    def plain(a: Tensor) -> Tensor:
        first, second = (x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b.double()))
        return ((first - second).square() * weight.double()[:, None, None]).sum(1).mean((1, 2))

    out, (slope,) = gradients(lambda a: features.unit_distance(a, b, weight), [a], upstream)
    expected, (expected_slope,) = gradients(plain, [a.double()], upstream)
    close(out, expected, 1e-5)
    close(slope, expected_slope, 1e-5)


@pytest.mark.parametrize(("channels", "size"), [(64, (7, 9)), (24, (3, 50))])
def test_first_layer(channels: int, size: tuple[int, int]) -> None:
    x, upstream = drawn(2, 3, *size), drawn(2, channels, *size, seed=1)
    shift, scale = drawn(3, seed=2), 0.5 + drawn(3, seed=3).abs()
    weight, bias = drawn(channels, 3, 3, 3, seed=4), drawn(channels, seed=5)

    def plain(x: Tensor) -> Tensor:
        scaled = (x - shift.double()[:, None, None]) / scale.double()[:, None, None]
        return functional.conv2d(scaled, weight.double(), bias.double(), padding=1).relu()

    # A GPU's products of float32 have the precision of TF32, and values near 0 may be on its other side.
    upstream = upstream * (plain(x.double()) > 0.1)
    out, (slope,) = gradients(lambda x: features.first_layer(x, shift, scale, weight, bias), [x], upstream)
    expected, (expected_slope,) = gradients(plain, [x.double()], upstream)
    close(out, expected, 1e-3 if DEVICE.type == "cuda" else 1e-5)
    close(slope, expected_slope, 1e-3 if DEVICE.type == "cuda" else 1e-5)


@pytest.mark.parametrize("used", ["features", "pooled", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu_pooled(used: str, dtype: torch.dtype) -> None:
    """With values that occur twice in a window, whose gradient reaches the first."""
    x = (2 * drawn(2, 24, 6, 10)).round().to(dtype)
    bias = drawn(24, seed=1).to(dtype)
    slopes = [drawn(2, 24, 6, 10, seed=2, dtype=dtype), drawn(2, 24, 3, 5, seed=3, dtype=dtype)]

    def plain(x: Tensor) -> tuple[Tensor, Tensor]:
        # Rounded as the kernel's, so that equal values are equal in both.
        shown = (x.detach().float() + bias.float()[:, None, None]).relu().to(dtype).double()
        tapped = shown + (x - x.detach()) * (shown > 0)
        windows = tapped.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
        first = (windows == windows.amax(4, keepdim=True)).long().argmax(4, keepdim=True)
        return tapped, windows.gather(4, first)[..., 0]

    results = []
    for run, leaf in ((lambda x: features.relu_pooled(x, bias), x.clone()), (plain, x.double())):
        leaf.requires_grad_(True)
        out = run(leaf)
        chosen = [i for i in range(2) if used in (("features", "pooled")[i], "both")]
        torch.autograd.backward([out[i] for i in chosen], [slopes[i].to(out[i].dtype) for i in chosen])
        assert leaf.grad is not None
        results.append([*(value.detach().double() for value in out), leaf.grad.double()])
    for actual, expected in zip(*results, strict=True):
        close(actual, expected, 1e-6 if dtype == torch.float32 else 4e-3)


@pytest.mark.parametrize("shape", [(2, 3, 12, 20), (1, 1, 2, 2), (1, 2, 4, 130)])
def test_halved(shape: tuple[int, ...]) -> None:
    """Against torch's antialiased interpolation in float64, on a CPU."""
    b, c, h, w = shape
    x, upstream = drawn(*shape), drawn(b, c, h // 2, w // 2, seed=1)

    def plain(x: Tensor) -> Tensor:
        return functional.interpolate(x, (h // 2, w // 2), mode="bilinear", antialias=True, align_corners=False)

    out, (slope,) = gradients(features.halved, [x], upstream)
    expected, (expected_slope,) = gradients(plain, [x.double().cpu()], upstream.cpu())
    close(out.cpu(), expected, 1e-6)
    close(slope.cpu(), expected_slope, 1e-6)


def test_what_has_no_windows_is_refused() -> None:
    with pytest.raises(ValueError, match="3×4 pixels are not windows of 2×2"):
        features.relu_pooled(drawn(1, 8, 3, 4), drawn(8))
    with pytest.raises(ValueError, match="4×5 pixels have no half"):
        features.halved(drawn(1, 1, 4, 5))


@pytest.mark.parametrize("size", [(6, 4), (5, 8), (1, 1), (15, 10)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nearest(size: tuple[int, int], dtype: torch.dtype) -> None:
    x, upstream = drawn(2, 24, 15, 10, dtype=dtype), drawn(2, 24, *size, seed=1, dtype=dtype)
    out, (slope,) = gradients(lambda x: operations.nearest(x, size), [x], upstream)
    expected, (expected_slope,) = gradients(lambda x: functional.interpolate(x, size), [x.double()], upstream)
    assert torch.equal(out, expected)
    assert torch.equal(slope, expected_slope)


def test_nearest_does_not_enlarge() -> None:
    with pytest.raises(ValueError, match="16×10 pixels are more than 15×10"):
        operations.nearest(drawn(1, 8, 15, 10), (16, 10))


def test_unit_distance_of_zeros_has_no_gradient() -> None:
    a = torch.zeros(1, 8, 2, 2, device=DEVICE, requires_grad=True)
    features.unit_distance(a, drawn(1, 8, 2, 2), drawn(8).abs()).sum().backward()
    assert a.grad is not None
    assert float(a.grad.abs().max()) == 0


def outcome(network: nn.Module, given: list[Tensor], seed: int) -> dict[str, Tensor]:
    """Output, and gradients of a weighted sum of it with respect to inputs and weights."""
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in given]
    out = network(*leaves)
    out = out if isinstance(out, Tensor) else out[0]
    out.backward(drawn(*out.shape, seed=seed, dtype=out.dtype))
    inputs = {f"input {i}": leaf.grad for i, leaf in enumerate(leaves) if leaf.grad is not None}
    weights = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {name: value.double() for name, value in {"out": out.detach(), **inputs, **weights}.items()}


def unet_of_attributes() -> nn.Module:
    """The UNet of two attributes and two views, which attend to each other."""
    unet = with_inputs(SIZES["tiny"].model.denoiser().unet, channels=8, vector=5)
    attention.install(unet, views=2)
    attributes.insert(unet, attributes=2, views=2, rotary=True)
    for i, parameter in enumerate(unet.parameters()):
        parameter.data += 0.1 * drawn(*parameter.shape, seed=i).cpu()
    return unet


def networks() -> list[tuple[str, nn.Module, list[Tensor]]]:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, latent_channels=2, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    unet = SIZES["tiny"].model.denoiser().unet
    unet.conv_out.reset_parameters()
    tokens, step = drawn(2, 3, 16, seed=3), torch.tensor([5, 400], device=DEVICE)
    steps = torch.tensor([5, 400, 20, 999], device=DEVICE)
    parts: list[tuple[str, nn.Module, list[Tensor]]] = [
        ("encoder", vae.encoder, [drawn(2, 3, 12, 8)]),
        ("decoder", vae.decoder, [drawn(2, 2, 5, 4)]),
        ("unet", unet, [drawn(2, 4, 6, 4), step, tokens]),
        ("attributes", unet_of_attributes(), [drawn(4, 8, 4, 4), steps, drawn(4, 1, 16, seed=3), drawn(4, 5, seed=4)]),
    ]
    return [(name, network.to(DEVICE), given) for name, network, given in parts]


@pytest.mark.slow
@pytest.mark.parametrize("which", range(len(REPLACED)), ids=list(REPLACED))
def test_fused_networks_compute_the_same(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and all gradients, against the unfused network in float64."""
    name, network, given = networks()[which]
    exact = copy.deepcopy(network).double()
    expected = outcome(exact, [x.double() if x.is_floating_point() else x for x in given], 7)
    modules.fuse(network)
    assert all(isinstance(layer.forward, partial) for layer in network.modules() if type(layer) in REPLACED[name])
    assert {type(layer) for layer in network.modules()} >= REPLACED[name]
    monkeypatch.setattr(modules, "runs_fused", lambda x: True)
    actual = outcome(network, given, 7)
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        # A key's bias has no effect on attention: its gradient is rounding error.
        close(actual[key], value, 3e-5, 1e-5)
    modules.to_contiguous(network)
    assert all(p.is_contiguous() for p in network.parameters())


@pytest.mark.slow
def test_recomputed_networks_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks run twice, and the second time their inputs are those of the first."""
    results = []
    for recompute in (False, True):
        _, network, given = networks()[2]
        given = [x[:1] for x in given]
        modules.fuse(network)
        monkeypatch.setattr(modules, "runs_fused", lambda x: True)
        if recompute:
            network.enable_gradient_checkpointing()  # type: ignore[operator]
        blocks = [part for part in network.modules() if type(part) is BasicTransformerBlock]
        calls: list[int] = []
        monkeypatch.setattr(blocks[0], "forward", counted(blocks[0].forward, calls))
        results.append(outcome(network, given, 7))
        assert len(calls) == 1 + recompute
    for key, value in results[0].items():
        close(results[1][key], value, 1e-6, 1e-6)


def counted(run: Callable[..., Tensor], calls: list[int]) -> Callable[..., Tensor]:
    """A function that notes its calls."""

    def running(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        return run(*args, **kwargs)

    return running


def test_networks_are_fused_once() -> None:
    """A pipeline builds its method at every call; its layers must be wrapped only once."""
    _, network, _ = networks()[1]
    modules.fuse(network)
    before = [layer.forward for layer in network.modules()]
    modules.fuse(network)
    assert [layer.forward for layer in network.modules()] == before


def test_fused_networks_run_on_a_cpu() -> None:
    """A trained network still runs after a move to the CPU."""
    _, network, given = networks()[1]
    network, given = network.cpu(), [x.cpu() for x in given]
    expected = network(*given)
    modules.fuse(network)
    torch.testing.assert_close(network(*given), expected)


@pytest.mark.parametrize(
    ("kind", "capability", "expected"),
    [
        ("cuda", (9, 0), True),
        ("cuda", (8, 0), True),
        ("cuda", (7, 5), False),
        ("cpu", (9, 0), False),
    ],
)
def test_where_the_kernels_run(
    kind: str, capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert available(torch.device(kind)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lpips", "st_lpips"])
def test_perceptual_distance(kind: str) -> None:
    """Values and gradients equal the package's network, within bfloat16's rounding."""
    torch.manual_seed(0)
    package = perceptual.untrained_lpips() if kind == "lpips" else perceptual.st_lpips("alex")
    network = package.network.to(DEVICE)
    side = 32 if kind == "lpips" else 64  # VGG's first layers keep an interpreter busy
    truth = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    prediction = (truth + 0.2 * drawn(2, 3, side, side, seed=2)).clamp(0, 1)
    results = []
    for run in (lambda x: package(x, truth), lambda x: distance(network, 2 * x - 1, 2 * truth - 1)):
        leaf = prediction.clone().requires_grad_(True)
        out = run(leaf)
        out.sum().backward()
        assert leaf.grad is not None
        results.append((out.detach().double(), leaf.grad.double().flatten()))
    (exact, exact_slope), (fused, fused_slope) = results
    close(fused, exact, 0.03)
    assert float(functional.cosine_similarity(fused_slope, exact_slope, dim=0)) > 0.98
