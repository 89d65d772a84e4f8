"""Meshes of Gaussians: accuracy on a known shape, closedness, colors, and import into Blender."""

import contextlib
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from support.builders import BALL_RADIUS
from support.paths import ROOT
from torch.nn import functional

from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.gaussians import files as splat_files
from z1g.geometry.camera import Cameras, orbit_c2w
from z1g.render.cpu import Cpu
from z1g.surface import refinement
from z1g.surface.build import MeshOptions, TexturedMesh, build
from z1g.surface.cleaning import areas, clean, largest_pieces, volumes
from z1g.surface.fusion import Triangles
from z1g.surface.refinement import Painter, Refinement, adjacent_faces, clip_positions, face_normals, refine
from z1g.surface.texture import texels, unwrap
from z1g.surface.views import Frame, around

BLENDER = ROOT / ".venv-blender/bin/python"
SMALL = MeshOptions(views=16, view_size=96, resolution=56, faces=1500, texture=128)
VOXEL = 2 * BALL_RADIUS / 56


def ball(n: int = 3000, at: tuple[float, float, float] = (0, 0, 0), radius: float = BALL_RADIUS) -> torch.Tensor:
    """Flat discs on a ball, red where x > 0, green where y > 0, blue where z > 0."""
    i = torch.arange(n) + 0.5
    y, angle = 1 - 2 * i / n, 2.399963 * i
    normal = torch.stack([(1 - y * y).sqrt() * angle.cos(), y, (1 - y * y).sqrt() * angle.sin()], dim=1)
    x = torch.zeros(n, 14)
    x[:, :3] = radius * normal + torch.tensor(at)
    x[:, 3], x[:, 4:7] = 0.9, radius * torch.tensor([0.025, 0.025, 0.003])
    x[:, 8:11] = functional.normalize(
        normal + torch.tensor([1e-4, 0, 1.0]), dim=1
    )  # half a turn rotates z to the normal
    x[:, 11:14] = (normal > 0).float()
    return x


@pytest.fixture(scope="module")
def mesh() -> TexturedMesh:
    return build(ball(), Cpu(), SMALL)


def test_a_ball_is_a_ball(mesh: TexturedMesh) -> None:
    distance = np.linalg.norm(mesh.points, axis=1)
    assert 0 < distance.mean() - BALL_RADIUS < 2 * VOXEL  # views with occluded voxels move the surface outward
    assert distance.std() < 0.3 * VOXEL
    assert len(mesh.faces) <= 1500
    welded = trimesh.Trimesh(mesh.points, mesh.faces, process=True, merge_tex=True, merge_norm=True)
    edges = np.sort(np.concatenate([welded.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]), axis=1)
    _, faces_of_edge = np.unique(edges, axis=0, return_counts=True)
    assert (faces_of_edge % 2 == 0).all()  # closed; simplification may join two surfaces at an edge
    assert welded.volume == pytest.approx(4 / 3 * np.pi * BALL_RADIUS**3, rel=0.2)  # positive: faces point outward
    assert ((mesh.normals * mesh.points).sum(axis=1) > 0.9 * distance).mean() > 0.98


def test_the_texture_has_the_colors_of_the_gaussians(mesh: TexturedMesh, tmp_path: Path) -> None:
    """Reads the file with trimesh, which follows glTF's convention for v."""
    mesh.save(tmp_path / "a.glb")
    loaded = trimesh.load(tmp_path / "a.glb", force="mesh")
    assert loaded.visual.uv.min() >= 0
    assert loaded.visual.uv.max() <= 1
    colors = np.asarray(loaded.visual.to_color().vertex_colors)[:, :3]
    points = np.asarray(loaded.vertices)
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(mesh.points, axis=0), atol=1e-6)  # y-up, unchanged
    clear = (np.abs(points) > 0.25 * BALL_RADIUS).all(axis=1)
    assert clear.sum() > 50
    assert ((colors[clear] > 127) == (points[clear] > 0)).all(axis=1).mean() > 0.97


def test_meshes_are_equivariant_to_scale_and_translation(mesh: TexturedMesh) -> None:
    moved = build(ball(at=(30, -20, 10), radius=7.0), Cpu(), SMALL)
    distance = np.linalg.norm(moved.points - [30, -20, 10], axis=1)
    assert distance.mean() == pytest.approx(7.0 / BALL_RADIUS * np.linalg.norm(mesh.points, axis=1).mean(), rel=0.01)


def test_a_thin_rod_is_kept() -> None:
    """A rod on a ball, two voxels thick: averaging over noisy silhouettes would cut it off."""
    rod = ball(600)
    y = torch.linspace(0.3, 0.9, 600)
    angle = 2.399963 * torch.arange(600)
    rod[:, :3] = torch.stack([0.02 * angle.cos(), y, 0.02 * angle.sin()], dim=1)
    rod[:, 4:7] = 0.01
    actual = build(torch.cat([ball(), rod]), Cpu(), MeshOptions(**{**vars(SMALL), "view_size": 128}))
    assert actual.points[:, 1].max() > 0.85


def test_gaussians_without_a_surface_are_errors() -> None:
    faint = ball(100)
    faint[:, 3] = 0.05
    with pytest.raises(UserError, match="that is not an object"):
        build(faint, Cpu(), SMALL)
    with pytest.raises(UserError, match="all Gaussians have the same position"):
        build(ball(100, radius=0.0), Cpu(), SMALL)


@pytest.mark.parametrize("far", [1e25, 3e38])
def test_a_gaussian_whose_squared_distance_float32_cannot_hold(far: float) -> None:
    """The ball is a point beside it."""
    stray = ball(100)
    stray[7, 0] = far
    frame = Frame.around(stray)
    assert frame.scale * far == pytest.approx(1, abs=1e-5)
    assert frame.enter(stray).isfinite().all()
    with contextlib.suppress(UserError):
        assert np.isfinite(build(stray, Cpu(), SMALL).points).all()


# Cleaning


def as_triangles(mesh: trimesh.Trimesh) -> Triangles:
    return Triangles(np.array(mesh.vertices), np.array(mesh.faces, np.int64))


def test_small_pieces_and_cavities_are_removed() -> None:
    body, crumb = trimesh.creation.icosphere(3), trimesh.creation.icosphere(1, 0.05)
    crumb.apply_translation([3, 0, 0])
    second, cavity = trimesh.creation.box([1, 1, 1]), trimesh.creation.icosphere(2, 0.5)
    second.apply_translation([0, 4, 0])
    cavity.invert()
    whole = as_triangles(trimesh.util.concatenate([body, crumb, second, cavity]))
    kept = largest_pieces(whole)
    assert len(kept.faces) == len(body.faces) + len(second.faces)
    assert volumes(kept).sum() == pytest.approx(body.volume + second.volume)
    assert areas(kept).sum() == pytest.approx(body.area + second.area)


def test_simplification_keeps_the_shape_within_the_budget() -> None:
    fine = clean(as_triangles(trimesh.creation.icosphere(5)), 500)
    assert len(fine.faces) <= 500
    assert volumes(fine).sum() == pytest.approx(4 / 3 * np.pi, rel=0.05)


def test_texels_are_on_the_surface() -> None:
    flat = unwrap(as_triangles(trimesh.creation.box([1, 1, 1])), 64)
    covered, position, normal = texels(flat, 64)
    assert covered.mean() > 0.3
    np.testing.assert_allclose(np.abs(position[covered]).max(axis=1), 0.5, atol=1e-6)
    # The position of a texel matches its coordinates: the texel of a corner is near the corner.
    for point, (u, v) in zip(flat.points, flat.uv, strict=True):
        row, column = min(int((1 - v) * 64), 63), min(int(u * 64), 63)
        near = position[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].reshape(-1, 3)
        assert np.abs(near - point).max(axis=1).min() < 0.12
    assert np.isfinite(normal).all()


# The command


@pytest.mark.slow
def test_the_command_writes_a_file_that_blender_opens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splat_files.write(tmp_path / "a.ply", ball(800))
    words = ["--faces", "600", "--texture", "64", "--resolution", "24", "--views", "12"]
    assert main(["mesh", str(tmp_path / "a.ply"), *words]) == 0
    assert "a.glb" in capsys.readouterr().out
    if not BLENDER.exists():
        pytest.skip("needs .venv-blender: make blender")
    script = (
        "import bpy, sys; bpy.ops.wm.read_factory_settings(use_empty=True);"
        "bpy.ops.import_scene.gltf(filepath=sys.argv[1]);"
        "(mesh,) = [o for o in bpy.data.objects if o.type == 'MESH']; nodes = mesh.active_material.node_tree.nodes;"
        "print('FOUND', len(mesh.data.polygons), [n.image.size[0] for n in nodes if n.type == 'TEX_IMAGE'],"
        "max(v.co.z for v in mesh.data.vertices))"
    )
    command = [str(BLENDER), "-c", script, str(tmp_path / "a.glb")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    _, faces, texture, height = line.split()
    assert 100 < int(faces) <= 600
    assert texture == "[64]"
    assert float(height) == pytest.approx(BALL_RADIUS, rel=0.1)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--out", "a.obj"], "written as .glb"), (["--refine"], "nvdiffrast"), ([], "cannot be read")],
)
def test_mistakes_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if words == ["--refine"]:
        splat_files.write(tmp_path / "a.ply", ball(100))
        monkeypatch.setattr(refinement.importlib.util, "find_spec", lambda name: None if name == "nvdiffrast" else True)
    assert main(["mesh", str(tmp_path / "a.ply"), *words]) == 2
    assert message in capsys.readouterr().err


def test_gaussians_that_are_not_finite_are_errors() -> None:
    x = ball(100)
    x[7, 3] = float("nan")
    with pytest.raises(UserError, match=r"1 of \d+ Gaussians contain numbers that are not finite \(opacity\)"):
        build(x, Cpu(), SMALL)


# Refinement, with a replacement of nvdiffrast in plain torch


class PlainRaster(types.ModuleType):
    """nvdiffrast's four operations as defined in its manual, in plain torch: slow, without gradients of edges."""

    RasterizeCudaContext = object

    @staticmethod
    def rasterize(
        context: Any, pos: torch.Tensor, tri: torch.Tensor, resolution: list[int]
    ) -> tuple[torch.Tensor, None]:
        """[B,H,W,4]: u, v, z/w, face + 1; row 0 at y = -1 of the clip space."""
        height, width = resolution
        y = (torch.arange(height) + 0.5) * 2 / height - 1
        x = (torch.arange(width) + 0.5) * 2 / width - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None, :, :, None]
        corner = pos[:, tri.long()]
        place = (corner[..., :2] / corner[..., 3:])[:, None, None]
        a, b, c = place.unbind(-2)

        def cross(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
            return p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]

        area = cross(b - a, c - a)
        bary = torch.stack([cross(b - grid, c - grid), cross(c - grid, a - grid), cross(a - grid, b - grid)], dim=-1)
        bary = bary / area[..., None]
        depth = (bary * (corner[..., 2] / corner[..., 3])[:, None, None]).sum(dim=-1)
        hit = (bary >= 0).all(dim=-1) & (area.abs() > 1e-12)
        nearest = torch.where(hit, depth, torch.inf).min(dim=-1)
        index = nearest.indices[..., None]
        chosen = bary.gather(-2, index[..., None].expand(*index.shape, 3))[..., 0, :]
        w = torch.stack([of_view[seen] for of_view, seen in zip(corner[..., 3], nearest.indices, strict=True)])
        chosen = functional.normalize(chosen / w, p=1, dim=-1)  # along the face, not along the image
        finite = torch.isfinite(nearest.values)
        number = torch.where(finite, nearest.indices + 1, 0).float()
        return torch.cat([chosen[..., :2], nearest.values[..., None], number[..., None]], dim=-1), None

    @staticmethod
    def interpolate(attr: torch.Tensor, rast: torch.Tensor, tri: torch.Tensor) -> tuple[torch.Tensor, None]:
        face = (rast[..., 3].long() - 1).clamp(min=0)
        corners = torch.stack([values[tri.long()[index]] for values, index in zip(attr, face, strict=True)])
        weights = torch.stack([rast[..., 0], rast[..., 1], 1 - rast[..., 0] - rast[..., 1]], dim=-1)
        return (weights[..., None] * corners).sum(dim=-2), None

    @staticmethod
    def texture(tex: torch.Tensor, uv: torch.Tensor, filter_mode: str, boundary_mode: str) -> torch.Tensor:
        assert (filter_mode, boundary_mode) == ("linear", "clamp")
        image = tex.permute(0, 3, 1, 2).expand(len(uv), -1, -1, -1)
        actual = functional.grid_sample(image, 2 * uv - 1, align_corners=False, padding_mode="border")
        return actual.permute(0, 2, 3, 1)

    @staticmethod
    def antialias(color: torch.Tensor, rast: torch.Tensor, pos: torch.Tensor, tri: torch.Tensor) -> torch.Tensor:
        return color


@pytest.fixture
def plain_raster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", PlainRaster("nvdiffrast.torch"))


def test_clip_coordinates_match_the_cameras_pixels() -> None:
    cameras = Cameras(torch.from_numpy(orbit_c2w(20, 70, 1.5)).float()[None, None], 49.1, 60, 60)
    points = torch.tensor([[0.1, 0.2, -0.3], [0.0, 0, 0]])
    x, y, z, w = clip_positions(points, cameras)[0].unbind(-1)
    local = points @ cameras.world_to_camera()[0, 0, :3, :3].T + cameras.world_to_camera()[0, 0, :3, 3]
    pixel = local[:, :2] / local[:, 2:] * cameras.focal + 30
    torch.testing.assert_close(torch.stack([x / w, y / w], dim=1), pixel / 30 - 1)
    assert ((z / w).abs() < 1).all()


@pytest.mark.slow
def test_a_textured_mesh_looks_like_the_gaussians(mesh: TexturedMesh, plain_raster: None) -> None:
    cameras = around(4, 32)
    uv = torch.from_numpy(mesh.uv * [1, -1] + [0, 1]).float()
    draw = Painter(torch.from_numpy(mesh.faces), uv)
    rgb, alpha = draw(torch.from_numpy(mesh.points).float(), torch.from_numpy(mesh.texture).float() / 255, cameras)
    seen = Cpu().render(ball()[None], cameras)
    assert float((alpha - seen.alpha[0]).abs().mean()) < 0.06
    assert float((rgb - seen.rgb[0]).abs().mean()) < 0.06


@pytest.mark.slow
def test_refinement_improves_the_mesh(plain_raster: None) -> None:
    """Starts from a gray texture and points moved inward; recovers the colors."""
    gaussians = ball()
    frame = Frame.around(gaussians)
    sphere = as_triangles(trimesh.creation.icosphere(2, 0.5))
    flat = unwrap(sphere, 32)
    gray = np.full((32, 32, 3), 128, np.uint8)
    options = Refinement(16, 6, views=6, view_size=20, views_per_step=2, texture_rate=0.1, point_rate=1e-3)
    fine, texture = refine(flat, gray, Cpu(), frame.enter(gaussians), options)
    assert fine.points.shape == flat.points.shape
    covered, position, _ = texels(flat, 32)
    clear = covered & (np.abs(position) > 0.2).all(axis=2)
    right = (texture[clear] > 127) == (position[clear] > 0)
    assert right.mean() > 0.9
    for seam in range(fine.origin.max() + 1):  # split points still coincide
        assert np.ptp(fine.points[fine.origin == seam], axis=0).max() < 1e-9


def test_neighboring_faces() -> None:
    box = as_triangles(trimesh.creation.box([1, 1, 1]))
    pairs = adjacent_faces(box.faces)
    assert len(pairs) == 18  # every edge of a closed mesh is shared by two of its 12 faces
    normals = face_normals(torch.from_numpy(box.points), torch.from_numpy(box.faces))
    cosines = (normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(dim=1).round().abs()
    assert int(cosines.sum()) == 6
