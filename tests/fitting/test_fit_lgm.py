"""Initialization by LGM: the published layout, the forward pass against an independent one, and invalid weights."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from safetensors.torch import save_file
from support.builders import ball
from torch import Tensor

from z1g.core.errors import UserError
from z1g.data.scenes import Scene, as_scene
from z1g.fitting import _lgm
from z1g.fitting.lgm import LgmStart
from z1g.fitting.optimize import Fit
from z1g.fitting.options import FitOptions
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, pixel_rays
from z1g.networks.lgm import LGM, Layout, Level, features
from z1g.render.auto import Auto

CAMERA = CameraOptions(train_views=3, validation_views=1, test_views=1)
TINY = Layout(
    down=(Level(32, 1, False), Level(32, 2, True), Level(64, 1, True)),
    up=(Level(64, 2, True), Level(32, 3, False)),
    mid_attention=True,
)
BIG = Layout(
    down=tuple(Level(c, 2, c >= 512) for c in (64, 128, 256, 512, 1024, 1024)),
    up=tuple(Level(c, 3, c >= 512) for c in (1024, 1024, 512, 256, 128)),
    mid_attention=True,
)


def network(layout: Layout = TINY) -> LGM:
    torch.manual_seed(0)
    return LGM(layout)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Attention of 256-pixel images at the resolutions of this tiny network would take minutes.
    monkeypatch.setattr(_lgm, "IMAGE_SIZE", 32)
    path = tmp_path / "model.safetensors"
    save_file({**network().state_dict(), "lpips_loss.lin0.weight": torch.ones(1)}, path)
    return path


@pytest.fixture(scope="module")
def scene() -> Scene:
    return as_scene(ball("globe", CAMERA, 48), CAMERA.radius)


def test_big_has_the_tensors_of_the_published_checkpoint() -> None:
    with torch.device("meta"):
        state = LGM(BIG).state_dict()
    assert sum(value.numel() for value in state.values()) == 415_042_848
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    for name, shape in {
        "conv.weight": (14, 14, 1, 1),
        "unet.conv_in.weight": (64, 9, 3, 3),
        "unet.down_blocks.1.nets.0.shortcut.weight": (128, 64, 1, 1),
        "unet.down_blocks.3.attns.1.attn.qkv.weight": (1536, 512),
        "unet.down_blocks.3.attns.1.attn.proj.bias": (512,),
        "unet.down_blocks.4.downsample.weight": (1024, 1024, 3, 3),
        "unet.mid_block.nets.1.norm2.weight": (1024,),
        "unet.mid_block.attns.0.norm.bias": (1024,),
        "unet.up_blocks.0.nets.0.conv1.weight": (1024, 2048, 3, 3),
        "unet.up_blocks.2.nets.2.conv1.weight": (512, 768, 3, 3),
        "unet.up_blocks.3.upsample.weight": (256, 256, 3, 3),
        "unet.norm_out.weight": (128,),
        "unet.conv_out.weight": (14, 128, 3, 3),
    }.items():
        assert shapes[name] == shape, name
    for absent in ("unet.down_blocks.5.downsample.weight", "unet.up_blocks.4.upsample.weight",
                   "unet.down_blocks.2.attns.0.norm.weight", "unet.down_blocks.3.attns.0.attn.qkv.bias"):  # fmt: skip
        assert absent not in shapes
    assert Layout.of(state) == BIG


def test_big_has_the_size_of_the_published_checkpoint() -> None:
    # A file's header has every name and shape, so its length verifies all of them.
    with torch.device("meta"):
        state = LGM(BIG).state_dict()
    header, end = {}, 0
    for name in sorted(state):
        start, end = end, end + 2 * state[name].numel()
        header[name] = {"dtype": "F16", "shape": list(state[name].shape), "data_offsets": [start, end]}
    text = len(json.dumps(header, separators=(",", ":")))
    assert 8 + math.ceil(text / 8) * 8 + end == 830_126_160, "model_fp16_fixrot.safetensors of ashawkey/LGM"


def test_the_layout_is_derived_from_a_checkpoint() -> None:
    assert Layout.of(network().state_dict()) == TINY
    with pytest.raises(KeyError, match="down_blocks"):
        Layout.of({"weight": torch.ones(1)})


class Again:
    """The forward pass from the state dict in float64, one function per layer."""

    def __init__(self, state: dict[str, Tensor], views: int) -> None:
        self.state, self.views = {name: value.double() for name, value in state.items()}, views

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.state[name + ".weight"]
        return functional.conv2d(x, weight, self.state[name + ".bias"], stride, weight.shape[-1] // 2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        groups = x.unflatten(1, (32, -1))
        mean = groups.mean(dim=(2, 3, 4), keepdim=True)
        variance = ((groups - mean) ** 2).mean(dim=(2, 3, 4), keepdim=True)
        flat = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        return flat * self.state[name + ".weight"][:, None, None] + self.state[name + ".bias"][:, None, None]

    def residual(self, x: Tensor, name: str) -> Tensor:
        def silu(y: Tensor) -> Tensor:
            return y / (1 + torch.exp(-y))

        hidden = self.conv(silu(self.norm(x, name + ".norm1")), name + ".conv1")
        hidden = self.conv(silu(self.norm(hidden, name + ".norm2")), name + ".conv2")
        short = self.conv(x, name + ".shortcut") if name + ".shortcut.weight" in self.state else x
        return (hidden + short) / math.sqrt(2)

    def attention(self, x: Tensor, name: str) -> Tensor:
        if name + ".norm.weight" not in self.state:
            return x
        c, out = x.shape[1], torch.empty_like(x)
        normed = self.norm(x, name + ".norm")
        for first in range(0, len(x), self.views):
            tokens = torch.cat([image.reshape(c, -1).T for image in normed[first : first + self.views]])
            q, k, v = (tokens @ self.state[name + ".attn.qkv.weight"].T).chunk(3, dim=1)
            heads = []
            for h in range(16):
                part = slice(h * c // 16, (h + 1) * c // 16)
                score = torch.exp(q[:, part] @ k[:, part].T / math.sqrt(c // 16))
                heads.append(score / score.sum(dim=1, keepdim=True) @ v[:, part])
            mixed = (
                torch.cat(heads, 1) @ self.state[name + ".attn.proj.weight"].T + self.state[name + ".attn.proj.bias"]
            )
            pixels = x.shape[2] * x.shape[3]
            for i in range(self.views):
                out[first + i] = mixed[i * pixels : (i + 1) * pixels].T.reshape(x.shape[1:])
        return (out + x) / math.sqrt(2)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.conv(x.double().flatten(0, 1), "unet.conv_in")
        skips = [x]
        for i, level in enumerate(TINY.down):
            for j in range(level.blocks):
                x = self.attention(
                    self.residual(x, f"unet.down_blocks.{i}.nets.{j}"), f"unet.down_blocks.{i}.attns.{j}"
                )
                skips.append(x)
            if i < len(TINY.down) - 1:
                x = self.conv(x, f"unet.down_blocks.{i}.downsample", stride=2)
                skips.append(x)
        x = self.attention(self.residual(x, "unet.mid_block.nets.0"), "unet.mid_block.attns.0")
        x = self.residual(x, "unet.mid_block.nets.1")
        for i, level in enumerate(TINY.up):
            for j in range(level.blocks):
                x = self.residual(torch.cat([x, skips.pop()], dim=1), f"unet.up_blocks.{i}.nets.{j}")
                x = self.attention(x, f"unet.up_blocks.{i}.attns.{j}")
            if i < len(TINY.up) - 1:
                x = self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), f"unet.up_blocks.{i}.upsample")
        x = self.norm(x, "unet.norm_out")
        return self.conv(self.conv(x / (1 + torch.exp(-x)), "unet.conv_out"), "conv")


def test_the_forward_pass_matches_an_independent_one() -> None:
    model, x = network(), torch.randn(2, 3, 9, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        actual = model.double()(x.double())
    assert actual.shape == (2, 3, 14, 8, 8)
    torch.testing.assert_close(actual.flatten(0, 1), Again(model.state_dict(), 3)(x), atol=1e-9, rtol=1e-9)


def test_inputs_are_normalized_colors_and_pluecker_rays(scene: Scene) -> None:
    origins, directions = (x[0].double() for x in pixel_rays(scene.cameras(list(INPUT_VIEWS), 8)))
    rgb = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    actual = features(rgb, origins, directions, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)).numpy()
    np.testing.assert_allclose(actual[:, 1], (rgb[:, 1].numpy() - 0.4) / 0.3, atol=1e-6)
    o, d = origins[2, :, 3, 5].numpy(), directions[2, :, 3, 5].numpy()
    d = d / np.linalg.norm(d)
    np.testing.assert_allclose(actual[2, 3:6, 3, 5], np.cross(o, d))
    np.testing.assert_allclose(actual[2, 6:, 3, 5], d)
    # View 1 is at [0, 0, radius] and looks along -z, like LGM's first camera.
    np.testing.assert_allclose(actual[0, 6:].mean(axis=(1, 2)), [0, 0, actual[0, 8].mean()], atol=1e-6)
    assert actual[0, 8].max() < -0.8


def test_the_start_is_activated_and_has_the_requested_size(scene: Scene, weights: Path) -> None:
    for size in (16, 8):
        splats = LgmStart(weights=str(weights)).splats(scene, list(INPUT_VIEWS), size)
        assert splats.shape == (6, 14, size, size)
        assert splats.isfinite().all()
        assert splats[:, 3].min() >= 0
        assert splats[:, 3].max() <= 1
        assert splats[:, 4:7].min() > 0
        torch.testing.assert_close(splats[:, 7:11].norm(dim=1), torch.ones(6, size, size))
    options = FitOptions(start=LgmStart(weights=str(weights)), steps=2, views_per_step=2)
    assert Fit(options, 16, Auto(), CAMERA).run([scene])[0].steps == 2


def test_resizing_keeps_the_covered_area() -> None:
    splats = torch.rand(6, 14, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.4
    small = _lgm.resized(splats, 16)
    torch.testing.assert_close(small[:, 4:7].mean(), 2 * splats[:, 4:7].mean(), rtol=1e-3, atol=0)
    torch.testing.assert_close(small[:, :3].mean(), splats[:, :3].mean(), rtol=1e-3, atol=0)


def test_resizing_treats_a_quaternion_and_its_negative_as_equal() -> None:
    splats = torch.full((6, 14, 8, 8), 0.3)
    splats[:, 7:11] = torch.tensor([0.8, 0.6, 0.0, 0.0])[:, None, None]
    splats[:, 7:11, :, ::2] *= -1
    expected = splats[:, 7:11, :4, 1::2]
    torch.testing.assert_close(_lgm.resized(splats, 4)[:, 7:11], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("absent", r"is not a file; download LGM's .* visual_hull"),
        ("garbage", "is not an LGM checkpoint"),
        ("other", r"is not an LGM checkpoint.*down_blocks"),
        ("narrow", r"is not an LGM checkpoint.*divisible"),
        ("flat", "is not an LGM checkpoint"),
        ("missing", r"tensors do not fit .*: 1 missing \(unet.conv_out.bias\)$"),
        ("extra", r"tensors do not fit .*: 1 extra \(unet.conv_up.bias\)$"),
        ("renamed", r"tensors do not fit .*: 1 missing \(unet.conv_out.bias\); 1 extra \(unet.conv_up.bias\)$"),
        (
            "shape",
            r"tensors do not fit .*: 1 of another shape \(conv.weight \[14, 14, 3, 3\] instead of \[14, 14, 1, 1\]\)$",
        ),
    ],
)
def test_errors_of_invalid_weights(scene: Scene, weights: Path, change: str, message: str) -> None:
    state = network().state_dict()
    if change == "absent":
        weights.unlink()
    elif change == "garbage":
        weights.write_bytes(b"not a checkpoint")
    else:
        if change == "other":
            state = {"linear.weight": torch.ones(2, 2)}
        elif change in ("narrow", "flat"):
            narrow = torch.ones(16, 9, 3, 3) if change == "narrow" else torch.ones(())
            state |= {f"unet.{side}_blocks.0.nets.0.conv1.weight": narrow.clone() for side in ("down", "up")}
        elif change == "missing":
            del state["unet.conv_out.bias"]
        elif change == "extra":
            state["unet.conv_up.bias"] = torch.ones(14)
        elif change == "renamed":
            state["unet.conv_up.bias"] = state.pop("unet.conv_out.bias")
        else:
            state["conv.weight"] = torch.ones(14, 14, 3, 3)
        save_file(state, weights)
    with pytest.raises(UserError, match=message):
        LgmStart(weights=str(weights)).splats(scene, list(INPUT_VIEWS), 16)


def test_the_original_skips_pixels_and_optimizes_raw_quaternions(
    scene: Scene, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def spied(rgb: Tensor, *others: Any) -> Tensor:
        seen.append(rgb)
        return features(rgb, *others)

    monkeypatch.setattr(_lgm, "features", spied)
    inputs = list(INPUT_VIEWS)
    plain = LgmStart(weights=str(weights)).splats(scene, inputs, 16)
    start = LgmStart(weights=str(weights), antialias=False, quaternions="raw")
    splats = start.splats(scene, inputs, 16)
    rgb, alpha = scene.images(inputs)
    # 48 pixels become 32: each new center lies a quarter of a pixel from the nearest old one.
    halves = torch.block_diag(*[torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.25, 0.75]])] * 16)
    torch.testing.assert_close(seen[1], halves @ (rgb + 1 - alpha) @ halves.T, atol=1e-5, rtol=0)
    assert (seen[0] - seen[1]).abs().max() > 1e-2
    origins, directions = (x[0] for x in pixel_rays(scene.cameras(inputs, 32)))
    with torch.no_grad():
        raw = network()(features(seen[1], origins, directions, _lgm.MEAN, _lgm.STD)[None])[0, :, 7:11]
    torch.testing.assert_close(splats[:, 7:11], raw, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(plain[:, 7:11].norm(dim=1), torch.ones(6, 16, 16))
    # With the norm over all splats lengths matter: a start of unit quaternions is another one.
    over_all = {"rotation_norm": "splats", "steps": 0}
    fitted = Fit(FitOptions(start=start, **over_all), 16, Auto(), CAMERA).run([scene])[0]
    expected = raw.double() / raw.double().square().sum(dim=(0, 2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(fitted.splats[:, 7:11].double(), expected, atol=1e-6, rtol=1e-4)
    unit = Fit(FitOptions(start=LgmStart(weights=str(weights), antialias=False), **over_all), 16, Auto(), CAMERA)
    other = unit.run([scene])[0].splats[:, 7:11].double()
    assert float((other - expected).norm() / expected.norm()) > 0.05


def test_all_raw_quaternions_are_optimized(scene: Scene, weights: Path) -> None:
    """Also those of invisible Gaussians: what is stored is normalized."""
    options = FitOptions(start=LgmStart(weights=str(weights), quaternions="raw"), steps=1, views_per_step=2)
    splats = Fit(options, 16, Auto(), CAMERA).run([scene])[0].splats
    torch.testing.assert_close(splats[:, 7:11].norm(dim=1), torch.ones(6, 16, 16))
