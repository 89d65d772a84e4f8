"""Attributes as images and back: by hand in float64, without loss inside the ranges, and what leaves them counted."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from z1g.gaussians.channels import CHANNELS
from z1g.gaussians.rotations import rotation_matrices
from z1g.representations.attributes.mappings import Mappings

FORMS = [
    Mappings(),
    Mappings(opacity="linear", scale="linear", rotation="quaternion"),
    Mappings(position=1.3, opacity_logits=(-3, 4), scale_logs=(-6, 1), rotation_limit=4),
]


def splats(mappings: Mappings, n: int = 4, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Splatter images [2,3,14,n,n] whose values fill the ranges."""
    draw = np.random.default_rng(seed)
    low, high = mappings.scale_logs
    first, last = mappings.opacity_logits
    shape = (2, 3, n, n)
    quaternion = draw.normal(size=(2, 3, 4, n, n))
    values = np.concatenate(
        [
            draw.uniform(-mappings.position, mappings.position, (2, 3, 3, n, n)),
            1 / (1 + np.exp(-draw.uniform(first, last, shape)[:, :, None])),
            np.exp(draw.uniform(low, high, (2, 3, 3, n, n))),
            quaternion / np.linalg.norm(quaternion, axis=2, keepdims=True),
            draw.uniform(0, 1, (2, 3, 3, n, n)),
        ],
        axis=2,
    )
    return torch.from_numpy(values).to(dtype)


def turns(quaternions: Tensor) -> Tensor:
    """Rotation matrices [N,3,3] of quaternions [B,V,4,S,S]."""
    return rotation_matrices(quaternions.movedim(2, 1).flatten(2).double()).movedim(3, 1).flatten(0, 1)


@pytest.mark.parametrize("mappings", FORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_there_and_back_is_the_same(mappings: Mappings, dtype: torch.dtype, tolerance: float) -> None:
    before = splats(mappings, n=24, dtype=dtype)
    images = mappings.images(before)
    assert images.shape == (2, 5, 3, 3, 24, 24)
    assert images.abs().max() <= 1
    after = mappings.splats(images)
    assert after.dtype == dtype
    largest = max(1.0, math.exp(mappings.scale_logs[1]))
    for name, channels in CHANNELS.items():
        actual, expected = after[:, :, channels], before[:, :, channels]
        if name == "rotation":
            torch.testing.assert_close(actual.norm(dim=2), torch.ones_like(actual[:, :, 0]), atol=tolerance, rtol=0)
            sign = (actual * expected).sum(dim=2, keepdim=True).sign()
            expected = sign * expected
        torch.testing.assert_close(actual, expected, atol=tolerance * largest, rtol=0)


def test_images_by_hand() -> None:
    before = splats(Mappings(), dtype=torch.float64)
    images = Mappings().images(before).numpy()
    values = before.numpy()
    np.testing.assert_allclose(images[:, 0], values[:, :, :3] / 0.7, atol=1e-12)
    opacity = values[:, :, 3:4]
    unit = (np.log(opacity / (1 - opacity)) + 14) / 23
    np.testing.assert_allclose(images[:, 1], np.repeat(2 * unit - 1, 3, axis=2), atol=1e-9)
    np.testing.assert_allclose(images[:, 2], 2 * (np.log(values[:, :, 4:7]) + 10) / 8 - 1, atol=1e-12)
    quaternions = values[:, :, 7:11].transpose(0, 1, 3, 4, 2).reshape(-1, 4)
    turned = Rotation.from_quat(quaternions[:, [1, 2, 3, 0]]).as_rotvec() / 5
    np.testing.assert_allclose(images[:, 3].transpose(0, 1, 3, 4, 2).reshape(-1, 3), turned, atol=1e-9)
    np.testing.assert_allclose(images[:, 4], 2 * values[:, :, 11:] - 1, atol=1e-12)


def test_linear_images_by_hand() -> None:
    mappings = Mappings(opacity="linear", scale="linear", scale_logs=(-9, -1), rotation="quaternion")
    values = splats(mappings, dtype=torch.float64)
    images = mappings.images(values).numpy()
    np.testing.assert_allclose(images[:, 1, :, :1], 2 * values[:, :, 3:4] - 1, atol=1e-12)
    np.testing.assert_allclose(images[:, 2], 2 * values[:, :, 4:7] / math.exp(-1) - 1, atol=1e-12)
    quaternions = values[:, :, 7:11].permute(0, 1, 3, 4, 2).reshape(-1, 4).numpy()
    expected = Rotation.from_quat(quaternions[:, [1, 2, 3, 0]]).as_mrp()
    np.testing.assert_allclose(images[:, 3].transpose(0, 1, 3, 4, 2).reshape(-1, 3), expected, atol=1e-12)


@given(
    quaternion=st.tuples(*[st.floats(-1, 1) for _ in range(4)]).filter(lambda q: sum(x * x for x in q) > 1e-3),
    form=st.sampled_from(["axis_angle", "quaternion"]),
)
def test_every_rotation_survives(quaternion: tuple[float, ...], form: Any) -> None:
    """Also no rotation, half turns, and quaternions of any length and sign."""
    mappings = Mappings(rotation=form)
    before = splats(mappings, n=1, dtype=torch.float64)[:1, :1]
    before[0, 0, 7:11, 0, 0] = torch.tensor(quaternion, dtype=torch.float64)
    after = mappings.splats(mappings.images(before))
    torch.testing.assert_close(turns(after[:, :, 7:11]), turns(before[:, :, 7:11]), atol=1e-9, rtol=0)


def test_without_rotations_all_axes_are_the_frame_s() -> None:
    mappings = Mappings(rotation="none")
    before = splats(mappings)
    images = mappings.images(before)
    assert images.shape[1] == 4
    assert mappings.names == ("position", "opacity", "scale", "rgb")
    after = mappings.splats(images)
    torch.testing.assert_close(turns(after[:, :, 7:11]), torch.eye(3, dtype=torch.float64).expand(96, 3, 3))
    kept = [*range(7), *range(11, 14)]
    torch.testing.assert_close(after[:, :, kept], before[:, :, kept], atol=1e-6, rtol=0)


def test_opacity_is_the_mean_of_its_channels() -> None:
    mappings = Mappings()
    images = torch.zeros(1, 5, 1, 3, 1, 1, dtype=torch.float64)
    images[0, 1, 0, :, 0, 0] = torch.tensor([-0.5, 0.1, 0.7])
    logit = -14 + (0.1 + 1) / 2 * 23
    assert mappings.splats(images)[0, 0, 3, 0, 0].item() == pytest.approx(1 / (1 + math.exp(-logit)))


@pytest.mark.parametrize("mappings", FORMS)
def test_what_exceeds_a_range_is_clipped_and_finite(mappings: Mappings) -> None:
    extreme = splats(mappings)
    extreme[:, :, :3] *= 100
    extreme[:, :, 3], extreme[0, :, 3] = 0, 1
    extreme[:, :, 4:7] = 1e3
    extreme[0, :, 4:7] = 1e-30
    images = mappings.images(extreme)
    assert images.abs().max() <= 1
    wild = mappings.splats(3 * torch.randn(2, 5, 3, 3, 4, 4, generator=torch.Generator().manual_seed(1)))
    for result in (mappings.splats(images), wild):
        assert result.isfinite().all()
        assert result[:, :, :3].abs().max() <= mappings.position * (1 + 1e-6)
        assert result[:, :, 4:7].max() <= math.exp(mappings.scale_logs[1]) * (1 + 1e-5)


def test_gradients_reach_images_beyond_the_ranges() -> None:
    """So that renders can bring them back, and a rotation of nothing has a gradient, too."""
    images = torch.zeros(1, 5, 1, 3, 1, 2)
    images[..., 1] = 1.5
    images.requires_grad_()
    weights = torch.randn(14, generator=torch.Generator().manual_seed(0))
    (Mappings().splats(images)[0, 0] * weights[:, None, None]).sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert (images.grad.abs() > 0).all()


def test_clipped_gaussians_are_counted() -> None:
    """Of those that are drawn, whatever the number of channels that leave a range."""
    mappings = Mappings()
    values = splats(mappings, n=4)
    values[:, :, 3] = 0.5
    values[0, 0, 3, 0] = 1 / 300  # four that nobody sees
    values[0, 0, :3, 0, 0] = 9
    values[0, 1, :2, 1, 1] = -0.71
    values[1, 2, 2, 3, 3] = 0.72
    values[1, 0, 5, 2, :3] = 0.2
    values[1, 0, 3, 2, 0] = 1.0
    drawn = 2 * 3 * 16 - 4
    expected = {"drawn": drawn, "position": 2, "opacity": 1, "scale": 3, "rotation": 0, "rgb": 0}
    assert mappings.clipped(values) == expected
    assert Mappings(rotation_limit=0.1, opacity="linear").clipped(values)["rotation"] > drawn / 2
    inside = splats(mappings, n=8)
    assert sum(mappings.clipped(inside).values()) == mappings.clipped(inside)["drawn"], "rounding leaves no range"


@pytest.mark.parametrize("name", ["opacity_logits", "scale_logs"])
def test_ranges_rise(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} 1 to 1 must rise"):
        Mappings.model_validate({name: (1, 1)})
