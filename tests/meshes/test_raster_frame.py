"""The rectangle of an image that is drawn, and programs for each alpha mode, against drawing everything."""

from dataclasses import replace

import numpy as np
import pytest
from support.raster import FOV_DEG, camera, drawn, rasterizer, square

from z1g.meshes.raster import draw, shaders
from z1g.meshes.raster.draw import Rasterizer
from z1g.meshes.raster.scene import Material, Part, Texture, normalized
from z1g.meshes.raster.views import around, covered

N = 96
AZIMUTHS = (0.0, 40.0, 131.0, 260.0)


def cloud(kind: str) -> np.ndarray:
    generator = np.random.default_rng(3)
    points = generator.normal(size=(4000, 3))
    if kind == "ball":
        return np.asarray(0.3 * points / np.linalg.norm(points, axis=1, keepdims=True))
    if kind == "line":
        return np.linspace(-0.4, 0.4, 50)[:, None] * [[0.3, 1.0, -0.5]]
    if kind == "sheet":
        return np.column_stack([generator.uniform(-0.3, 0.3, (500, 2)), np.full(500, 0.1)])
    if kind == "point":
        return np.full((1, 3), 0.2)
    return points * [0.05, 0.1, 0.15]


@pytest.mark.parametrize("kind", ["ball", "line", "sheet", "point", "blob"])
def test_the_rectangle_covers_every_vertex(kind: str) -> None:
    positions = cloud(kind)
    hull = around(positions)
    low, high = positions.min(axis=0), positions.max(axis=0)
    np.testing.assert_allclose((hull.min(axis=0), hull.max(axis=0)), (low, high), atol=1e-8)
    for azimuth in AZIMUTHS:
        c2w = camera(azimuth)
        box = covered(hull, c2w, FOV_DEG, N)
        assert box is not None
        left, bottom, width, height = box
        # A pinhole camera, with rows from the top, in homogeneous coordinates.
        focal = N / 2 / np.tan(np.radians(FOV_DEG) / 2)
        intrinsics = np.array([[focal, 0, N / 2], [0, focal, N / 2], [0, 0, 1]])
        world = np.column_stack([positions, np.ones(len(positions))])
        u, v, w = intrinsics @ (np.linalg.inv(c2w) @ world.T)[:3]
        assert left <= (u / w).min()
        assert (u / w).max() <= left + width
        assert N - bottom - height <= (v / w).min()
        assert (v / w).max() <= N - bottom


def test_round_objects_have_smaller_rectangles_than_their_boxes() -> None:
    positions = cloud("ball")
    corners = np.array([[x, y, z] for x in (-0.3, 0.3) for y in (-0.3, 0.3) for z in (-0.3, 0.3)])
    for azimuth in AZIMUTHS:
        close, loose = (covered(points, camera(azimuth), FOV_DEG, N) for points in (around(positions), corners))
        assert close is not None
        assert loose is not None
        assert close[2] * close[3] < 0.85 * loose[2] * loose[3]


def part(mode: str) -> Part:
    image = np.random.default_rng(5).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    return square(0.05, 0.35, Material((1, 0.9, 0.8, 0.9), Texture(image), mode, 0.4))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def gl() -> Rasterizer:
    return rasterizer(N)


@pytest.mark.parametrize("mode", ["opaque", "mask", "blend"])
def test_nothing_is_outside_of_the_rectangle(mode: str, gl: Rasterizer, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [part(mode), square(-0.2, 0.2)]
    images = [drawn(gl, parts, azimuth) for azimuth in AZIMUTHS]
    monkeypatch.setattr(draw, "covered", lambda *_: (0, 0, N, N))
    for azimuth, image in zip(AZIMUTHS, images, strict=True):
        np.testing.assert_array_equal(image, drawn(gl, parts, azimuth))
    assert all(image[..., 3].any() for image in images)


def test_alpha_modes_have_the_alpha_that_gltf_gives_them(gl: Rasterizer) -> None:
    """glTF 2.0, section 3.9.4, at a pixel of one color."""
    texture = Texture(np.full((4, 4, 4), (200, 100, 50, 102), np.uint8))
    alphas = {}
    for mode, cutoff in (("opaque", 0.5), ("mask", 0.3), ("mask", 0.5), ("blend", 0.5)):
        material = Material((1.0, 1.0, 1.0, 1.0), texture, mode, cutoff)  # type: ignore[arg-type]
        alphas[mode, cutoff] = int(drawn(gl, [square(0.0, 0.3, material)])[N // 2, N // 2, 3])
    assert alphas == {("opaque", 0.5): 255, ("mask", 0.3): 255, ("mask", 0.5): 0, ("blend", 0.5): 102}


@pytest.mark.parametrize("lit", [False, True])
def test_programs_without_light_or_alpha_have_no_code_for_it(lit: bool) -> None:
    """Software rasterizers run both sides of a branch, and test depth late in programs that discard."""
    for mode in ("opaque", "mask", "blend"):
        source = shaders.color_fragment(mode, lit)  # type: ignore[arg-type]
        assert ("#define LIT" in source) == lit
        assert [name for name in ("OPAQUE", "MASK", "BLEND") if f"#define {name}\n" in source] == [mode.upper()]
        assert source.startswith("#version 330\n")


def test_vertices_without_triangles_may_be_anything(gl: Rasterizer) -> None:
    plain = square(0.0)
    loose = replace(plain, positions=np.concatenate([plain.positions, [[np.nan, 9.0, -np.inf]]]), uv=None)
    both = [normalized([other, square(0.2)], "y")[0] for other in (plain, loose)]
    np.testing.assert_array_equal(drawn(gl, both[0]), drawn(gl, both[1]))
