"""The reference against a rasterizer written again from the formulas, and the CPU backend against the reference."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from z1g.camera import Cameras, orbit_c2w
from z1g.render import Rasterizer, RenderOutput
from z1g.render.cpu import Cpu
from z1g.render.diff_gaussian import matrices
from z1g.render.reference import Reference
from z1g.splat import CHANNELS

Array = NDArray[np.float64]
FOV = 49.1
KINDS = ["random", "trained", "huge", "tiny", "needles", "behind", "transparent", "opaque", "nan"]


def cameras(b: int, v: int, height: int, width: int) -> Cameras:
    poses = [[orbit_c2w(17.0 * j - 25, 50.0 * j + 20 * i + 5, 1.5) for j in range(v)] for i in range(b)]
    return Cameras(torch.from_numpy(np.array(poses)), FOV, height, width)


def gaussians(kind: str, b: int, n: int, seed: int = 0) -> Tensor:
    """Activated Gaussians [b,n,14] in float64, quaternions not normalised."""
    g = torch.randn(b, n, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    position, opacity, scale, _, rgb = (g[..., channels] for channels in CHANNELS.values())
    position *= 0.2
    opacity.copy_(torch.sigmoid(2 * opacity))
    scale.copy_(torch.exp(0.6 * scale - 4))
    rgb.copy_(torch.sigmoid(rgb))
    if kind == "trained":
        position.copy_(0.4 * torch.nn.functional.normalize(position, dim=-1))
        opacity.copy_(0.5 + 0.49 * opacity)
    elif kind == "huge":
        scale *= 20
    elif kind == "tiny":
        scale *= 1e-4
    elif kind == "needles":
        scale[..., 0] = 0.3
        scale[..., 1:] = 1e-3
    elif kind == "behind":
        position[:, ::2] *= 12
    elif kind == "transparent":
        opacity[:, ::2] = 0
    elif kind == "opaque":
        opacity.fill_(1)
    elif kind == "nan":
        position[:, ::3, 0] = torch.nan
        scale[:, 1::3, 1] = torch.inf
    return g


def flat(output: RenderOutput) -> Tensor:
    return torch.cat([output.rgb, output.alpha, output.depth], dim=2)


def gradient(backend: Rasterizer, g: Tensor, c: Cameras, weight: Tensor) -> Tensor:
    leaf = g.clone().requires_grad_(True)
    (flat(backend.render(leaf, c)) * weight.to(g)).sum().backward()
    assert leaf.grad is not None
    return leaf.grad.double()


def turn(quaternion: Array, vector: Array) -> Array:
    """q v q* with the quaternion's product written as scalar and vector parts."""
    w, u = quaternion[0], quaternion[1:]
    return vector + 2 * np.cross(u, np.cross(u, vector) + w * vector)


def ellipse(g: Array, w2c: Array, c: Cameras) -> tuple[Array, Array, float]:
    """Centre, inverse covariance and depth; the Jacobian of the pinhole by complex steps."""
    centre = w2c[:3, :3] @ g[:3] + w2c[:3, 3]
    field = np.array([c.width, c.height]) / (2 * c.focal)
    z = centre[2]
    at = np.array([*(np.clip(centre[:2] / z, -1.3 * field, 1.3 * field) * z), z])
    steps = [at + 1e-30j * axis for axis in np.eye(3)]
    jacobian = np.stack([(c.focal * p[:2] / p[2]).imag / 1e-30 for p in steps], axis=1)
    quaternion = g[7:11] / np.linalg.norm(g[7:11])
    axes = np.stack([turn(quaternion, s * axis) for s, axis in zip(g[4:7], np.eye(3), strict=True)], axis=1)
    half = jacobian @ w2c[:3, :3] @ axes
    return c.focal * centre[:2] / z + [c.width / 2, c.height / 2], np.linalg.inv(half @ half.T + 0.3 * np.eye(2)), z


def pixel(seen: list[tuple[Array, Array, float, Array]], at: Array) -> Array:
    """Red, green, blue, alpha, depth of one pixel by walking through Gaussians in depth order."""
    light, result = 1.0, np.zeros(5)
    for mean, conic, z, g in seen:
        alpha = min(0.999, g[3] * np.exp(-0.5 * (at - mean) @ conic @ (at - mean)))
        if alpha < 1 / 255:
            continue
        if light * (1 - alpha) <= 1e-4:
            break
        result += light * alpha * np.array([*g[11:14], 1, z])
        light *= 1 - alpha
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_reference_is_what_the_formulas_say(kind: str) -> None:
    # Wider than a tile, so that Gaussians are sorted out by their boxes; crowded, so that pixels go dark.
    g, c = gaussians(kind, 1, 60, seed=1), cameras(1, 1, 9, 21)
    w2c = np.linalg.inv(c.c2w[0, 0].numpy())
    rows = [row for row in g[0].numpy() if np.isfinite(row).all() and (w2c[:3, :3] @ row[:3] + w2c[:3, 3])[2] > 0.01]
    seen = sorted(((*ellipse(row, w2c, c), row) for row in rows), key=lambda found: found[2])
    expected = [[pixel(seen, np.array([x + 0.5, y + 0.5])) for x in range(c.width)] for y in range(c.height)]
    found = flat(Reference().render(g, c))[0, 0].permute(1, 2, 0)
    np.testing.assert_allclose(found.numpy(), np.array(expected), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (19, 41)])
def test_cpu_is_the_reference_within_float32(kind: str, height: int, width: int) -> None:
    g, c = gaussians(kind, 2, 200, seed=2), cameras(2, 2, height, width)
    value, fast = flat(Reference().render(g, c)), flat(Cpu().render(g.float(), c)).double()
    tolerance = 1e-4 if kind == "needles" else 1e-5
    # A pixel may flip where alpha or transmittance meets its threshold within rounding: few, small, left out below.
    error = (value - fast).abs()
    steady = (error < tolerance * value.abs().clamp(min=1)).all(dim=2, keepdim=True)
    assert steady.double().mean() > 0.995
    assert error.max() < 0.02
    weight = torch.rand(value.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * steady
    expected, found = gradient(Reference(), g, c, weight), gradient(Cpu(), g.float(), c, weight)
    for name, channel in CHANNELS.items():
        largest = expected[..., channel].abs().max()
        assert (expected - found)[..., channel].abs().max() <= tolerance * largest, name


def test_near_plane_and_alpha_cap_are_options() -> None:
    g, c = gaussians("opaque", 1, 80), cameras(1, 1, 24, 24)
    for backend in (Reference, Cpu):
        usual = backend().render(g, c).alpha
        assert not torch.equal(backend(near=1.5).render(g, c).alpha, usual)
        assert backend(alpha_cap=0.3).render(g[:, :1], c).alpha.max() <= 0.3 + 1e-6
    chosen = {"near": 1.4, "alpha_cap": 0.6}
    found, expected = flat(Cpu(**chosen).render(g, c)), flat(Reference(**chosen).render(g, c))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_reference_gradients_by_finite_differences() -> None:
    g, c = gaussians("random", 1, 3, seed=4), cameras(1, 1, 6, 18)
    g[..., CHANNELS["scale"]] = torch.tensor([0.3, 0.2, 0.25], dtype=torch.float64)
    g[..., CHANNELS["opacity"]] = 0.6
    weight = torch.rand(1, 1, 5, 6, 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def total(x: Tensor) -> Tensor:
        return (flat(Reference().render(x, c)) * weight).sum()

    slope = gradient(Reference(), g, c, weight)[0]
    for index in np.ndindex(3, 14):
        step = torch.zeros_like(g)
        step[0][index] = 1e-6
        difference = (total(g + step) - total(g - step)) / 2e-6
        assert float(difference) == pytest.approx(float(slope[index]), rel=1e-5, abs=1e-6), index


def test_matrices_of_diff_gaussian_put_points_where_the_cameras_see_them() -> None:
    c = cameras(2, 2, 24, 40)
    row_view, row_clip, positions = matrices(c)
    point = torch.tensor([0.11, -0.2, 0.07, 1.0])
    for i, j in np.ndindex(2, 2):
        camera = c.world_to_camera()[i, j].float() @ point
        torch.testing.assert_close(point @ row_view[i, j], camera)
        clip = point @ row_clip[i, j]
        assert clip[3] == pytest.approx(float(camera[2]), rel=1e-6)
        # Pixels of the extension count from a centre, ours from a corner.
        found = ((clip[:2] / clip[3] + 1) * torch.tensor([40.0, 24.0]) - 1) / 2 + 0.5
        expected = c.intrinsics().float() @ (camera[:3] / camera[2])
        torch.testing.assert_close(found, expected[:2], atol=1e-4, rtol=0)
        torch.testing.assert_close(row_view[i, j].inverse().T[:3, 3], positions[i, j], atol=1e-5, rtol=0)
