"""Initialization from silhouettes: the hull of known shapes, an oracle in plain loops, and unused views."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.builders import BALL_RADIUS, ball
from torch import Tensor

from z1g.data.scenes import Scene, as_scene
from z1g.fitting._hull import hull_depth
from z1g.fitting.optimize import Fit
from z1g.fitting.options import FitOptions
from z1g.fitting.random_ball import RandomBallStart
from z1g.fitting.visual_hull import VisualHullStart
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, pixel_rays
from z1g.render.auto import Auto

CAMERA = CameraOptions(train_views=12, validation_views=1, test_views=2)
VIEWS = [*INPUT_VIEWS, *CAMERA.train_ids]
SIZE = 24


@pytest.fixture(scope="module")
def scene() -> Scene:
    return replace(as_scene(ball("globe", CAMERA, 64), CAMERA.radius), depth=None)


def with_alpha(scene: Scene, views: list[int], value: int) -> Scene:
    rgba = scene.rgba.copy()
    rgba[views, ..., 3] = value
    return replace(scene, rgba=rgba)


def test_the_hull_of_a_ball_is_tight(scene: Scene) -> None:
    depth = hull_depth(scene, VIEWS, SIZE, 0.55, 64, 0.5)
    truth = ball("globe", CAMERA, SIZE).depth
    assert truth is not None
    both = (depth > 0).numpy() & (truth > 0)
    assert both.sum() > 0.9 * (truth > 0).sum()
    # A hull contains its object with a margin that depends on the views. One pixel is 0.03 at this distance.
    nearer = truth[both] - depth.numpy()[both]
    assert nearer.min() > -0.03
    assert np.median(nearer) < 0.02
    assert nearer.max() < BALL_RADIUS / 2


def brute_force(scene: Scene, views: list[int], size: int, radius: float, samples: int) -> np.ndarray:
    """Loops over rays, samples and views in float64, with nearest-pixel lookup instead of bilinear interpolation."""
    side = scene.rgba.shape[1]
    focal = 0.5 * side / math.tan(math.radians(scene.fov_y_deg) / 2)
    small = 0.5 * size / math.tan(math.radians(scene.fov_y_deg) / 2)
    w2c = np.linalg.inv(scene.c2w.double().numpy())
    result = np.zeros((6, size, size))
    for i, view in enumerate(INPUT_VIEWS):
        pose = scene.c2w[view].double().numpy()
        for row in range(size):
            for column in range(size):
                ray = pose[:3, :3] @ [(column + 0.5 - size / 2) / small, (row + 0.5 - size / 2) / small, 1.0]
                for depth in np.linspace(CAMERA.radius - radius, CAMERA.radius + radius, samples):
                    point = pose[:3, 3] + depth * ray
                    seen = []
                    for other in views:
                        x, y, z = w2c[other][:3, :3] @ point + w2c[other][:3, 3]
                        u, v = math.floor(focal * x / z + side / 2), math.floor(focal * y / z + side / 2)
                        if 0 <= u < side and 0 <= v < side:
                            seen.append(scene.rgba[other, v, u, 3] >= 128)
                    if all(seen):
                        result[i, row, column] = depth
                        break
    return result


def test_plain_loops_have_the_same_surface(scene: Scene) -> None:
    views, size, samples = VIEWS[:9], 7, 48
    expected = brute_force(scene, views, size, 0.55, samples)
    actual = hull_depth(scene, views, size, 0.55, samples, 0.5).numpy()
    agree = (actual > 0) == (expected > 0)
    assert agree.mean() > 0.95, "rays that graze the outline may differ"
    both = (actual > 0) & (expected > 0)
    step = 1.1 / (samples - 1)
    # Bisection moves back from the oracle's sample by at most one step; pixel lookup adds to the difference.
    difference = expected[both] - actual[both]
    assert difference.min() > -step
    assert np.quantile(difference, 0.9) < 2 * step


def test_only_the_given_views_count(scene: Scene) -> None:
    others = [v for v in range(CAMERA.n_views) if v not in VIEWS]
    start = VisualHullStart()
    clean, poisoned = (start.splats(s, VIEWS, SIZE) for s in (scene, with_alpha(scene, others, 0)))
    assert torch.equal(clean, poisoned)


def test_an_empty_view_makes_the_hull_empty(scene: Scene) -> None:
    splats = VisualHullStart().splats(with_alpha(scene, [VIEWS[-1]], 0), VIEWS, SIZE)
    assert splats.isfinite().all()
    assert splats[:, 3].max() < 1 / 255


def boxes(scene: Scene, resolution: int, solids: list[tuple[list[float], list[float]]]) -> tuple[Scene, Tensor]:
    """The scene with a union of boxes [(low, high)] instead of its object, and planar depth of the input views."""
    origins, directions = (x[0].double() for x in pixel_rays(scene.cameras(range(len(scene.c2w)), resolution)))
    depth = torch.full_like(origins[:, 0], torch.inf)
    for low, high in solids:
        ends = [(torch.tensor(end)[:, None, None] - origins) / directions for end in (low, high)]
        entry, leave = torch.minimum(*ends).amax(dim=1), torch.maximum(*ends).amin(dim=1)
        depth = torch.where(entry < leave, torch.minimum(depth, entry), depth)
    rgba = torch.zeros(*depth.shape, 4, dtype=torch.uint8)
    rgba[..., 3] = 255 * depth.isfinite()
    return replace(scene, rgba=rgba.numpy()), depth[list(INPUT_VIEWS)]


def test_the_hull_of_a_cube_is_tight(scene: Scene) -> None:
    cube, _ = boxes(scene, 96, [([-0.3] * 3, [0.3] * 3)])
    truth = boxes(scene, SIZE, [([-0.3] * 3, [0.3] * 3)])[1]
    depth = hull_depth(cube, VIEWS, SIZE, 0.55, 64, 0.5)
    both = (depth > 0) & truth.isfinite()
    assert both.sum() > 0.95 * truth.isfinite().sum()
    nearer = (truth - depth)[both]
    # A pixel is 0.014 wide, and on a slanted face its depth range is larger.
    assert nearer.quantile(0.02) > -0.03
    assert nearer.median() < 0.03


def test_concavities_are_filled(scene: Scene) -> None:
    full = [([-0.3] * 3, [0.3] * 3)]
    # Open toward view 1, with walls of thickness 0.1: every ray through the opening hits a wall, so silhouettes agree.
    cup = [([-0.3] * 3, [0.3, 0.3, -0.2])]
    for axis in (0, 1):
        for low, high in ((-0.3, -0.2), (0.2, 0.3)):
            cup.append(([-0.3] * 3, [0.3] * 3))
            cup[-1][0][axis], cup[-1][1][axis] = low, high
    hollow, filled = (hull_depth(boxes(scene, 96, solids)[0], VIEWS, SIZE, 0.55, 64, 0.5) for solids in (cup, full))
    torch.testing.assert_close(hollow, filled)
    truth, middle = boxes(scene, SIZE, cup)[1], slice(SIZE // 2 - 2, SIZE // 2 + 2)
    assert (truth - hollow)[0, middle, middle].min() > 0.4


def test_the_hull_ignores_points_behind_cameras() -> None:
    near = CameraOptions(train_views=4, validation_views=1, test_views=1, radius=0.61, fov_y_deg=100)
    scene = as_scene(ball("globe", near, 64), near.radius)
    depth = hull_depth(scene, INPUT_VIEWS, SIZE, 1.0, 64, 0.5)
    assert (depth >= 0).all()
    assert (depth[0, SIZE // 2, SIZE // 2] - (near.radius - BALL_RADIUS)).abs() < 0.05


def test_images_without_background_exclude_nothing(scene: Scene) -> None:
    assert (hull_depth(with_alpha(scene, VIEWS, 255), VIEWS, 64, 0.55, 16, 0.9) > 0).all()


def test_more_views_never_grow_the_hull(scene: Scene) -> None:
    few, many = (hull_depth(scene, VIEWS[:n], SIZE, 0.55, 64, 0.5) for n in (6, 18))
    assert ((few > 0) | (many == 0)).all()
    both = (few > 0) & (many > 0)
    assert (many[both] >= few[both] - 1e-4).all()


def test_the_hull_start_is_far_better_than_a_random_one(scene: Scene) -> None:
    def psnr(start: VisualHullStart | RandomBallStart) -> float:
        options = FitOptions(start=start, steps=4, views_per_step=3)
        return Fit(options, SIZE, Auto(), CAMERA).run([scene])[0].psnr

    assert psnr(VisualHullStart()) > psnr(RandomBallStart()) + 3


def test_an_object_with_an_empty_hull_is_fitted_badly_without_an_error(scene: Scene) -> None:
    nothing = with_alpha(scene, [VIEWS[-1]], 0)
    options = FitOptions(start=VisualHullStart(), steps=2, views_per_step=2)
    fitted = Fit(options, SIZE, Auto(), CAMERA).run([nothing])[0]
    assert 0 < fitted.psnr < 22
    assert fitted.splats.isfinite().all()
