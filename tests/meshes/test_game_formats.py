"""AC3D, MD2, G3D and PMD files, written byte by byte in `support.games`."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.games import CUBE, FACES, ac3d, ac3d_cube, checker, g3d, image, md2, pmd
from support.raster import decoded

from z1g.meshes.raster.ac3d import read_ac3d
from z1g.meshes.raster.g3d import read_g3d
from z1g.meshes.raster.pmd import parse_pmd
from z1g.meshes.raster.reading import read_mesh
from z1g.meshes.raster.scene import MeshError, Part, y_up


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode("latin-1") if isinstance(content, str) else content)
    return path


def corners(part: Part) -> np.ndarray:
    return part.positions[part.triangles]


def volume(part: Part) -> float:
    """Positive if faces are counterclockwise seen from outside."""
    return float(np.linalg.det(corners(part)).sum() / 6)


def samples(folder: Path) -> dict[str, bytes]:
    """A file of each format with the image that it names."""
    image(folder / "skin.png", checker())
    return {
        ".ac": ac3d(ac3d_cube("skin.png")).encode(), ".md2": md2(["skin.png"]), ".g3d": g3d([{"texture": "skin.png"}]),
        ".pmd": pmd(),
    }  # fmt: skip


@pytest.mark.parametrize("ending", [".ac", ".md2", ".g3d", ".pmd"])
def test_a_cube_is_a_cube_with_its_outside_outside(ending: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"box{ending}", samples(tmp_path)[ending])
    (part,) = y_up(*read_mesh(path))
    size = (100, 25, 50) if ending == ".md2" else (1, 1, 1)
    np.testing.assert_allclose(np.ptp(corners(part).reshape(-1, 3), axis=0), size)
    if ending == ".pmd":
        # The same corners in a left-handed world have their outside inside.
        np.testing.assert_allclose(volume(part), -1.0)
    else:
        np.testing.assert_allclose(volume(part), np.prod(size))
    assert len(part.triangles) == len(FACES)
    assert (part.material.texture is None) == (ending == ".pmd")


def test_ac3d_objects_are_placed_by_their_parents(tmp_path: Path) -> None:
    turn = "rot 0 1 0  -1 0 0  0 0 1"  # columns: x to y, y to -x
    inner = ac3d_cube(more="loc 5 0 0")
    text = ac3d(ac3d_cube(kids=1, more=f"{turn}\nloc 0 0 7") + "\n" + inner)
    (part,) = read_ac3d(written(tmp_path / "a.ac", text.replace("kids 2", "kids 1", 1)))
    outer = CUBE @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + (0, 0, 7)
    moved = (CUBE + np.array([5, 0, 0])) @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + (0, 0, 7)
    found = {tuple(np.round(point, 6)) for point in part.positions}
    assert found == {tuple(np.round(point, 6)) for point in np.concatenate([outer, moved])}


def test_ac3d_textures_repeat_and_materials_tint_them(tmp_path: Path) -> None:
    image(tmp_path / "My Skin.png", checker())
    text = ac3d(
        ac3d_cube("C:\\art\\My Skin.png", more='data 13\nOBJECT "x" y\ntexrep 3 2\ntexoff 0.5 0.25', material=1)
        + "\n" + ac3d_cube(name="glass", material=2) + "\n" + ac3d_cube(name="My Shadow"),
        ['"a" rgb 1 1 1 trans 0', '"b c" rgb 0.5 1 0 trans 0', '"d" rgb 0 0 1 trans 0.75'],
    )  # fmt: skip
    path = written(tmp_path / "a.ac", text)
    textured, glass = read_ac3d(path, without=("shadow",))
    assert {tuple(uv) for uv in textured.uv} == {(0.5, 0.75), (3.5, 0.75), (3.5, -1.25), (0.5, -1.25)}
    np.testing.assert_allclose(textured.material.factor, [*decoded([127.5, 255, 0]), 1.0])
    np.testing.assert_array_equal(textured.material.texture.image, checker())
    assert glass.material.factor == (0, 0, 1, 0.25)
    assert glass.material.alpha_mode == "blend"
    assert len(read_ac3d(path)) == 3


def test_ac3d_concave_polygons_and_lines(tmp_path: Path) -> None:
    outline = [(0, 0), (4, 0), (4, 4), (2, 1), (0, 4)]
    rows = "\n".join(f"{x} {y} 0" for x, y in outline)
    refs = "\n".join(f"{i} 0 0" for i in range(5))
    text = f"OBJECT poly\nnumvert 5\n{rows}\nnumsurf 2\nSURF 0x00\nrefs 5\n{refs}\nSURF 0x02\nrefs 5\n{refs}\nkids 0"
    (part,) = read_ac3d(written(tmp_path / "a.ac", ac3d(text)))
    area = np.cross(*(corners(part)[:, i] - corners(part)[:, 0] for i in (1, 2)))[:, 2].sum() / 2
    x, y = np.array(outline, float).T
    assert area == pytest.approx((x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)  # the shoelace formula


def test_md2_has_the_first_frame_and_the_first_skin_that_exists(tmp_path: Path) -> None:
    (tmp_path / "models/cars").mkdir(parents=True)
    image(tmp_path / "models/paint/Red.tga", checker())
    path = written(tmp_path / "models/cars/truck.md2", md2(["models/paint/none.tga", "models/paint/Red"]))
    (part,), up = read_mesh(path)
    assert up == "z"
    np.testing.assert_allclose(part.positions.min(axis=0), (1, 2, 3))
    np.testing.assert_allclose(part.positions.max(axis=0), (101, 52, 28))
    assert {tuple(uv) for uv in part.uv} == {(0, 0), (1, 0), (1, 1)}
    # The faces were written with the coordinates of their corners in this order.
    np.testing.assert_allclose(part.uv[part.triangles], np.tile([[0, 0], [1, 0], [1, 1]], (len(FACES), 1, 1)))
    (tmp_path / "models/paint/Red.tga").rename(tmp_path / "models/cars/truck.png")
    (tmp_path / "models/cars/truck.png").write_bytes(b"no image")
    with pytest.raises(MeshError, match="cannot identify"):
        read_mesh(path)
    (tmp_path / "models/cars/truck.png").unlink()
    with pytest.raises(MeshError, match=r"texture missing or unreadable: models/paint/none\.tga"):
        read_mesh(path)


def test_g3d_shows_the_team_where_the_image_is_transparent(tmp_path: Path) -> None:
    pixels = checker(alpha=0)
    pixels[:16, :, 3] = 255
    image(tmp_path / "cloth.png", pixels)
    meshes = [{"texture": "cloth.png", "team": True}, {"texture": "cloth.png"}, {"color": (1, 0, 0), "opacity": 0.5}]
    path = written(tmp_path / "unit.g3d", g3d(meshes))
    of_team, cut, plain = read_g3d(path, (10, 20, 30))
    assert of_team.material.alpha_mode == "opaque"
    np.testing.assert_array_equal(of_team.material.texture.image[16:], np.full((16, 32, 4), (10, 20, 30, 255)))
    np.testing.assert_array_equal(of_team.material.texture.image[:16], pixels[:16])
    assert cut.material.alpha_mode == "mask"
    assert (plain.material.factor, plain.material.alpha_mode) == ((1, 0, 0, 0.5), "blend")
    assert read_g3d(path, None)[0].material.alpha_mode == "mask"
    # v counts from the bottom.
    np.testing.assert_allclose(cut.uv, CUBE[:, :2] * (1, -1) + (0, 1))
    np.testing.assert_allclose(cut.normals, CUBE - 0.5)
    written(path, g3d(meshes).replace(b"G3D\4", b"G3D\3"))
    with pytest.raises(MeshError, match="version 3; version 4 can be read"):
        read_g3d(path)


def test_pmd_has_bones_and_attachment_points() -> None:
    half = np.sqrt(0.5)
    bones = [(0, 0, 0, 0, 0, 0, 1), (1, 2, 3, 0, 0, half, half)]  # the second turns x to y
    mesh = parse_pmd(pmd(bones=bones, props=[("hand", (4, 0, 0, 0, 0, 0, 1), 1), ("root", (0, 9, 0, 0, 0, 0, 2), 255)]))
    hand = mesh.bones[mesh.props["hand"].bone] @ mesh.props["hand"].transform
    np.testing.assert_allclose(hand @ (1, 0, 0, 1), (1, 7, 3, 1), atol=1e-6)
    assert mesh.props["root"].bone is None
    np.testing.assert_allclose(mesh.props["root"].transform[:3, 3], (0, 9, 0))
    np.testing.assert_allclose(mesh.uv, CUBE[:, :2] * (1, -1) + (0, 1))


@pytest.mark.parametrize("ending", [".ac", ".md2", ".g3d", ".pmd"])
def test_truncated_files_are_errors(ending: str, tmp_path: Path) -> None:
    content = samples(tmp_path)[ending]
    path = tmp_path / f"box{ending}"
    # Without the second frame of MD2, which is not read, and in AC3D after the first object began.
    begin, end = content.find(b"numvert") if ending == ".ac" else 0, len(content) - len(content) // 5
    for cut in range(begin, end, max(1, end // 60)):
        with pytest.raises(MeshError):
            read_mesh(written(path, content[:cut]))


@pytest.mark.parametrize("ending", [".ac", ".md2", ".g3d", ".pmd"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(draw=st.data())
def test_damaged_files_are_errors_or_meshes(ending: str, tmp_path: Path, draw: st.DataObject) -> None:
    content = bytearray(samples(tmp_path)[ending])
    for _ in range(draw.draw(st.integers(1, 4))):
        content[draw.draw(st.integers(0, min(len(content), 400) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(MeshError):
        for part in read_mesh(written(tmp_path / f"box{ending}", bytes(content)))[0]:
            assert not len(part.triangles) or part.triangles.max() < len(part.positions)


@pytest.mark.parametrize(
    ("ending", "damage", "message"),
    [
        (".md2", lambda content: content.replace(b"IDP2", b"IDP3"), "not an MD2"),
        (".g3d", lambda content: b"x" + content[1:], "not a G3D"),
        (".pmd", lambda content: b"x" + content[1:], "not a PMD"),
        (".ac", lambda content: content[1:], "not an AC3D"),
        (
            ".ac",
            lambda content: content.replace(b"0 0.0 0.0 0.0", b"x y z").replace(b"0 0 0\n", b"9 0 0\n"),
            "not exist",
        ),
        (".ac", lambda content: content.replace(b"numvert 8", b"numvert 99999999"), "ends too early"),
    ],
)
def test_damage_is_named(ending: str, damage: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(MeshError, match=message):
        read_mesh(written(tmp_path / f"a{ending}", damage(samples(tmp_path)[ending])))
