"""OBJ files and their material libraries."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raster import png

from z1g.meshes.raster.obj import read_obj
from z1g.meshes.raster.scene import MeshError, Part

POINTS = "v 0 0 0\nv 2 0 0\nv 2 1 0\nv 0 1 0\n"
COORDINATES = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
RGBA = np.array([[[250, 10, 20, 255], [10, 240, 30, 100]], [[1, 2, 3, 0], [9, 8, 7, 255]]], np.uint8)


def read(folder: Path, obj: str, **libraries: str) -> list[Part]:
    (folder / "rgba.png").write_bytes(png(RGBA))
    (folder / "gray.png").write_bytes(png(np.array([[0, 64], [128, 255]], np.uint8)))
    for name, text in libraries.items():
        (folder / f"{name}.mtl").write_text(text)
    (folder / "mesh.obj").write_text(obj)
    return read_obj(folder / "mesh.obj")


def with_material(folder: Path, lines: str) -> Part:
    """A textured square with a material of these lines."""
    (part,) = read(
        folder, f"mtllib a.mtl\n{POINTS}{COORDINATES}usemtl m\nf 1/1 2/2 3/3 4/4\n", a=f"newmtl m\n{lines}\n"
    )
    return part


@pytest.mark.parametrize("lines", ["v 0 0\nf 1 1 1\n", "v 0 0\nv 1 0\nv 1 1\nf 1 2 1\n", "v\n"])
def test_vertices_of_a_plane_are_refused(tmp_path: Path, lines: str) -> None:
    """Of three vertices with two coordinates each, two with three could be made."""
    with pytest.raises(MeshError, match=r"the file is damaged: a vertex has fewer than three coordinates$"):
        read(tmp_path, lines)


def test_negative_indices_count_from_the_line_of_the_face(tmp_path: Path) -> None:
    (part,) = read(tmp_path, f"{POINTS}f -4 -3 -2 -1\nv 0 0 5\nv 1 0 5\nv 1 1 5\nf -3 -2 -1\n")
    corners = part.positions[part.triangles]
    np.testing.assert_array_equal(corners[:2].reshape(-1, 3)[:, 2], 0)
    np.testing.assert_array_equal(corners[2], [[0, 0, 5], [1, 0, 5], [1, 1, 5]])
    for face in ("-5 -4 -3", "1 2 9", "1 2 0"):
        with pytest.raises(MeshError, match="refers to a vertex that does not exist"):
            read(tmp_path, f"{POINTS}f {face}\n")


def test_a_byte_order_mark_hides_neither_vertices_nor_materials(tmp_path: Path) -> None:
    mark, library = "\ufeff", "newmtl m\nKd 1 0 0\n"
    (plain,) = read(tmp_path, f"{POINTS}f 1 2 3 4\n")
    (marked,) = read(tmp_path, f"{mark}{POINTS}f 1 2 3 4\n")
    np.testing.assert_array_equal(marked.positions[marked.triangles], plain.positions[plain.triangles])
    (red,) = read(tmp_path, f"{mark}mtllib a.mtl\n{POINTS}usemtl m\nf 1 2 3 4\n", a=mark + library)
    assert red.material.factor == (1, 0, 0, 1)


def test_coordinates_and_normals_go_with_their_corners(tmp_path: Path) -> None:
    text = f"{POINTS}{COORDINATES}vn 0 0 1\nvn 0 1 0\nf 1/4/2 2/3/1 3/2/1\n"
    (part,) = read(tmp_path, text)
    a, b, c = part.triangles[0]
    np.testing.assert_array_equal(part.uv[[a, b, c]], [[0, 0], [1, 0], [1, 1]])  # v from the top
    np.testing.assert_array_equal(part.normals[[a, b, c]], [[0, 1, 0], [0, 0, 1], [0, 0, 1]])


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=2), st.lists(st.floats(-8, 8), min_size=1, max_size=2))
def test_scale_and_offset_of_an_image(tmp_path_factory: pytest.TempPathFactory, scale: list, offset: list) -> None:
    words = [" ".join(map(repr, values)) for values in (scale, offset)]
    part = with_material(tmp_path_factory.mktemp("a"), f"map_Kd -s {words[0]} -o {words[1]} -clamp on rgba.png")
    u, v = np.array([[0, 1, 1, 0], [0, 0, 1, 1]], float)
    expected = u * scale[0] + offset[0], v * (scale[1:] or [1.0])[0] + (offset[1:] or [0.0])[0]
    order = [np.flatnonzero((part.positions[:, :2] == point).all(1))[0] for point in ((0, 0), (2, 0), (2, 1), (0, 1))]
    np.testing.assert_allclose(part.uv[order], np.stack([expected[0], 1 - expected[1]], axis=-1))
    assert part.material.texture.wrap == ("clamp", "clamp")


def test_an_image_replaces_the_color_and_its_alpha_counts_only_as_map_d(tmp_path: Path) -> None:
    plain = with_material(tmp_path, "Kd 0.1 0.2 0.3\nmap_Kd rgba.png").material
    assert plain.factor == (1, 1, 1, 1)
    assert plain.alpha_mode == "opaque"
    np.testing.assert_array_equal(plain.texture.image[..., :3], RGBA[..., :3])
    leaf = with_material(tmp_path, "map_Kd rgba.png\nmap_d rgba.png").material
    assert leaf.alpha_mode == "blend"
    np.testing.assert_array_equal(leaf.texture.image, RGBA)
    gray = with_material(tmp_path, "Kd 0.1 0.2 0.3\nmap_d gray.png").material
    assert gray.factor == (0.1, 0.2, 0.3, 1.0)
    np.testing.assert_array_equal(gray.texture.image[..., 3], [[0, 64], [128, 255]])


def test_opacity_and_colors(tmp_path: Path) -> None:
    for lines, factor, mode in (
        ("Kd 0.1 0.2 0.3\nd 0.25", (0.1, 0.2, 0.3, 0.25), "blend"), ("Kd 1 0 0\nTr 0.25", (1, 0, 0, 0.75), "blend"),
        ("d 1", (0.8, 0.8, 0.8, 1), "opaque"), ("Kd nan 0 0", (0.8, 0.8, 0.8, 1), "opaque"),
    ):  # fmt: skip
        material = with_material(tmp_path, lines).material
        assert material.factor == pytest.approx(factor)
        assert material.alpha_mode == mode


def test_several_libraries_and_materials(tmp_path: Path) -> None:
    text = f"mtllib a.mtl\nmtllib b.mtl\n{POINTS}usemtl red\nf 1 2 3\nusemtl blue\nf 1 3 4\nusemtl none\nf 2 3 4\n"
    parts = read(tmp_path, text, a="newmtl red\nKd 1 0 0\n", b="newmtl blue\nKd 0 0 1\n")
    assert [part.material.factor[:3] for part in parts] == [(1, 0, 0), (0, 0, 1), (0.8, 0.8, 0.8)]
    assert [len(part.triangles) for part in parts] == [1, 1, 1]


def test_missing_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match=r"texture missing or unreadable: gone wood\.png$"):
        with_material(tmp_path, "map_Kd -s 2 2 2 gone wood.png")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/wood 1.png").write_bytes(png(RGBA))
    np.testing.assert_array_equal(
        with_material(tmp_path, "map_Kd deep\\wood 1.png").material.texture.image[..., :3], RGBA[..., :3]
    )


@given(st.binary(max_size=80))
def test_arbitrary_lines_are_errors_or_meshes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("a") / "mesh.obj"
    for prefix in (b"", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf ", b"v 0 0 0\nf 1 1 1\nusemtl a\nmtllib "):
        file.write_bytes(prefix + content)
        with contextlib.suppress(MeshError):
            read_obj(file)
