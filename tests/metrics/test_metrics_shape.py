"""Metrics of geometry, against brute force, closed forms and small meshes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.builders import ball
from torch import Tensor

from z1g.data.manifest import ObjectEntry
from z1g.data.scenes import as_scene
from z1g.data.shards import RenderedObject
from z1g.geometry.camera import CameraOptions, orbit_c2w
from z1g.meshes.content import content_of
from z1g.meshes.limits import FileLimits
from z1g.meshes.store import Disk
from z1g.meshes.surface import surface_points
from z1g.metrics import DepthMaps, NotMeasurable, Shape
from z1g.metrics.depth import DepthError
from z1g.metrics.surface import Chamfer, FScore
from z1g.stages.measuring import Truth, azimuth_distances


def shape(points: Tensor, surface: Tensor, opacity: Tensor | None = None, maps: DepthMaps | None = None) -> Shape:
    def depth() -> DepthMaps:
        if maps is None:
            raise NotMeasurable("no depth")
        return maps

    return Shape(points, torch.ones(len(points)) if opacity is None else opacity, lambda n: surface[:n], depth)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), m=st.integers(1, 60), near=st.floats(0.01, 0.9))
@settings(max_examples=25, deadline=None)
def test_chamfer_and_f_score_equal_brute_force(seed: int, n: int, m: int, near: float) -> None:
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(n, 3)), draw.normal(size=(m, 3))
    gaps = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    to_surface, to_points = gaps.min(axis=1), gaps.min(axis=0)
    actual = shape(torch.from_numpy(a).float(), torch.from_numpy(b))
    assert Chamfer().compute(actual) == pytest.approx((to_surface.mean() + to_points.mean()) / 2, abs=1e-6)
    precision, recall = (to_surface < near).mean(), (to_points < near).mean()
    expected = 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
    assert FScore(threshold=near).compute(actual) == pytest.approx(expected, abs=1e-6)


def test_only_visible_splats_are_a_surface() -> None:
    surface = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)).double()
    far = torch.full((50, 3), 9.0)
    points, opacity = torch.cat([surface.float(), far]), torch.cat([torch.ones(200), torch.full((50,), 0.08)])
    actual = shape(points, surface, opacity)
    assert Chamfer().compute(actual) == pytest.approx(0, abs=1e-6)
    assert FScore().compute(actual) == 1
    assert Chamfer(min_opacity=0.05).compute(actual) > 1
    invisible = shape(far, surface, torch.zeros(50))
    assert (Chamfer().compute(invisible), FScore().compute(invisible)) == (1, 0)


def test_more_splats_than_points_are_thinned_the_same_each_time() -> None:
    draw = torch.Generator().manual_seed(0)
    actual = shape(torch.rand(5000, 3, generator=draw), torch.rand(1000, 3, generator=draw).double())
    values = {Chamfer(points=1000).compute(actual) for _ in range(2)}
    assert len(values) == 1
    assert values.pop() == pytest.approx(Chamfer(points=5000).compute(actual), abs=0.03)


def test_depth_error_is_the_offset_where_both_cover() -> None:
    true = torch.zeros(6, 4, 4)
    true[:, :2] = 1.5
    alpha = torch.zeros(6, 4, 4)
    alpha[:, 1:3] = 0.8
    maps = DepthMaps(0.8 * (true + 0.03), alpha, true)
    assert DepthError().compute(shape(torch.zeros(1, 3), torch.zeros(1, 3), maps=maps)) == pytest.approx(0.03, abs=1e-6)
    for empty in (DepthMaps(true, torch.zeros_like(alpha), true), DepthMaps(true, alpha, torch.zeros_like(true))):
        with pytest.raises(NotMeasurable, match="no pixel"):
            DepthError().compute(shape(torch.zeros(1, 3), torch.zeros(1, 3), maps=empty))


# The source mesh


def box() -> "trimesh.Trimesh":
    """A box that every change of axes alters, away from the origin."""
    mesh: trimesh.Trimesh = trimesh.creation.box(extents=(1.0, 2.0, 4.0))
    mesh.apply_translation((3.0, 5.0, -7.0))
    return mesh


def rendered(up_axis: str, points: NDArray[np.float64]) -> RenderedObject:
    """The record that ingest writes for a mesh with these vertices, computed independently."""
    upright = points if up_axis == "y" else np.stack([points[:, 0], points[:, 2], -points[:, 1]], axis=1)
    center = (upright.min(axis=0) + upright.max(axis=0)) / 2
    scale = 0.5 / np.linalg.norm(upright - center, axis=1).max()
    info = {"normalization": {"center": center.tolist(), "scale": scale, "up_axis": up_axis}}
    return RenderedObject("box", np.eye(4)[None], 49.1, np.zeros((1, 2, 2, 4), np.uint8), None, info)


def entry(path: Path) -> ObjectEntry:
    return ObjectEntry("box", str(path), content=content_of(Disk(path.parent), path.name).content)


@pytest.mark.parametrize(("ending", "up_axis"), [("obj", "y"), ("glb", "y"), ("ply", "z"), ("stl", "z")])
def test_points_lie_evenly_on_the_placed_mesh(ending: str, up_axis: str, tmp_path: Path) -> None:
    mesh, file = box(), tmp_path / f"box.{ending}"
    mesh.export(file)
    points = surface_points(rendered(up_axis, np.asarray(mesh.vertices)), entry(file), FileLimits(), 6000)
    half = np.array([0.5, 1.0, 2.0]) if up_axis == "y" else np.array([0.5, 2.0, 1.0])
    half *= 0.5 / np.linalg.norm(half)
    assert np.linalg.norm(points, axis=1).max() <= 0.5 + 1e-6
    reach = np.abs(points) / half
    np.testing.assert_allclose(reach.max(axis=1), 1, atol=1e-5)
    area = np.array([half[1] * half[2], half[0] * half[2], half[0] * half[1]])
    np.testing.assert_allclose(np.bincount(reach.argmax(axis=1)) / 6000, area / area.sum(), atol=0.02)
    again = surface_points(rendered(up_axis, np.asarray(mesh.vertices)), entry(file), FileLimits(), 6000)
    np.testing.assert_array_equal(points, again)


def test_polygons_and_backward_indices_of_an_obj_are_read(tmp_path: Path) -> None:
    file = tmp_path / "box.obj"
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    lines = [f"v {x} {y} {z}" for x, y, z in corners] + ["v 9 9 9"]  # the last one is in no face
    lines += ["f 1 2 4 3", "f 5 7 8 6", "f 1 5 6 2", "f 3 4 8 7", "f 1 3 7 5", "f -8 -4 -2 -6"]
    file.write_text("\n".join(lines))
    points = surface_points(rendered("y", np.array(corners, float)), entry(file), FileLimits(), 600)
    np.testing.assert_allclose(np.abs(points).max(axis=1), 0.5 / 3**0.5, atol=1e-6)


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    mesh, file = box(), tmp_path / "box.obj"
    mesh.export(file)
    item, listed = rendered("y", np.asarray(mesh.vertices)), entry(file)

    def refused(actual: RenderedObject, about: ObjectEntry, why: str) -> None:
        with pytest.raises(NotMeasurable, match=why):
            surface_points(actual, about, FileLimits(), 100)

    refused(RenderedObject("box", item.c2w, 49.1, item.rgba, None, {}), listed, "renders only")
    refused(item, ObjectEntry("box", "box.fbx"), r"only Blender reads \.fbx files")
    refused(item, ObjectEntry("box", str(tmp_path / "gone.obj")), "cannot be read")
    moved = {"normalization": {**item.info["normalization"], "up_axis": "z"}}
    refused(
        RenderedObject("box", item.c2w, 49.1, item.rgba, None, moved), listed, "is read differently without Blender"
    )
    file.write_text(file.read_text() + "\nv 0 0 0\n")
    refused(item, listed, "changed since")


@given(content=st.binary(max_size=300), ending=st.sampled_from(["obj", "glb", "ply", "stl"]))
@settings(max_examples=40, deadline=None)
def test_random_bytes_are_not_measurable(content: bytes, ending: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("any") / f"x.{ending}"
    file.write_bytes({"ply": b"ply\nformat ascii 1.0\n", "glb": b"glTF\x02\0\0\0"}.get(ending, b"") + content)
    with pytest.raises(NotMeasurable):
        surface_points(rendered("y", np.asarray(box().vertices)), ObjectEntry("x", str(file)), FileLimits(), 10)


def test_surface_and_depth_of_one_object_agree(tmp_path: Path) -> None:
    """A ball's unprojected depth is on the ball's mesh in the view-1 frame."""
    camera = CameraOptions(train_views=1, validation_views=1, test_views=2)
    mesh, file = trimesh.creation.icosphere(subdivisions=4, radius=2.0), tmp_path / "ball.obj"
    mesh.apply_translation((1.0, 2.0, 3.0))
    mesh.export(file)
    drawn = ball("ball", camera, 32)
    # The drawn ball has radius 0.35; ingest's would have 0.5.
    item = RenderedObject(
        "ball", drawn.c2w, drawn.fov_y_deg, drawn.rgba, drawn.depth, rendered("y", np.asarray(mesh.vertices)).info
    )
    scene = as_scene(item, camera.radius)

    class Store:
        def __getitem__(self, name: str) -> Any:
            return scene

        def rendered(self, name: str) -> RenderedObject:
            return item

    truth = Truth(Store(), entry(file), FileLimits())  # type: ignore[arg-type]
    surface = truth.surface(2000)
    np.testing.assert_allclose(surface.norm(dim=1).numpy(), 0.5, atol=5e-3)
    # Rotated with the cameras: view 1's pose gives the y-up world's pole.
    from z1g.geometry.camera import view_frame

    pole = view_frame(item.c2w, camera.radius)[:3, :3] @ np.array([0, 1.0, 0])
    world = surface_points(item, truth.entry, FileLimits(), 2000)
    np.testing.assert_allclose(surface.numpy() @ pole, world[:, 1], atol=1e-6)


@given(
    elevations=st.lists(st.floats(-80, 80), min_size=4, max_size=4),
    azimuths=st.lists(st.floats(-720, 720), min_size=4, max_size=4),
)
@settings(max_examples=30, deadline=None)
def test_azimuth_distance_is_the_shorter_arc(elevations: list[float], azimuths: list[float]) -> None:
    c2w = np.stack([orbit_c2w(e, a, 1.5) for e, a in zip(elevations, azimuths, strict=True)])
    item = RenderedObject("x", c2w, 49.1, np.zeros((4, 2, 2, 4), np.uint8), None, {})
    actual = azimuth_distances(item, [1, 2, 3])
    for value, azimuth in zip(actual, azimuths[1:], strict=True):
        turn = np.radians(azimuth - azimuths[0])
        assert value == pytest.approx(np.degrees(np.arccos(np.clip(np.cos(turn), -1, 1))), abs=2e-3)


def test_metrics_of_a_surface_share_its_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both use one nearest-neighbor search, which takes most of their time; other options need another search."""
    import scipy.spatial

    searches = []
    tree = scipy.spatial.cKDTree
    monkeypatch.setattr(scipy.spatial, "cKDTree", lambda points: searches.append(len(points)) or tree(points))
    points = torch.rand(300, 3, generator=torch.Generator().manual_seed(0))
    surface = points.flip(0) + 0.1
    measured = shape(points, surface)
    alone = Chamfer(points=200).compute(shape(points, surface))
    searches.clear()
    assert Chamfer(points=200).compute(measured) == alone
    FScore(points=200).compute(measured)
    assert len(searches) == 2
    FScore(points=100).compute(measured)
    assert len(searches) == 4
