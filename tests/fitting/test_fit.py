"""The fit: initialization, parametrizations, stopping, batches, losses, and invalid input."""

import io
import json
import math
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.builders import OBJECTS, ball, fill, plan, stage_path
from support.paths import ROOT
from torch import Tensor

from z1g.bench.fit import original_options
from z1g.cli.main import main
from z1g.config.catalog import load_ablation
from z1g.core.errors import UserError
from z1g.core.files import read_jsonl
from z1g.data.scenes import Scene, as_scene, chunk_file
from z1g.data.shards import ShardReader
from z1g.fitting._discs import disc_rotation, surface_normals
from z1g.fitting._raw import RawSplats
from z1g.fitting.depth import DepthStart
from z1g.fitting.optimize import Fit, Fitted, Views, clip_each
from z1g.fitting.options import AttributeRates, FitOptions
from z1g.fitting.positions import Positions
from z1g.fitting.positions.depth_offset import DepthOffset
from z1g.fitting.positions.free import FreePositions
from z1g.fitting.queue import FitQueue
from z1g.fitting.random_ball import RandomBallStart
from z1g.gaussians.channels import CHANNELS, split, to_gaussians
from z1g.gaussians.rotations import rotation_matrices
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, Cameras, pixel_rays
from z1g.losses import Comparison, InputMaps
from z1g.losses.lpips import StLpipsLoss
from z1g.losses.splatter import BackgroundLoss, RayLoss, Roughness, SmoothLoss
from z1g.plan.folder import StageFolder
from z1g.render.auto import Auto
from z1g.render.base import RenderOutput
from z1g.stages import fit
from z1g.training.schedules.cosine import Constant
from z1g.training.schedules.plateau import Plateau

CAMERA = CameraOptions(train_views=6, validation_views=2, test_views=2)
SIZE = 24
POOL = [*INPUT_VIEWS, *CAMERA.train_ids]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return as_scene(ball("globe", CAMERA, 48), CAMERA.radius)


@pytest.fixture(scope="module")
def scenes(scene: Scene) -> list[Scene]:
    return [scene, as_scene(ball("second", CAMERA, 48), CAMERA.radius), as_scene(ball("third", CAMERA, 48), 1.5)]


def job(**options: Any) -> Fit:
    values = {"steps": 20, "views_per_step": 3, "evaluate_every": 5, **options}
    return Fit(FitOptions(**values), SIZE, Auto(), CAMERA)


def fitted(scene: Scene, **options: Any) -> Fitted:
    return job(**options).run([scene])[0]


def views(scene: Scene) -> Views:
    return Views.load([scene], torch.device("cpu"))


# Views


def test_the_original_draws_inputs_and_any_others() -> None:
    every = Fit(FitOptions(loss_views="all", steps=300, views_per_step=9), SIZE, Auto(), CAMERA)
    drawn = every._drawn(np.random.default_rng(0))
    assert drawn.shape == (300, 9)
    assert (drawn[:, :6] == torch.tensor([*INPUT_VIEWS])).all()
    assert all(len(set(row)) == 3 for row in drawn[:, 6:].tolist())
    assert set(drawn[:, 6:].flatten().tolist()) == set(range(1 + 6 + 6 + 2 + 2))
    few = Fit(FitOptions(loss_views="all", steps=2, views_per_step=4), SIZE, Auto(), CAMERA)
    assert few._drawn(np.random.default_rng(0)).tolist() == [[1, 2, 3, 4]] * 2


def test_other_fits_never_see_views_of_validation_or_test() -> None:
    drawn = job(steps=300)._drawn(np.random.default_rng(0))
    assert set(drawn.flatten().tolist()) == set(POOL)


def test_uniform_draws_are_those_of_before() -> None:
    """Literals of the version before `draws`: fits of earlier settings, such as the original's, stay as they are."""

    def drawn(**options: Any) -> list[list[int]]:
        fit = Fit(FitOptions(steps=3, draws="uniform", **options), SIZE, Auto(), CAMERA)
        return fit._drawn(np.random.default_rng(0)).tolist()

    every = [[1, 2, 3, 4, 5, 6, 11, 3, 13], [1, 2, 3, 4, 5, 6, 3, 4, 15], [1, 2, 3, 4, 5, 6, 14, 12, 1]]
    assert drawn(loss_views="all", views_per_step=9) == every
    assert drawn(views_per_step=4) == [[12, 4, 3, 2], [9, 2, 10, 4], [9, 12, 2, 8]]


@pytest.mark.parametrize(("views", "steps_of_a_pass"), [(1, 12), (4, 3), (5, 2), (12, 1), (99, 1)])
def test_a_pass_has_no_view_twice(views: int, steps_of_a_pass: int) -> None:
    drawn = job(steps=40, views_per_step=views, draws="passes")._drawn(np.random.default_rng(0))
    assert drawn.shape == (40, min(views, 12))
    passes = [drawn[i : i + steps_of_a_pass].flatten().tolist() for i in range(0, 40, steps_of_a_pass)]
    assert all(len(set(seen)) == len(seen) for seen in passes)
    assert len({tuple(seen) for seen in passes}) > 1, "each pass has an order of its own"
    assert set(drawn.flatten().tolist()) == set(POOL), "a view that is left over is drawn in another pass"


def test_passes_leave_the_views_of_every_step_as_they_are() -> None:
    every = Fit(FitOptions(loss_views="all", steps=8, views_per_step=8, draws="passes"), SIZE, Auto(), CAMERA)
    drawn = every._drawn(np.random.default_rng(0))
    assert drawn[:, :6].tolist() == [[1, 2, 3, 4, 5, 6]] * 8
    assert len(set(drawn[:, 6:].flatten().tolist())) == 16, "two others of 17 views a step"
    few = Fit(FitOptions(loss_views="all", steps=2, views_per_step=4, draws="passes"), SIZE, Auto(), CAMERA)
    assert few._drawn(np.random.default_rng(0)).tolist() == [[1, 2, 3, 4]] * 2


# Starts


def test_depth_start_has_the_right_colors_in_other_views(scene: Scene) -> None:
    fit, start = job(), fitted(scene, steps=0)
    assert start.steps == 0
    ids = list(CAMERA.validation_ids)
    image = fit.rasterizer.render(to_gaussians(start.splats[None]), scene.cameras(ids)).over(1.0)[0]
    rgb, alpha = scene.images(ids)
    # Away from the silhouette's edge, beyond which coarse splats extend.
    inside = -torch.nn.functional.max_pool2d(-alpha, 9, stride=1, padding=4) == 1
    error = (image - rgb).abs().mean(dim=1, keepdim=True)[inside]
    assert len(error) > 300
    assert error.mean() < 0.03


def test_a_sunken_start_covers_the_silhouette(scene: Scene) -> None:
    ids = list(CAMERA.test_ids)
    truth = scene.images(ids)[1].sum()
    area = {}
    for sink in (0.0, 1.0):
        splats = DepthStart(sink=sink, opacity=0.95).splats(scene, POOL, SIZE)
        area[sink] = float(Auto().render(to_gaussians(splats[None]), scene.cameras(ids)).alpha.sum() / truth)
    assert abs(area[1.0] - 1) < 0.5 * abs(area[0.0] - 1)


def test_discs_of_a_sphere_are_tangent_to_it(scene: Scene) -> None:
    splats = DepthStart(sink=0.0).splats(scene, POOL, SIZE)
    parts = split(to_gaussians(splats[None]), dim=2)
    visible = parts["opacity"][0, :, 0] > 0.5
    axes = rotation_matrices(parts["rotation"].transpose(1, 2))[0].permute(2, 0, 1)[visible]
    outward = torch.nn.functional.normalize(parts["position"][0, visible], dim=1)
    across = (axes[:, :, 2] * outward).sum(dim=1).abs()
    assert across.median() > 0.98, "the thin axis is the normal"
    assert torch.equal(parts["scale"][0, :, 0], parts["scale"][0, :, 1])
    torch.testing.assert_close(parts["scale"][0, :, 2], 0.1 * parts["scale"][0, :, 0])


def test_normals_of_a_plane_and_their_rotations() -> None:
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64), dim=0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 7).double(), torch.linspace(-1, 1, 7).double(), indexing="ij")
    plane = torch.stack([x, y, -(normal[0] * x + normal[1] * y) / normal[2]])[None]
    covered = torch.ones(1, 1, 7, 7, dtype=torch.bool)
    covered[..., 3, 3] = False
    ahead = torch.tensor([[0.1, 0.2, -1.0]], dtype=torch.float64)
    ahead = torch.nn.functional.normalize(ahead, dim=1)
    actual = surface_normals(plane, covered, ahead[:, :, None, None].expand(1, 3, 7, 7))
    # The normal of a background pixel points to the camera.
    torch.testing.assert_close(actual[0, :, 3, 3], -ahead[0])
    actual[0, :, 3, 3] = normal
    torch.testing.assert_close(actual, normal[None, :, None, None].expand_as(actual))
    quaternion = disc_rotation(actual, ahead)
    axis = rotation_matrices(quaternion.flatten(2))[0, :, 2]
    torch.testing.assert_close(axis.abs(), normal.abs()[:, None].expand_as(axis))
    torch.testing.assert_close(quaternion.norm(dim=1), torch.ones(1, 7, 7, dtype=torch.float64))


def test_random_ball_start(scene: Scene) -> None:
    start = RandomBallStart(radius=0.3, opacity=0.2)
    splats = start.splats(scene, POOL, SIZE)
    assert splats.shape == (6, 14, SIZE, SIZE)
    distance = splats[:, :3].norm(dim=1)
    assert distance.max() <= 0.3
    # Uniform in the ball: half of the points are beyond radius·0.5^(1/3).
    assert (distance > 0.3 * 0.5 ** (1 / 3)).float().mean().item() == pytest.approx(0.5, abs=0.03)
    torch.testing.assert_close(start.splats(scene, POOL, SIZE), splats, atol=0, rtol=0)
    assert fitted(scene, start=start, steps=20).psnr > fitted(scene, start=start, steps=0).psnr


def test_depth_start_needs_depth(scene: Scene) -> None:
    with pytest.raises(UserError, match=r"globe has no depth.*visual_hull"):
        DepthStart().splats(replace(scene, depth=None), POOL, SIZE)


# Optimization


def test_fit_improves_and_keeps_the_best(scene: Scene) -> None:
    start, end = fitted(scene, steps=0), fitted(scene, steps=20)
    assert end.psnr > start.psnr + 0.2
    assert end.ssim > start.ssim
    again = job().psnr(to_gaussians(end.splats[None]), views(scene), CAMERA.validation_ids)
    assert float(again) == pytest.approx(end.validation_psnr, abs=1e-3)
    assert end.seconds > 0


def test_a_fit_that_only_gets_worse_returns_its_start(scene: Scene) -> None:
    wild: dict[str, Any] = {
        "rates": AttributeRates(position=1, opacity=9, scale=9, rotation=9, rgb=9), "schedule": Constant(),
        "evaluate_every": 2, "patience": 2,
    }  # fmt: skip
    start, end = fitted(scene, steps=0), fitted(scene, **wild)
    assert end.steps == 4, "stops after two looks without progress"
    assert end.psnr == pytest.approx(start.psnr, abs=1e-4)
    torch.testing.assert_close(end.splats, start.splats, atol=1e-4, rtol=1e-4)
    # The original neither requires a PSNR to stop nor restores the best state.
    assert fitted(scene, stop_above=90.0, **wild).steps == 20
    last = fitted(scene, keep="last", **wild)
    assert last.psnr < start.psnr - 1
    assert last.validation_psnr == pytest.approx(start.validation_psnr, abs=1e-4)


def test_fit_is_reproducible(scene: Scene) -> None:
    first, second, other = (fitted(scene, steps=6, seed=seed) for seed in (0, 0, 1))
    torch.testing.assert_close(first.splats, second.splats, atol=0, rtol=0)
    assert not torch.equal(first.splats, other.splats)


def test_objects_of_a_batch_are_fitted_independently(scenes: list[Scene]) -> None:
    # The second object stops early (its validation views are corrupted), so the batch shrinks during the fit.
    rgba = scenes[1].rgba.copy()
    rgba[list(CAMERA.validation_ids)] = 255
    mixed = [scenes[0], replace(scenes[1], rgba=rgba), scenes[2]]
    options: dict[str, Any] = {"steps": 12, "evaluate_every": 2, "patience": 1, "schedule": Constant()}
    together = job(**options).run(mixed)
    assert together[1].steps < min(together[0].steps, together[2].steps)
    for object_, result in zip(mixed, together, strict=True):
        alone = job(**options).run([object_])[0]
        assert (result.steps, result.splats.shape) == (alone.steps, alone.splats.shape)
        torch.testing.assert_close(result.splats, alone.splats, atol=2e-4, rtol=1e-3)
        assert result.psnr == pytest.approx(alone.psnr, abs=0.02)


def test_all_objects_are_rendered_in_one_call(scenes: list[Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    render = Auto.render

    def counted(self: Auto, gaussians: Tensor, cameras: Cameras) -> RenderOutput:
        calls.append((len(gaussians), cameras.c2w.shape[1]))
        return render(self, gaussians, cameras)

    monkeypatch.setattr(Auto, "render", counted)
    job(steps=2, evaluate_every=2).run(scenes)
    # Validation views before and after two steps of three views, then the test views.
    assert calls == [(3, 2), (3, 3), (3, 3), (3, 2), (3, 2)]


def test_psnr_by_hand(scene: Scene) -> None:
    empty = to_gaussians(DepthStart().splats(scene, POOL, SIZE)[None])
    empty[..., 3] = 0
    values = []
    for view in CAMERA.validation_ids:
        rgba = scene.rgba[view].astype(np.float64) / 255
        image = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
        values.append(-10 * math.log10(np.square(image - 1).mean()))
    assert float(job().psnr(empty, views(scene), CAMERA.validation_ids)) == pytest.approx(np.mean(values), abs=1e-3)


def test_the_fit_never_uses_test_views(scene: Scene) -> None:
    rgba = scene.rgba.copy()
    rgba[list(CAMERA.test_ids)] = 255
    poisoned = fitted(replace(scene, rgba=rgba), steps=4)
    clean = fitted(scene, steps=4)
    assert torch.equal(poisoned.splats, clean.splats)
    assert poisoned.psnr < clean.psnr


def test_the_unit_of_positions_is_a_pixel_of_the_splats(scene: Scene) -> None:
    """Adam's first step is the rate itself, along every axis that has a gradient."""
    # Two rays of the middle row, a pixel apart, at the depth of the object's center.
    _, directions = pixel_rays(scene.cameras([INPUT_VIEWS[0]], SIZE))
    apart = (directions[0, 0, :, 0, SIZE // 2] - directions[0, 0, :, 0, SIZE // 2 - 1]).norm() * CAMERA.radius
    moved = {}
    for unit in ("normalized", "pixel"):
        rates = AttributeRates(position=1e-3, position_unit=unit)
        start, end = (fitted(scene, steps=n, rates=rates, keep="last").splats[:, :3] for n in (0, 1))
        moved[unit] = float((end - start).abs().max())
    assert moved["normalized"] == pytest.approx(1e-3, rel=1e-3)
    assert moved["pixel"] == pytest.approx(1e-3 * float(apart), rel=1e-2)


def test_a_plateau_lowers_the_rate(scene: Scene) -> None:
    falling = fitted(scene, schedule=Plateau(patience=1, factor=0.01, min_lr=0), patience=99, evaluate_every=1)
    assert falling.steps == 20
    assert FitQueue(job(schedule=Plateau())).size == 1


def test_gradients_are_clipped_per_object() -> None:
    a, b = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 5, requires_grad=True)
    a.grad, b.grad = torch.ones(2, 3), torch.ones(2, 5)
    a.grad[1] *= 1e-3
    b.grad[1] *= 1e-3
    clip_each([a, b], 1.0)
    torch.testing.assert_close(a.grad[0], torch.full((3,), 8**-0.5))
    torch.testing.assert_close(a.grad[1], torch.full((3,), 1e-3))


# Parameters


def raw_splats(scene: Scene, positions: Positions, norm: str = "quaternion", drop: bool = True) -> RawSplats:
    images = DepthStart().splats(scene, POOL, SIZE)[None]
    return RawSplats.build(images, scene.cameras(list(INPUT_VIEWS), SIZE), positions, norm, drop_invisible=drop)


@pytest.mark.parametrize("positions", [FreePositions(), DepthOffset(), DepthOffset(lateral=False)])
@pytest.mark.parametrize("drop", [True, False])
def test_raw_splats_invert_their_activation(scene: Scene, positions: Positions, drop: bool) -> None:
    images = DepthStart(sink=0.0).splats(scene, POOL, SIZE)[None]
    raw = RawSplats.build(images, scene.cameras(list(INPUT_VIEWS), SIZE), positions, "quaternion", drop_invisible=drop)
    assert (raw.index.shape[1] < 6 * SIZE * SIZE) == drop
    torch.testing.assert_close(raw.images(raw.gaussians()).detach(), images, atol=2e-5, rtol=1e-4)


def test_dropped_splats_change_neither_image_nor_gradient(scene: Scene) -> None:
    cameras = scene.cameras(list(CAMERA.train_ids))
    results = []
    for drop in (True, False):
        raw = raw_splats(scene, FreePositions(), drop=drop)
        image = Auto().render(raw.gaussians(), cameras).over(0.3)
        image.square().sum().backward()
        gradient = {name: torch.zeros(1, 6 * SIZE * SIZE + 1, p.shape[2]) for name, p in raw.parameters.items()}
        for name, p in raw.parameters.items():
            assert p.grad is not None
            gradient[name].scatter_(1, raw.index[..., None].expand(-1, -1, p.shape[2]), p.grad)
        results.append((image.detach(), gradient))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-6, rtol=0)
    for name in CHANNELS:
        torch.testing.assert_close(results[0][1][name][:, :-1], results[1][1][name][:, :-1], atol=1e-4, rtol=1e-4)


def test_depth_offset_formula(scene: Scene) -> None:
    raw = raw_splats(scene, DepthOffset())
    with torch.no_grad():
        raw.parameters["position"].normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
        raw.parameters["position"][..., 0] += 1.4
    actual = raw.gaussians()[0, :, :3].detach().double().numpy()
    values = raw.parameters["position"][0].detach().double().numpy()
    for m in range(0, raw.index.shape[1], 97):
        view, pixel = divmod(int(raw.index[0, m]), SIZE * SIZE)
        c2w = scene.c2w[INPUT_VIEWS[view]].double().numpy()
        row, column = divmod(pixel, SIZE)
        focal = 0.5 * SIZE / math.tan(math.radians(scene.fov_y_deg) / 2)
        ray = np.array([(column + 0.5 - SIZE / 2) / focal, (row + 0.5 - SIZE / 2) / focal, 1.0])
        local = values[m, 0] * ray + values[m, 1:]
        np.testing.assert_allclose(actual[m], np.clip(c2w[:3, :3] @ local + c2w[:3, 3], -1, 1), atol=1e-5)


def test_without_lateral_offset_splats_stay_on_their_rays(scene: Scene) -> None:
    end = fitted(scene, positions=DepthOffset(lateral=False), steps=6)
    start = fitted(scene, positions=DepthOffset(lateral=False), steps=0)
    origins, directions = (x[0] for x in pixel_rays(scene.cameras(list(INPUT_VIEWS), SIZE)))
    offset = end.splats[:, :3] - origins
    sine = torch.cross(offset, directions, dim=1).norm(dim=1) / offset.norm(dim=1) / directions.norm(dim=1)
    assert sine.max() < 1e-5
    assert not torch.equal(end.splats, start.splats)


def test_the_originals_rotation_norm(scene: Scene) -> None:
    raw = raw_splats(scene, FreePositions(), norm="splats", drop=False)
    rotation = raw.gaussians()[0, :, CHANNELS["rotation"]].detach()
    parameter = raw.parameters["rotation"][0].detach().double().numpy()
    np.testing.assert_allclose(rotation, parameter / np.linalg.norm(parameter, axis=0, keepdims=True), rtol=1e-4)
    assert fitted(scene, rotation_norm="splats", steps=2).psnr > 0


# Losses that keep splatter images learnable


def splatter(scene: Scene, **changes: Tensor) -> Comparison:
    images = DepthStart(sink=0.0).splats(scene, POOL, SIZE)[None]
    for name, value in changes.items():
        images[:, :, CHANNELS[name]] = value
    alpha = scene.images(list(INPUT_VIEWS))[1][None]
    return Comparison(splats=images, inputs=InputMaps.build(scene.cameras(list(INPUT_VIEWS), SIZE), alpha))


def test_ray_loss_is_the_distance_from_the_ray_in_pixels(scene: Scene) -> None:
    pair = splatter(scene)
    assert float(RayLoss().compute(pair)) < 1e-6
    assert pair.splats is not None
    cameras = scene.cameras(list(INPUT_VIEWS), SIZE)
    depth = (cameras.world_to_camera()[0, :, 2, :3, None, None] * pair.splats[0, :, :3]).sum(1)
    depth = depth + cameras.world_to_camera()[0, :, 2, 3, None, None]
    # Two pixels along the camera's x axis; the distance from the ray is smaller by the ray's angle.
    moved = pair.splats[:, :, :3] + 2 * (depth / cameras.focal)[None, :, None] * cameras.c2w[:, :, :3, 0, None, None]
    actual = float(RayLoss().compute(splatter(scene, position=moved)))
    assert 3.7 < actual < 4.0


def test_background_loss_is_the_opacity_of_the_background(scene: Scene) -> None:
    assert float(BackgroundLoss().compute(splatter(scene))) == pytest.approx(1e-3)
    loud = splatter(scene, opacity=torch.tensor(0.5))
    assert float(BackgroundLoss().compute(loud)) == pytest.approx(0.5)


def test_smooth_loss_by_hand(scene: Scene) -> None:
    pair = splatter(scene)
    assert pair.splats is not None
    loss = SmoothLoss(weights=Roughness(opacity=2.0, scale=1.0, rotation=1.0, rgb=0.5, position=3.0))
    x = pair.splats[0].double().numpy()
    origins, directions = (r[0].double().numpy() for r in pixel_rays(scene.cameras(list(INPUT_VIEWS), SIZE)))
    total = 0.0
    for axis in (0, 1):
        sums, pairs = np.zeros(5), 0
        for view in range(6):
            for row in range(SIZE - (axis == 0)):
                for column in range(SIZE - (axis == 1)):
                    pixel = (view, slice(None), row, column)
                    neighbor = (view, slice(None), row + (axis == 0), column + (axis == 1))
                    a, b = x[pixel], x[neighbor]
                    if min(a[3], b[3]) <= 1 / 255:
                        continue
                    pairs += 1
                    depth = [
                        ((x[at][:3] - origins[at]) @ directions[at]) / (directions[at] @ directions[at])
                        for at in (pixel, neighbor)
                    ]
                    turn = b[7:11] * (-1 if a[7:11] @ b[7:11] < 0 else 1)
                    sums += [
                        abs(depth[0] - depth[1]), abs(a[3] - b[3]), abs(np.log(a[4:7]) - np.log(b[4:7])).mean(),
                        abs(a[7:11] - turn).mean(), abs(a[11:] - b[11:]).mean(),
                    ]  # fmt: skip
        total += sums @ [3.0, 2.0, 1.0, 1.0, 0.5] / pairs
    assert float(loss.compute(pair)) == pytest.approx(total / 2, rel=1e-4)


@pytest.mark.parametrize("loss", [RayLoss(weight=1e-2), BackgroundLoss(), SmoothLoss(weight=1e-2)])
def test_each_term_reduces_its_own_value(scene: Scene, loss: Any) -> None:
    start = RandomBallStart(opacity=0.3)
    renders = FitOptions().losses
    images = {}
    for name, losses in {"with": {**renders, "extra": loss}, "without": renders}.items():
        images[name] = fitted(scene, start=start, losses=losses, steps=10, keep="last").splats[None]
    alpha = scene.images(list(INPUT_VIEWS))[1][None]
    inputs = InputMaps.build(scene.cameras(list(INPUT_VIEWS), SIZE), alpha)
    term = {name: float(loss.compute(Comparison(splats=x, inputs=inputs))) for name, x in images.items()}
    assert term["with"] < term["without"]


def test_a_perceptual_term_contributes(scene: Scene) -> None:
    plain = fitted(scene, steps=2, keep="last")
    seen = fitted(
        scene, steps=2, keep="last",
        losses={**FitOptions().losses, "perceptual": StLpipsLoss(weight=0.1, resolution=64, views=1)},
    )  # fmt: skip
    assert seen.splats.isfinite().all()
    assert not torch.equal(seen.splats, plain.splats)


def test_terms_without_required_inputs_are_errors() -> None:
    with pytest.raises(ValueError, match="RayLoss"):
        RayLoss().compute(Comparison())


# Batches


class Crowded(Fit):
    """A fit on a GPU with memory for `capacity` objects."""

    device = torch.device("cuda")

    def __init__(self, capacity: int) -> None:
        self.options, self.capacity = FitOptions(batch_objects=8), capacity
        self.device = torch.device("cuda")
        self.tried: list[int] = []

    def run(self, scenes: Sequence[Scene]) -> list[Any]:
        self.tried.append(len(scenes))
        if len(scenes) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [scene.id for scene in scenes]


def test_out_of_memory_halves_the_batch_with_one_warning(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    many = [replace(scene, id=str(i)) for i in range(19)]
    crowded = Crowded(capacity=3)
    with caplog.at_level("WARNING"):
        actual = list(FitQueue(crowded).run(iter(many)))
    assert [name for _, name in actual] == [scene.id for scene in many]
    assert crowded.tried == [8, 4, *[2] * 9, 1]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "continuing with 2" in caplog.text
    with pytest.raises(UserError, match=r"views_per_step"):
        list(FitQueue(Crowded(capacity=0)).run(many))


@pytest.mark.gpu
def test_a_full_gpu_halves_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    """32 objects with 128-pixel splats need 5 GiB; the limit is 2 GiB."""
    scene = as_scene(ball("globe", CAMERA, 256), CAMERA.radius)
    many = [replace(scene, id=str(i)) for i in range(40)]
    fit = Fit(FitOptions(steps=10, evaluate_every=5, batch_objects=32), 128, Auto(), CAMERA)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2 * 2**30 / torch.cuda.get_device_properties(0).total_memory)
    try:
        with caplog.at_level("WARNING"):
            actual = list(FitQueue(fit).run(iter(many)))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [member.id for member, _ in actual] == [member.id for member in many]
    warnings = [record.getMessage() for record in caplog.records if "continuing with" in record.getMessage()]
    assert warnings
    assert len(set(warnings)) == len(warnings)
    alone = fit.run([many[-1]])[0]
    assert actual[-1][1].psnr == pytest.approx(alone.psnr, abs=0.1)


def test_only_images_of_one_size_share_a_batch(scene: Scene) -> None:
    small = as_scene(ball("small", CAMERA, 32), CAMERA.radius)
    crowd = Crowded(capacity=8)
    assert [name for _, name in FitQueue(crowd).run([scene, scene, small, scene])] == [
        "globe",
        "globe",
        "small",
        "globe",
    ]
    assert crowd.tried == [2, 1, 1]


# The stage


def damage(path: Path, name: str, change: Any) -> None:
    """Rewrite a shard with one member passed through `change`; None removes it."""
    with tarfile.open(path) as tar:
        members = [(m.name, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w") as tar:
        for member, content in members:
            new = change(content) if member == name else content
            if new is not None:
                info = tarfile.TarInfo(member)
                info.size = len(new)
                tar.addfile(info, io.BytesIO(new))


def small_png(_: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (5, 5)).save(buffer, "PNG")
    return buffer.getvalue()


def wrong_depth(_: bytes) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((6, 5, 5), np.float32))
    return buffer.getvalue()


def nan_pose(content: bytes) -> bytes:
    header = json.loads(content)
    header["c2w"][2][0][3] = math.nan
    return json.dumps(header).encode()


def fewer_views(content: bytes) -> bytes:
    header = json.loads(content)
    header["c2w"] = header["c2w"][:-1]
    return json.dumps(header).encode()


@pytest.mark.parametrize(
    ("member", "change", "reason"),
    [
        ("003.png", lambda _: None, "003.png is missing"),
        ("003.png", lambda content: content[: len(content) // 2], f"view 3 of {OBJECTS[1]} is not a complete image"),
        ("003.png", lambda _: b"", f"view 3 of {OBJECTS[1]} is not a complete image"),
        ("003.png", small_png, "different sizes"),
        ("depth.npy", wrong_depth, "has shape [6, 5, 5], but its images need [6, 16, 16]"),
        ("depth.npy", lambda content: content[:40], "cannot be read"),
        ("json", nan_pose, "not a finite 4x4 matrix"),
        ("json", lambda _: b"{", "cannot be read"),
        ("json", lambda _: b"{}", "cannot be read"),
        ("json", fewer_views, "13 views where the configuration has 14"),
    ],
)
def test_a_damaged_object_is_quarantined_with_the_reason(tmp_path: Path, member: str, change: Any, reason: str) -> None:
    planned = plan(tmp_path)
    fill(planned)
    shard = chunk_file(stage_path(planned, "ingest"), 0, "tar")
    damage(shard, f"{OBJECTS[1]}.{member}", change)
    shard.with_suffix(".jsonl").unlink()  # whose checksums would tell what was written from what was damaged since
    folder = StageFolder.open(stage_path(planned, "fit"))
    fit.run(folder, chunk=0, threads=1)
    rows = {row["id"]: row for row in read_jsonl(chunk_file(folder.path, 0, "jsonl"))}
    assert rows[OBJECTS[0]]["status"] == "ok"
    assert rows[OBJECTS[1]]["status"] == "quarantined"
    assert reason in rows[OBJECTS[1]]["reason"]
    assert sorted(load_file(chunk_file(folder.path, 0, "safetensors"))) == [OBJECTS[0]]


def test_the_error_of_a_truncated_shard_has_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "chunk-00000.tar").write_bytes(b"x" * 700)
    with pytest.raises(UserError, match=r"chunk-00000.tar is not a complete tar.*Delete it and make it again"):
        ShardReader(tmp_path / "chunk-00000.tar")


@pytest.mark.parametrize("below", ["mark", "drop"])
def test_a_bad_fit_is_marked_or_dropped(tmp_path: Path, below: str) -> None:
    planned = plan(tmp_path, fit={"min_psnr": 99.0, "below_minimum": below})
    fill(planned)
    folder = StageFolder.open(stage_path(planned, "fit"))
    fit.run(folder, chunk=0, threads=1)
    rows = read_jsonl(chunk_file(folder.path, 0, "jsonl"))
    assert [row["below_minimum"] for row in rows] == [True, True]
    kept = len(load_file(chunk_file(folder.path, 0, "safetensors")))
    assert (kept, rows[0]["status"]) == ((2, "ok") if below == "mark" else (0, "quarantined"))
    assert below == "mark" or "below fit.min_psnr 99" in rows[0]["reason"]


def test_the_contact_sheet_has_inputs_and_a_test_view_next_to_the_fit(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    fill(planned)
    folder = StageFolder.open(stage_path(planned, "fit"))
    fit.run(folder, chunk=0, threads=1)
    sheet = np.asarray(Image.open(chunk_file(folder.path, 0, "png")).convert("RGB"))
    assert sheet.shape == (2 * 16, 6 * 16, 3)
    # Ground truth on the left, fit on the right: similar, and not blank.
    left, right = sheet[:, : 3 * 16].astype(float), sheet[:, 3 * 16 :].astype(float)
    assert left.std() > 10
    assert abs(left - right).mean() < 0.5 * abs(left - 255).mean()


def test_an_empty_batch_gives_nothing() -> None:
    assert list(FitQueue(job()).run([])) == []


def test_cameras_of_the_inputs_are_those_of_the_rays(scene: Scene) -> None:
    raw = raw_splats(scene, FreePositions())
    inputs: Cameras = scene.cameras(list(INPUT_VIEWS), SIZE)
    view = int(raw.index[0, 0]) // (SIZE * SIZE)
    torch.testing.assert_close(raw.rays.axes[0, 0], inputs.c2w[0, view, :3, :3])
    torch.testing.assert_close(raw.rays.origins[0, 0], inputs.c2w[0, view, :3, 3])


# Benchmark


def test_the_benchmark_fits_like_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan(tmp_path)
    folder = str(stage_path(planned, "fit"))
    assert main(["bench", "fit", folder, "--json"]) == 2
    assert "holds no renders yet" in capsys.readouterr().err
    fill(planned)
    assert main(["bench", "fit", folder, "--objects", "3", "--steps", "1", "2", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["objects"], figures["splat_size"], figures["image_size"]) == (3, 8, 16)
    assert [row["steps"] for row in figures["runs"]] == [1, 2]
    assert all(row["objects_per_s"] > 0 and row["least_psnr"] <= row["psnr"] for row in figures["runs"])
    assert main(["bench", "fit", folder, "--objects", "1", "--steps", "1", "--original-way"]) == 2
    assert "diff" in capsys.readouterr().err


def test_the_originals_fit_is_that_of_original_yaml() -> None:
    written = load_ablation(ROOT / "ablations" / "optimized_splat.yaml", "original", ROOT / "configs").experiment.fit
    names = (
        "rotation_norm", "steps", "views_per_step", "draws", "rates", "betas", "weight_decay", "clip_norm", "keep",
        "schedule",
    )  # fmt: skip
    for name in names:
        assert getattr(original_options(), name) == getattr(written, name), name
    assert written.draws == "uniform"


def test_fits_of_an_earlier_data_set_are_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = plan(tmp_path, n_objects=3)
    fill(small)
    first = stage_path(small, "fit")
    for chunk in range(2):
        fit.run(StageFolder.open(first), chunk=chunk, threads=1)
    large = plan(tmp_path, n_objects=5, data={"chunk_size": 3})
    fill(large, skip=(OBJECTS[1],))
    fitted: list[str] = []
    whole = Fit.run
    monkeypatch.setattr(
        Fit, "run", lambda self, scenes, *more: fitted.extend(s.id for s in scenes) or whole(self, scenes, *more)
    )
    second = stage_path(large, "fit")
    for chunk in range(2):
        fit.run(StageFolder.open(second), chunk=chunk, threads=1)
    assert fitted == [OBJECTS[3], OBJECTS[4]]

    def results(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        splats: dict[str, torch.Tensor] = {}
        rows: dict[str, Any] = {}
        for chunk in range(2):
            splats |= load_file(chunk_file(folder, chunk, "safetensors"))
            rows |= {row["id"]: row for row in read_jsonl(chunk_file(folder, chunk, "jsonl"))}
        return splats, rows

    (old_splats, old_rows), (splats, rows) = results(first), results(second)
    assert list(rows) == [OBJECTS[0], OBJECTS[2], OBJECTS[3], OBJECTS[4]]  # objects rejected by ingest have no fit
    assert sorted(splats) == list(rows)
    for name in (OBJECTS[0], OBJECTS[2]):
        assert torch.equal(splats[name], old_splats[name])
        assert rows[name] == old_rows[name]
    assert Image.open(chunk_file(second, 0, "png")).size == (6 * 16, 2 * 16)
