"""Depth and normals against geometry computed in float64, and triangles of polygons."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raster import DISTANCE, FOV_DEG, camera, in_software, rasterizer

from z1g.meshes.raster.draw import Rasterizer
from z1g.meshes.raster.polygons import triangulated
from z1g.meshes.raster.scene import Material, MeshError, Part, Texture, normalized

N = 64


@pytest.fixture(scope="module")
def gl() -> Rasterizer:
    return rasterizer(N)


def geometry(gl: Rasterizer, part: Part, azimuth_deg: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    with gl.load([part]) as drawing:
        depth, normals = drawing.geometry(camera(azimuth_deg), FOV_DEG)
    return depth.astype(float), normals.astype(float)


def rays() -> np.ndarray:
    """Directions [H,W,3] of camera 0 with a planar length of 1, in the world."""
    tangent = np.tan(np.radians(FOV_DEG) / 2) * ((np.arange(N) + 0.5) / N * 2 - 1)
    x, y = np.meshgrid(tangent, -tangent)
    return np.stack([x, y, -np.ones_like(x)], axis=-1)


def sphere(radius: float, n: int = 128) -> Part:
    across, down = np.meshgrid(np.arange(n + 1) / n * 2 * np.pi, np.arange(n // 2 + 1) / n * 2 * np.pi)
    points = np.stack([np.sin(down) * np.sin(across), np.cos(down), np.sin(down) * np.cos(across)], -1).reshape(-1, 3)
    index = np.arange(len(points)).reshape(across.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    triangles = np.stack([a, b, c, a, c, d], axis=-1).reshape(-1, 3)
    return Part(radius * points, triangles, points)


def test_depth_of_a_tilted_plane(gl: Rasterizer) -> None:
    positions = np.array([[-0.4, 0.4, -0.2], [0.4, 0.4, 0.0], [0.4, -0.4, 0.1], [-0.4, -0.4, -0.1]])
    depth, normals = geometry(gl, Part(positions, np.array([[0, 3, 2], [0, 2, 1]])))
    normal = np.cross(positions[3] - positions[0], positions[2] - positions[0])
    normal /= np.linalg.norm(normal)
    eye = np.array([0, 0, DISTANCE])
    expected = ((positions[0] - eye) @ normal) / (rays() @ normal)
    seen = depth > 0
    assert seen.mean() > 0.1
    # An H200 is within 7.3e-6.
    np.testing.assert_allclose(depth[seen], expected[seen], rtol=2e-6 if in_software(gl.renderer) else 1e-5)
    np.testing.assert_allclose(normals[seen], np.broadcast_to(normal, normals.shape)[seen], atol=1e-3)
    assert (normals[~seen] == 0).all()


@pytest.mark.parametrize("inside_out", [False, True])
def test_depth_and_normals_of_a_sphere(gl: Rasterizer, inside_out: bool) -> None:
    radius, part = 0.4, sphere(0.4)
    if inside_out:
        # Faces and normals point inwards: what is seen still faces the camera.
        part = Part(part.positions, part.triangles[:, ::-1], -part.normals)
    depth, normals = geometry(gl, part)
    directions = rays()
    a, b = (directions**2).sum(-1), -2 * directions[..., 2] * -DISTANCE
    inside = b**2 - 4 * a * (DISTANCE**2 - radius**2)
    nearest = (-b - np.sqrt(np.maximum(inside, 0))) / (2 * a)
    # Away from the silhouette, where the tessellation decides.
    clear = inside > 0.1 * inside.max()
    np.testing.assert_allclose(depth[clear], nearest[clear], atol=1e-3)
    points = np.array([0, 0, DISTANCE]) + nearest[..., None] * directions
    np.testing.assert_allclose(normals[clear], points[clear] / radius, atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(normals[depth > 0], axis=-1), 1, atol=2e-3)
    assert ((normals * directions).sum(-1)[depth > 0] < 1e-2).all()


def test_mostly_transparent_surfaces_have_no_depth(gl: Rasterizer) -> None:
    positions = np.array([[-0.3, -0.3, 0.2], [0.3, -0.3, 0.2], [0.0, 0.3, 0.2]])
    for alpha, depth in ((0.4, 0.0), (0.6, DISTANCE - 0.2)):
        part = Part(positions, np.array([[0, 1, 2]]), material=Material((1, 1, 1, alpha), alpha_mode="blend"))
        assert geometry(gl, part)[0][N // 2, N // 2] == pytest.approx(depth)


def test_normals_without_a_direction_are_those_of_the_faces() -> None:
    ball = sphere(2.0, 32)
    broken = ball.normals.copy()
    broken[40], broken[41], broken[42] = 0, np.nan, np.inf
    (part,), _ = normalized([Part(ball.positions, ball.triangles, broken * 3)], "y")
    np.testing.assert_allclose(np.linalg.norm(part.normals, axis=1), 1)
    np.testing.assert_allclose(part.normals, ball.normals, atol=0.05)


def test_texture_coordinates_that_are_not_numbers_are_an_error_where_they_count() -> None:
    ball = sphere(1.0, 16)
    uv = np.zeros((len(ball.positions), 2))
    uv[5] = np.nan
    textured = Material(texture=Texture(np.zeros((1, 1, 4), np.uint8)))
    with pytest.raises(MeshError, match="texture coordinates that are not finite"):
        normalized([Part(ball.positions, ball.triangles, None, uv, None, textured)], "y")
    normalized([Part(ball.positions, ball.triangles, None, uv)], "y")


# Polygons


def shoelace(flat: np.ndarray) -> float:
    x, y = flat.T
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


@given(st.lists(st.floats(0.1, 1.0), min_size=4, max_size=12), st.integers(0, 50), st.booleans())
def test_triangles_of_a_polygon_cover_it_once(radii: list[float], seed: int, backwards: bool) -> None:
    """Star-shaped polygons, mostly concave, in any plane: areas add up and all triangles face the same way."""
    k = len(radii)
    angles = 2 * np.pi * (np.arange(k) + 0.5) / k
    flat = np.array(radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    if backwards:
        flat = flat[::-1]
    plane, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    points = flat @ plane[:2] + plane[2]
    triangles, owner = triangulated(points, np.arange(k), np.array([k]))
    assert len(triangles) == k - 2
    assert (owner == 0).all()
    a, b, c = (points[triangles[:, i]] for i in range(3))
    along = 0.5 * np.cross(b - a, c - a) @ np.cross(plane[0], plane[1])
    assert along.sum() == pytest.approx(shoelace(flat))
    assert np.abs(along).sum() == pytest.approx(abs(shoelace(flat)), rel=1e-6)


def test_polygons_of_several_sizes_keep_their_order_and_corners() -> None:
    flat = np.array([[0, 0], [2, 0], [2, 2], [0, 2], [1, 0.5]])
    points = np.column_stack([flat, np.zeros(5)])
    corners = np.array([0, 1, 4, 0, 1, 0, 1, 2, 3, 0, 4, 1, 2, 3])  # a triangle, a line, a square, an arrow
    triangles, owner = triangulated(points, corners, np.array([3, 2, 4, 5]))
    assert owner.tolist() == [0, 2, 2, 3, 3, 3]
    areas = [0.5 * np.cross(b - a, c - a)[2] for a, b, c in points[corners[triangles]]]
    assert [sum(area for area, o in zip(areas, owner, strict=True) if o == polygon) for polygon in (0, 2, 3)] == (
        pytest.approx([0.5, 4.0, 3.5])
    )
    assert min(areas) > 0
