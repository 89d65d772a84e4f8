"""One shape with other textures, in another size or direction, is found; other shapes are not."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from z1g.cli.main import main
from z1g.core.files import read_jsonl
from z1g.data.manifest import ObjectEntry
from z1g.meshes.duplicates import SAME, SIMILAR, Pair, Shapes, grouped, near_duplicates
from z1g.meshes.raster.scene import MeshError
from z1g.meshes.signature import Signature, shape_distance, shape_signature

Triangles = NDArray[np.float64]


def box(*sides: float) -> Triangles:
    return np.asarray(trimesh.creation.box(sides).triangles, np.float64)


def moved(triangles: Triangles, *by: float) -> Triangles:
    return triangles + np.array(by)


def chair(width: float = 1.0, back: float = 1.0) -> Triangles:
    """A seat on four legs with a back, y-up."""
    parts = [moved(box(width, 0.1, 1), 0, 0.5, 0), moved(box(width, back, 0.1), 0, 0.5 + back / 2, -0.45)]
    legs = [moved(box(0.1, 0.5, 0.1), x * width * 0.45, 0.25, z) for x in (-1, 1) for z in (-0.45, 0.45)]
    return np.concatenate([*parts, *legs])


def turned(triangles: Triangles, degrees: float) -> Triangles:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return triangles @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T


def distance(first: Triangles, second: Triangles) -> float:
    signatures = [shape_signature(triangles).quantiles[None] for triangles in (first, second)]
    return float(shape_distance(*signatures)[0, 0])


@given(st.floats(0, 360), st.floats(1e-3, 1e3), st.tuples(*[st.floats(-100, 100)] * 3))
def test_size_place_and_direction_do_not_matter(degrees: float, scale: float, shift: tuple[float, ...]) -> None:
    assert distance(chair(), turned(chair() * scale, degrees) + np.array(shift) * scale) < 1e-3


def test_the_order_of_faces_and_their_number_matter_little() -> None:
    shuffled = np.random.default_rng(0).permutation(chair())
    mesh = trimesh.Trimesh(chair().reshape(-1, 3), np.arange(chair().size // 3).reshape(-1, 3)).subdivide()
    assert distance(chair(), shuffled) < SAME
    assert distance(chair(), np.asarray(mesh.triangles)) < SAME


FURNITURE = {
    "cupboard": box(1, 2, 0.6), "low cupboard": box(1, 1.4, 0.6), "cube": box(1, 1, 1), "board": box(1, 0.05, 0.5),
    "lying cupboard": box(2, 1, 0.6), "chair": chair(), "bench": chair(width=2.0), "stool": chair(back=0.2),
    "ball": np.asarray(trimesh.creation.icosphere().triangles, np.float64),
}  # fmt: skip


def test_different_furniture_is_told_apart() -> None:
    quantiles = np.stack([shape_signature(triangles).quantiles for triangles in FURNITURE.values()])
    distances = shape_distance(quantiles, quantiles)
    assert distances[~np.eye(len(quantiles), dtype=bool)].min() > SIMILAR


def test_quantiles_of_a_sphere_are_those_of_its_known_distributions() -> None:
    """On a sphere of radius 1 the distance has the density d/2 on [0,2], and the height is uniform (Archimedes)."""
    ball = np.asarray(trimesh.creation.icosphere(subdivisions=5).triangles, np.float64)
    quantiles = shape_signature(ball * 3 + 7).quantiles
    levels = [(np.arange(n) + 0.5) / n for n in (64, 32, 32)]
    expected = [2 * np.sqrt(levels[0]), 2 * levels[1] - 1, np.sqrt(1 - (1 - levels[2]) ** 2)]
    np.testing.assert_allclose(quantiles, np.concatenate(expected), atol=0.03)


@pytest.mark.parametrize("triangles", [box(1, 1, 1) * np.nan, box(1, 1, 1) * 0, moved(box(0, 0, 0), 1, 2, 3)])
def test_meshes_without_a_surface_are_refused(triangles: Triangles) -> None:
    with pytest.raises(MeshError):
        shape_signature(triangles)


def entry(name: str, group: str = "") -> ObjectEntry:
    return ObjectEntry(name, f"{name}.obj", group=group)


def test_groups_that_a_pair_connects_become_one() -> None:
    entries = [entry("a"), entry("b", "x"), entry("c", "x"), entry("d", "w"), entry("e"), entry("f"), entry("g")]
    pairs = [Pair(entries[i], entries[j], 0.0, (1, 1)) for i, j in ((0, 1), (2, 3), (4, 5))]
    assert [item.group for item in grouped(entries, pairs)] == ["w", "w", "w", "w", "e", "e", ""]


def test_looks_decide_between_similar_shapes() -> None:
    quantiles = [np.zeros(8), np.full(8, SAME / 2), np.full(8, (SAME + SIMILAR) / 2), np.full(8, 10 * SIMILAR)]
    entries = [entry(name) for name in "abcd"]
    shapes = Shapes(entries, [Signature(values, 12) for values in quantiles], {})
    assert [(p.first.id, p.second.id) for p in near_duplicates(shapes)] == [("a", "b")]
    asked: list[str] = []

    def looks(some: object) -> dict[str, NDArray[np.float64]]:
        asked.extend(item.id for item in some)  # type: ignore[attr-defined]
        return {"a.obj": np.array([1.0, 0]), "c.obj": np.array([0.6, 0.8]), "b.obj": np.array([0.6, 0.8])}

    found = near_duplicates(shapes, looks)
    assert sorted(asked) == ["a", "b", "c"]
    assert [(p.first.id, p.second.id, p.looks) for p in found] == [("a", "b", None), ("b", "c", pytest.approx(1.0))]


def write(path: Path, triangles: Triangles, color: tuple[int, int, int]) -> None:
    mesh = trimesh.Trimesh(triangles.reshape(-1, 3), np.arange(triangles.size // 3).reshape(-1, 3), process=False)
    mesh.visual.vertex_colors = np.tile([*color, 255], (len(mesh.vertices), 1))
    mesh.export(path)


@pytest.mark.slow
def test_a_list_names_near_duplicates_and_leaves_out_those_of_another_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("z1g.sources.looks.missing", lambda: "a package")
    (tmp_path / "demo").mkdir()
    (tmp_path / "set").mkdir()
    write(tmp_path / "demo" / "ball.glb", FURNITURE["ball"], (255, 0, 0))
    write(tmp_path / "set" / "globe.glb", turned(FURNITURE["ball"] * 3, 20), (0, 0, 255))
    write(tmp_path / "set" / "oak.glb", chair(), (90, 60, 10))
    write(tmp_path / "set" / "steel.glb", turned(chair() * 0.3, 120), (200, 200, 200))
    write(tmp_path / "set" / "cube.glb", FURNITURE["cube"], (90, 60, 10))
    (tmp_path / "set" / "torn.glb").write_bytes(b"glTF")
    out = tmp_path / "objects.jsonl"
    arguments = ["list", str(tmp_path / "set"), "--out", str(out), "--near-duplicates", "--against"]
    assert main([*arguments, str(tmp_path / "demo")]) == 0
    rows = {Path(row["path"]).stem: row for row in read_jsonl(out)}
    assert rows.keys() == {"oak", "steel", "cube", "torn"}
    assert rows["oak"]["group"] == rows["steel"]["group"]
    assert not any("group" in rows[name] for name in ("cube", "torn"))
    report = read_jsonl(tmp_path / "objects.near.jsonl")
    assert [row["first"].split("-")[0] for row in report] == ["globe", "oak", "torn"]
    assert report[0]["left_out"] is True
    assert report[0]["against"].endswith("demo/ball.glb")
    assert report[1]["triangles"] == [72, 72]
    assert report[2]["why"].startswith("not compared: ")
    said = capsys.readouterr().out
    assert "4 objects, 1 near duplicate left out, 2 near duplicates grouped; the largest of 1 group has 2" in said
