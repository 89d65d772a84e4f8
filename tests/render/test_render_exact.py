"""The reference against an independent rasterizer from the formulas, and every backend against the reference."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.renders import FOV, cameras, flat, gaussians, gradient
from torch import Tensor

from z1g.core.errors import UserError
from z1g.gaussians.channels import CHANNELS
from z1g.geometry.camera import Cameras, orbit_c2w
from z1g.render import Conventions, Rasterizer, _pixels
from z1g.render.auto import Auto
from z1g.render.cpu import Cpu
from z1g.render.diff_gaussian import DiffGaussian, matrices
from z1g.render.gsplat import Gsplat
from z1g.render.projection import finite
from z1g.render.reference import Reference

Array = NDArray[np.float64]
KINDS = ["random", "trained", "huge", "tiny", "needles", "behind", "transparent", "opaque", "nan"]
ORIGINAL: dict[str, Any] = {
    "near": 0.2, "alpha_cap": 0.99, "footprint": "three_sigma", "normalize_rotation": False, "cap_gradient": "pass",
}  # fmt: skip
"""Conventions of diff-gaussian-rasterization; the defaults are gsplat's."""
CONVENTIONS = [pytest.param({}, id="gsplat"), pytest.param(ORIGINAL, id="original")]


def turn(quaternion: Array, vector: Array) -> Array:
    """q v q* with the quaternion product in scalar and vector parts."""
    w, u = quaternion[0], quaternion[1:]
    return vector + 2 * np.cross(u, np.cross(u, vector) + w * vector)


def ellipse(g: Array, w2c: Array, c: Cameras, chosen: Conventions) -> tuple[Array, Array, float]:
    """Center, inverse covariance and depth; the pinhole's Jacobian by complex-step differentiation."""
    center = w2c[:3, :3] @ g[:3] + w2c[:3, 3]
    field = np.array([c.width, c.height]) / (2 * c.focal)
    z = center[2]
    at = np.array([*(np.clip(center[:2] / z, -1.3 * field, 1.3 * field) * z), z])
    steps = [at + 1e-30j * axis for axis in np.eye(3)]
    jacobian = np.stack([(c.focal * p[:2] / p[2]).imag / 1e-30 for p in steps], axis=1)
    quaternion = g[7:11] / np.linalg.norm(g[7:11]) if chosen.normalize_rotation else g[7:11]
    axes = np.stack([turn(quaternion, s * axis) for s, axis in zip(g[4:7], np.eye(3), strict=True)], axis=1)
    half = jacobian @ w2c[:3, :3] @ axes
    return c.focal * center[:2] / z + [c.width / 2, c.height / 2], np.linalg.inv(half @ half.T + 0.3 * np.eye(2)), z


def in_tiles(mean: Array, conic: Array, at: Array) -> bool:
    """Whether 3DGS lists the Gaussian for the tile of a pixel (auxiliary.h: getRect), in its own pixel coordinates."""
    (xx, xy), (_, yy) = np.linalg.inv(conic)
    middle = (xx + yy) / 2
    radius = np.ceil(3 * np.sqrt(middle + np.sqrt(max(0.1, middle**2 - (xx * yy - xy**2)))))
    x, y = mean - 0.5
    column, row = int(at[0] // 16), int(at[1] // 16)
    in_columns = max(int((x - radius) / 16), 0) <= column < int((x + radius + 15) / 16)
    return in_columns and max(int((y - radius) / 16), 0) <= row < int((y + radius + 15) / 16)


def pixel(seen: list[tuple[Array, Array, float, Array]], at: Array, chosen: Conventions) -> Array:
    """Red, green, blue, alpha, depth of one pixel by a loop over Gaussians in depth order."""
    transmittance, result = 1.0, np.zeros(5)
    for mean, conic, z, g in seen:
        alpha = min(chosen.alpha_cap, g[3] * np.exp(-0.5 * (at - mean) @ conic @ (at - mean)))
        if alpha < 1 / 255 or (chosen.footprint == "three_sigma" and not in_tiles(mean, conic, at)):
            continue
        if transmittance * (1 - alpha) <= 1e-4:
            break
        result += transmittance * alpha * np.array([*g[11:14], 1, z])
        transmittance *= 1 - alpha
    return result


@pytest.mark.parametrize("options", CONVENTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_reference_equals_the_formulas(kind: str, options: dict[str, Any]) -> None:
    # Wider than a tile, so that boxes exclude Gaussians; crowded, so that transmittance reaches its limit.
    g, c, judge = gaussians(kind, 1, 60, seed=1), cameras(1, 1, 9, 37), Reference(**options)
    w2c = np.linalg.inv(c.c2w[0, 0].numpy())
    depths = [(w2c[:3, :3] @ row[:3] + w2c[:3, 3])[2] for row in g[0].numpy()]
    rows = [row for row, z in zip(g[0].numpy(), depths, strict=True) if np.isfinite(row).all() and z > judge.near]
    seen = sorted(((*ellipse(row, w2c, c, judge), row) for row in rows), key=lambda gaussian: gaussian[2])
    expected = [[pixel(seen, np.array([x + 0.5, y + 0.5]), judge) for x in range(c.width)] for y in range(c.height)]
    actual = flat(judge.render(g, c))[0, 0].permute(1, 2, 0)
    np.testing.assert_allclose(actual.numpy(), np.array(expected), atol=1e-9)


@dataclass(frozen=True)
class Subject:
    """A backend, the reference with its conventions, its device and its tolerances.

    Gradients are relative to an attribute's largest, and a fraction `share` of them must be within the bound.
    """

    backend: Rasterizer
    judge: Reference
    device: str = "cpu"
    image: float = 1e-5
    gradient: float = 1e-5
    share: float = 1.0
    flip: float = 0.02
    clamp_moves: bool = True
    """Whether gradients reach positions through the clamp of the field of view."""


def clamped(g: Tensor, c: Cameras) -> Tensor:
    """Mask [B,N] of Gaussians whose point of linearization is clamped in some view.

    diff-gaussian-rasterization's backward pass treats x of that point as constant although it depends on depth.
    """
    point = torch.einsum("bvij,bnj->bvni", c.world_to_camera()[..., :3, :3].double(), g[..., CHANNELS["position"]])
    point = point + c.world_to_camera()[:, :, None, :3, 3].double()
    field = torch.tensor([c.width, c.height]) / (2 * c.focal)
    aside = (point[..., :2].abs() > 1.3 * field * point[..., 2:]).any(dim=-1)
    return (aside & (point[..., 2] > 0)).any(dim=1)


SIZES = [
    pytest.param(2, 2, 32, 32, marks=pytest.mark.slow),
    pytest.param(2, 3, 19, 41, marks=pytest.mark.slow),
    pytest.param(1, 1, 50, 7),
]
"""Objects, views, height and width."""
SUBJECTS = [
    pytest.param(Subject(Cpu(), Reference()), id="cpu"),
    pytest.param(Subject(Cpu(**ORIGINAL), Reference(**ORIGINAL)), id="cpu-original"),
    pytest.param(Subject(Reference(precision="float32"), Reference()), id="torch"),
    pytest.param(Subject(Reference(precision="float32", **ORIGINAL), Reference(**ORIGINAL)), id="torch-original"),
    pytest.param(Subject(Gsplat(), Reference(), "cuda", 5e-4, 2e-3, 0.99, 0.05), id="gsplat", marks=pytest.mark.gpu),
    pytest.param(
        Subject(
            DiffGaussian(),
            Reference(**DiffGaussian().conventions().model_dump()),
            "cuda",
            2e-3,
            1e-2,
            0.99,
            0.05,
            clamp_moves=False,
        ),
        id="diff_gaussian",
        marks=pytest.mark.gpu,
    ),
]


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("b", "v", "height", "width"), SIZES)
def test_backends_are_the_reference(
    subject: Subject, kind: str, b: int, v: int, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small images, too, by the kernel for large ones.
    monkeypatch.setattr(_pixels, "FEW", 0)
    g, c = gaussians(kind, b, 150, seed=2), cameras(b, v, height, width)
    on_device, cameras_on_device = g.float().to(subject.device), c.to(subject.device)
    try:
        actual = flat(subject.backend.render(on_device, cameras_on_device)).double().cpu()
    except UserError as error:
        if "needs the package" not in str(error) and "built from source" not in str(error):
            raise
        pytest.skip(str(error))
    value = flat(subject.judge.render(g, c))
    # Float32 loses digits of thin ellipses, most for long quaternions, and of Gaussians behind an alpha near 1. A pixel
    # may flip where rounding moves alpha or transmittance across its threshold: these pixels are few, their errors
    # small, and the gradients exclude them.
    looser = {"needles": 30, "opaque": 3}.get(kind, 1)
    error = (value - actual).abs()
    steady = (error < looser * subject.image * value.abs().clamp(min=1)).all(dim=2, keepdim=True)
    assert steady.double().mean() > 0.99
    assert error.max() < subject.flip
    weight = torch.rand(value.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * steady
    expected = gradient(subject.judge, g, c, weight)
    slope = gradient(subject.backend, on_device, cameras_on_device, weight).cpu()
    for name, channel in CHANNELS.items():
        off = (expected - slope)[..., channel].abs() / expected[..., channel].abs().max().clamp(min=1e-12)
        if name == "position" and not subject.clamp_moves:
            off = off[~clamped(g, c)]
        assert torch.quantile(off.flatten(), subject.share) <= looser * subject.gradient, name


@pytest.mark.parametrize("backend", [Reference, Cpu])
def test_three_sigma_cuts_whole_tiles(backend: type[Reference] | type[Cpu]) -> None:
    # Standard deviation 6.6 pixels around row 45: alpha reaches 1/255 at 22 rows; in 3DGS's coordinates the square
    # spans rows 24.5 to 64.5, which ends in the tile before row 64, because its end rounds down.
    g = torch.zeros(1, 1, 14, dtype=torch.float64)
    g[..., CHANNELS["opacity"]], g[..., CHANNELS["rotation"].start], g[..., CHANNELS["scale"]] = 0.99, 1, 0.1
    c = Cameras(torch.from_numpy(orbit_c2w(0, 0, 1.5))[None, None], FOV, 90, 32)
    whole, cut = backend().render(g, c).alpha[0, 0, 0], backend(footprint="three_sigma").render(g, c).alpha[0, 0, 0]
    assert (whole > 0).any(dim=1).nonzero().flatten().tolist() == list(range(23, 67))
    assert torch.equal(cut[:64], whole[:64])
    assert not cut[64:].any()


def test_a_longer_quaternion_scales_only_where_it_is_not_normalized() -> None:
    c = cameras(1, 1, 16, 16)
    for backend in (Reference, Cpu):
        g = gaussians("random", 1, 30)
        longer = g.clone()
        longer[..., CHANNELS["rotation"]] *= 1.5
        torch.testing.assert_close(flat(backend().render(longer, c)), flat(backend().render(g, c)), atol=1e-6, rtol=0)
        raw = backend(normalize_rotation=False)
        assert (flat(raw.render(longer, c)) - flat(raw.render(g, c))).abs().max() > 1e-2


def test_the_gradient_at_the_alpha_cap_is_none_or_that_without_a_cap() -> None:
    g, c = gaussians("opaque", 1, 1, seed=3), cameras(1, 1, 2, 2)
    g[..., CHANNELS["position"]], g[..., CHANNELS["scale"]] = 0, 2
    weight = torch.ones(1, 1, 5, 2, 2)
    # Images are linear in the only Gaussian's alpha, which does not reach the cap here.
    free = gradient(Reference(), g * torch.where(torch.arange(14) == CHANNELS["opacity"].start, 0.99, 1.0), c, weight)
    for backend in (Reference, Cpu):
        stopped = gradient(backend(alpha_cap=0.5), g, c, weight)
        assert not stopped[..., CHANNELS["opacity"]].any()
        assert not stopped[..., CHANNELS["scale"]].any()
        passed = gradient(backend(alpha_cap=0.5, cap_gradient="pass"), g, c, weight)
        torch.testing.assert_close(passed[..., CHANNELS["opacity"]], free[..., CHANNELS["opacity"]], rtol=1e-5, atol=0)
        scale = passed[..., CHANNELS["scale"]] * 0.99
        torch.testing.assert_close(scale, free[..., CHANNELS["scale"]], rtol=1e-4, atol=1e-6)


def test_near_plane_and_alpha_cap_are_options() -> None:
    g, c = gaussians("opaque", 1, 80), cameras(1, 1, 24, 24)
    for backend in (Reference, Cpu):
        usual = backend().render(g, c).alpha
        assert not torch.equal(backend(near=1.5).render(g, c).alpha, usual)
        assert backend(alpha_cap=0.3).render(g[:, :1], c).alpha.max() <= 0.3 + 1e-6
    chosen = {"near": 1.4, "alpha_cap": 0.6}
    actual, expected = flat(Cpu(**chosen).render(g, c)), flat(Reference(**chosen).render(g, c))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", CONVENTIONS)
def test_reference_gradients_by_finite_differences(options: dict[str, Any]) -> None:
    g, c = gaussians("random", 1, 3, seed=4), cameras(1, 1, 6, 18)
    g[..., CHANNELS["scale"]] = torch.tensor([0.3, 0.2, 0.25], dtype=torch.float64)
    g[..., CHANNELS["opacity"]] = 0.6
    judge = Reference(**options)
    weight = torch.rand(1, 1, 5, 6, 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def total(x: Tensor) -> Tensor:
        return (flat(judge.render(x, c)) * weight).sum()

    leaf = g.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(total(leaf), leaf)
    for index in np.ndindex(3, 14):
        step = torch.zeros_like(g)
        step[0][index] = 1e-6
        difference = (total(g + step) - total(g - step)) / 2e-6
        assert float(difference) == pytest.approx(float(slope[0][index]), rel=1e-5, abs=1e-6), index


def test_matrices_of_diff_gaussian_project_points_as_the_cameras_do() -> None:
    c = cameras(2, 2, 24, 40)
    row_view, row_clip, positions = matrices(c)
    point = torch.tensor([0.11, -0.2, 0.07, 1.0])
    for i, j in np.ndindex(2, 2):
        camera = c.world_to_camera()[i, j].float() @ point
        torch.testing.assert_close(point @ row_view[i, j], camera)
        clip = point @ row_clip[i, j]
        assert clip[3] == pytest.approx(float(camera[2]), rel=1e-6)
        # In the extension the first pixel's center has coordinate 0, here its corner.
        actual = ((clip[:2] / clip[3] + 1) * torch.tensor([40.0, 24.0]) - 1) / 2 + 0.5
        expected = c.intrinsics()[i, j].float() @ (camera[:3] / camera[2])
        torch.testing.assert_close(actual, expected[:2], atol=1e-4, rtol=0)
        torch.testing.assert_close(row_view[i, j].inverse().T[:3, 3], positions[i, j], atol=1e-5, rtol=0)


def test_every_backend_states_its_conventions() -> None:
    assert DiffGaussian().conventions() == Conventions(**ORIGINAL)
    assert Gsplat(near=0.3).conventions() == Conventions(near=0.3)
    assert Cpu(**ORIGINAL).conventions() == Reference(**ORIGINAL).conventions() == Conventions(**ORIGINAL)
    assert Auto().conventions() == Conventions()


def test_non_finite_gaussians_become_transparent_and_get_no_gradient() -> None:
    g = gaussians("nan", 1, 9).requires_grad_(True)
    safe, _ = finite(g, dim=2)
    assert safe.isfinite().all()
    good = g.isfinite().all(dim=2)
    assert torch.equal(safe[good], g[good])
    assert not safe[~good][:, CHANNELS["opacity"]].any()
    (safe * torch.rand_like(safe)).sum().backward()
    assert g.grad is not None
    assert g.grad.isfinite().all()
    assert not g.grad[~good].any()


@pytest.mark.parametrize("backend", [Reference, Cpu])
@pytest.mark.parametrize(
    ("gaussians", "poses"),
    [((5, 14), (1, 1, 4, 4)), ((1, 5, 13), (1, 1, 4, 4)), ((2, 5, 14), (1, 1, 4, 4)), ((1, 5, 14), (4, 4)),
     ((1, 5, 14), (1, 1, 3, 4))],
)  # fmt: skip
def test_other_shapes_are_refused_before_kernels_read_them(
    backend: type[Reference] | type[Cpu], gaussians: tuple[int, ...], poses: tuple[int, ...]
) -> None:
    cameras = Cameras(torch.zeros(poses), 50.0, 8, 8)
    with pytest.raises(ValueError, match=r"Gaussians \[B,N,14\] and poses \[B,V,4,4\] of the same B are needed"):
        backend().render(torch.zeros(gaussians), cameras)
