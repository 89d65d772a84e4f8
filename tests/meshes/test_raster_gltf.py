"""glTF files written by hand, and damaged ones."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.raster import (
    CORNERS,
    FACES,
    FOV_DEG,
    UV,
    Gltf,
    camera,
    card,
    decoded,
    drawn,
    encoded,
    pixel,
    png,
    rasterizer,
)  # fmt: skip

from z1g.meshes.raster.draw import Rasterizer
from z1g.meshes.raster.gltf import Unsupported, read_gltf
from z1g.meshes.raster.scene import MeshError, normalized

N = 64
COLORS = np.array([[[230, 20, 20], [20, 200, 30]], [[30, 40, 220], [220, 210, 30]]], np.uint8)
"""Red, green; blue, yellow."""


@pytest.fixture(scope="module")
def gl() -> Rasterizer:
    return rasterizer(N)


def quadrants() -> np.ndarray:
    return np.kron(COLORS, np.ones((32, 32, 1), np.uint8))


def textured(**further) -> dict:
    return {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0, **further}}}


def triangle(**indices) -> Gltf:
    """A document with a primitive of five vertices of a fan around (0, 0, 0)."""
    gltf = Gltf()
    points = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.5], [-1, 1, 0]]
    gltf.mesh({"POSITION": gltf.accessor(points)}, **indices)
    return gltf


def triangles(path: Path) -> list[list[int]]:
    (part,) = read_gltf(path)
    return part.triangles.tolist()


def test_strips_fans_and_lists(tmp_path: Path) -> None:
    # Section 3.7.2.1: p(i) = {v(i), v(i + 1 + i % 2), v(i + 2 - i % 2)}; p(i) = {v(i + 1), v(i + 2), v(0)}.
    assert triangles(triangle(mode=5).save(tmp_path / "strip.glb")) == [[0, 1, 2], [2, 1, 3], [2, 3, 4]]
    fan = triangles(triangle(mode=6).save(tmp_path / "fan.glb"))
    assert [sorted(three) for three in fan] == [[0, 1, 2], [0, 2, 3], [0, 3, 4]]
    assert fan == [[0, 1, 2], [0, 2, 3], [0, 3, 4]]
    assert triangles(triangle(mode=4).save(tmp_path / "list.glb")) == [[0, 1, 2]]
    assert read_gltf(triangle(mode=1).save(tmp_path / "lines.glb")) == []


def test_sparse_accessors_and_normalized_integers(tmp_path: Path) -> None:
    gltf = Gltf()
    base = np.zeros((4, 3))
    base[:, :2] = CORNERS
    gltf.mesh({"POSITION": gltf.accessor(base), "COLOR_0": gltf.accessor([[255, 0, 51]] * 4, "uint8", normalized=True)})
    moved = np.array([[5.0, 6.0, 7.0], [8.0, 9.0, 10.0]], "f4")
    gltf.document["accessors"][0]["sparse"] = {
        "count": 2,
        "indices": {"bufferView": gltf.view(np.array([1, 3], "<u2").tobytes()), "componentType": 5123},
        "values": {"bufferView": gltf.view(moved.tobytes())},
    }
    gltf.document["meshes"][0]["primitives"][0]["mode"] = 6
    (part,) = read_gltf(gltf.save(tmp_path / "sparse.glb"))
    expected = base.copy()
    expected[[1, 3]] = moved
    np.testing.assert_array_equal(part.positions, expected)
    np.testing.assert_allclose(part.color, [[1, 0, 0.2, 1]] * 4)
    # Without a buffer view, all else is zero.
    del gltf.document["accessors"][0]["bufferView"]
    (part,) = read_gltf(gltf.save(tmp_path / "zeros.glb"))
    np.testing.assert_array_equal(part.positions[[0, 2]], 0)


def test_factor_texture_and_vertex_color_are_multiplied_in_linear_light(gl: Rasterizer, tmp_path: Path) -> None:
    material = textured()
    material["pbrMetallicRoughness"]["baseColorFactor"] = [0.5, 0.8, 1.0, 1.0]
    gltf = card(material, png(quadrants()))
    primitive = gltf.document["meshes"][0]["primitives"][0]
    primitive["attributes"]["COLOR_0"] = gltf.accessor([[0.9, 0.5, 0.7]] * 8)
    parts, _ = normalized(read_gltf(gltf.save(tmp_path / "card.glb")), "y")
    image = drawn(gl, parts)
    for row, column in np.ndindex(2, 2):
        x, y = 0.18 * (2 * column - 1), -0.18 * (2 * row - 1)
        expected = encoded(decoded(COLORS[row, column]) * [0.5, 0.8, 1.0] * np.array([0.9, 0.5, 0.7]))
        np.testing.assert_allclose(image[pixel(N, x, y, 0)], [*expected, 255], atol=2)


@pytest.mark.parametrize("scale", [(1, 1, 1), (-1, 1, 1), (-2, -1, -1), (1, -1, 0.5)])
def test_negative_scales_keep_the_outside_outside(gl: Rasterizer, tmp_path: Path, scale: tuple[float, ...]) -> None:
    gltf = card(textured(), png(quadrants()), thick=1.0)
    gltf.document["nodes"][0]["scale"] = scale
    parts, _ = normalized(read_gltf(gltf.save(tmp_path / "card.glb")), "y")
    with gl.load(parts) as drawing:
        for azimuth in (20, 160):
            depth, normals = drawing.geometry(camera(azimuth), FOV_DEG)
            seen = depth > 0
            assert seen.any()
            towards = [0, 0, 1] if azimuth < 90 else [0, 0, -1]
            np.testing.assert_allclose(normals[seen].astype(float), np.tile(towards, (seen.sum(), 1)), atol=1e-3)
    for part in parts:
        a, b, c = (part.positions[part.triangles[:, i]] for i in range(3))
        outwards = np.cross(b - a, c - a) * a
        assert (outwards[:, 2] > 0).all()


def test_texture_transforms(gl: Rasterizer, tmp_path: Path) -> None:
    """uv' = T R S uv; counterclockwise as seen with v down (KHR_texture_transform)."""
    (x, y), angle, (u, v) = (0.1, 0.25), 0.6, (0.7, 1.4)
    transform = {"offset": [x, y], "rotation": angle, "scale": [u, v]}
    gltf = card(textured(extensions={"KHR_texture_transform": transform}), png(quadrants()))
    gltf.document["extensionsUsed"] = ["KHR_texture_transform"]
    parts, _ = normalized(read_gltf(gltf.save(tmp_path / "card.glb")), "y")
    image = drawn(gl, parts)
    half, compared = 0.5 / np.sqrt(2 + 0.025**2), 0
    for s, t in np.ndindex(9, 9):
        at = (np.array([s, t]) + 0.5) / 9
        scaled = at * [u, v]
        c, sn = np.cos(angle), np.sin(angle)
        turned = np.array([c * scaled[0] + sn * scaled[1] + x, -sn * scaled[0] + c * scaled[1] + y]) % 1.0
        if np.abs(turned * 2 - np.round(turned * 2)).min() < 0.2:
            continue  # near an edge between two colors
        compared += 1
        place = pixel(N, half * (2 * at[0] - 1), half * (1 - 2 * at[1]), half * 0.025)
        np.testing.assert_allclose(image[place][:3], COLORS[int(turned[1] * 2), int(turned[0] * 2)], atol=3)
    assert compared > 20


def test_what_is_missing_or_beyond_the_reader_is_named(tmp_path: Path) -> None:
    def fails(match: str, error: type[MeshError] = MeshError, **changes) -> None:
        gltf = card(textured(), png(quadrants()))
        gltf.document = copy.deepcopy({**gltf.document, **changes})
        with pytest.raises(error, match=match):
            read_gltf(gltf.save(tmp_path / "bad.glb"))

    fails("needs KHR_draco_mesh_compression", Unsupported, extensionsRequired=["KHR_draco_mesh_compression"])
    fails(r"texture missing or unreadable: no\.png$", images=[{"uri": "no.png"}])
    fails("several parents", nodes=[{"children": [0]}])
    fails("several parents", nodes=[{"children": [1, 1]}, {"mesh": 0}])
    fails("is not a count", accessors=[{"componentType": 5126, "type": "VEC3", "count": 10**12}])
    fails("reads beyond its buffer", bufferViews=[{"buffer": 0, "byteOffset": 0, "byteLength": 10**6}] * 9)
    document = {"asset": {"version": "2.0"}, "buffers": [{"uri": "gone.bin", "byteLength": 9}]}
    document |= {
        "bufferViews": [{"buffer": 0, "byteLength": 9}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
    }
    document |= {
        "accessors": [{"bufferView": 0, "componentType": 5126, "type": "VEC3", "count": 3}],
        "nodes": [{"mesh": 0}],
    }
    (tmp_path / "bad.gltf").write_text(json.dumps(document))
    with pytest.raises(MeshError, match=r"buffer or texture missing or unreadable: gone\.bin"):
        read_gltf(tmp_path / "bad.gltf")


BASE = card(textured(), png(quadrants())).glb()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 7)), max_size=6), st.integers(0, len(BASE)))
def test_damaged_files_are_errors_or_meshes(gl: Rasterizer, tmp_path: Path, flips: list, kept: int) -> None:
    content = bytearray(BASE)
    for place, bit in flips:
        content[place] ^= 1 << bit
    (tmp_path / "a.glb").write_bytes(bytes(content if kept % 2 else content[:kept]))
    try:
        parts, _ = normalized(read_gltf(tmp_path / "a.glb"), "y")
    except MeshError:
        return
    assert drawn(gl, parts).shape == (N, N, 4)


def test_the_undamaged_file_is_a_mesh(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(BASE)
    (part,) = read_gltf(tmp_path / "a.glb")
    assert part.triangles.tolist() == [*FACES.tolist(), *(FACES + 4).tolist()]
    np.testing.assert_array_equal(part.uv[:4], UV)
    np.testing.assert_array_equal(part.material.texture.image[..., :3], quadrants())
