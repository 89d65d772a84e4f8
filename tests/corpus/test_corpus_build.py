"""A source from its unpacked files to its folder, and one list of several."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.games import ac3d, ac3d_cube, checker, g3d, image, pmd, png_bytes, public_zip, sphere
from support.raster import rasterizer

from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.corpus import build as building
from z1g.corpus.build import build, kind_of
from z1g.corpus.converter import Converted, Converter, file_of
from z1g.corpus.folders import FlightGear, MegaGlest
from z1g.corpus.furniture import Furniture
from z1g.corpus.joining import join
from z1g.corpus.source import Item
from z1g.corpus.sources import SOURCES
from z1g.corpus.zero_ad import ZeroAd
from z1g.meshes.raster.gltf import read_gltf


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def actor(texture: str = "ball.png", mesh: str = "ball.dae") -> str:
    return (
        f'<actor><group><variant><mesh>{mesh}</mesh><textures><texture file="{texture}" name="baseTex"/></textures>'
        "</variant></group></actor>"
    )


def small_game(folder: Path) -> Path:
    """Balls: one object of each fate."""
    flat = np.full((8, 8, 4), 255)
    public_zip(folder / "public.zip", {
        "actors/units/ball.xml": actor(), "actors/units/copy.xml": actor(),
        "actors/fauna/other.xml": actor("white.png"),
        "actors/structures/box.xml": actor(mesh="box.dae"), "actors/flora/gone.xml": actor("gone.png"),
        "actors/fauna/bear.xml": actor("bear.png"), "actors/units/broken.xml": "<actor",
        "meshes/ball.dae.cached.pmd": pmd(*sphere()), "meshes/box.dae.cached.pmd": pmd(),
        "textures/skins/ball.png": png_bytes(checker(size=600)), "textures/skins/bear.png": png_bytes(checker(cells=8)),
        "textures/skins/white.png": png_bytes(flat),
    })  # fmt: skip
    (folder / "copyright").write_text("Copyright: Wildfire Games | others\n```\n")
    return folder


@pytest.mark.slow
def test_a_source_becomes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rasterizer(16)
    small_game(tmp_path / "in")
    out = tmp_path / "out/0ad"
    words = [
        "corpus",
        "convert",
        "0ad",
        str(tmp_path / "in"),
        "--out",
        str(out),
        "--textures",
        "64",
        "--processes",
        "1",
    ]
    assert main(words) == 0
    assert "2 objects listed, 5 rejected" in capsys.readouterr().out
    listed = {row["name"]: row for row in rows(out / "objects.jsonl")}
    assert listed.keys() == {"ball", "bear"}
    assert listed["bear"]["held_out"] == "unseen"
    assert "held_out" not in listed["ball"]
    assert listed["ball"]["group"] == "0ad/art/textures/skins/ball.png"
    assert (listed["ball"]["source"], listed["ball"]["category"], listed["ball"]["license"]) == (
        "0ad", "0ad/units", "CC-BY-SA 3.0"
    )  # fmt: skip
    assert listed["ball"]["mesh"] == listed["bear"]["mesh"]
    assert listed["ball"]["textures"] != listed["bear"]["textures"]
    (part,) = read_gltf(out / listed["ball"]["path"])
    assert part.material.texture.image.shape == (64, 64, 4)
    reasons = {row["name"]: row["reason"] for row in rows(out / "rejected.jsonl")}
    assert {name: kind_of(reason) for name, reason in reasons.items()} == {
        "box": "with too few or too many triangles", "broken": "unreadable", "copy": "duplicates",
        "gone": "without their textures", "other": "without variation",
    }  # fmt: skip
    assert len(list((out / "glb").rglob("*.glb"))) == 2
    assert Image.open(out / "sheet.webp").size == (2 * 128, 142)
    assert "| Wildfire Games (https://www.wildfiregames.com/) | CC-BY-SA 3.0 | 2 |" in (out / "CREDITS.md").read_text()
    assert "Wildfire Games | others\n'''" in (out / "CREDITS.md").read_text()
    assert main(["corpus", "join", str(out), "--out", str(tmp_path / "out")]) == 0
    paths = [row["path"] for row in rows(tmp_path / "out/objects.jsonl")]
    assert all((tmp_path / "out" / path).is_file() for path in paths)
    assert len(rows(tmp_path / "out/rejected.jsonl")) == 5


def test_an_object_that_crashes_its_process_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [Item(name, name, "0ad/x", "", "") for name in ("a", "crash", "b")]
    monkeypatch.setattr(building, "_start", _nothing)
    monkeypatch.setattr(building, "_convert", _crashing)
    made = list(building._converted("0ad", tmp_path, tmp_path, 64, 1, items))
    assert [(item.item.key, item.reason) for item in made] == [
        ("a", None), ("crash", "the converter crashes on this object"), ("b", None)
    ]  # fmt: skip


def _nothing(*arguments: object) -> None:
    pass


def _crashing(item: Item) -> Converted:
    if item.key == "crash":
        os._exit(9)
    return Converted(item)


def test_damage_is_a_reason_and_never_an_error(tmp_path: Path) -> None:
    rasterizer(16)
    small_game(tmp_path)
    source = ZeroAd(tmp_path)
    item = source.items()[0]

    def fail(item: Item) -> list:
        raise ZeroDivisionError("by nothing")

    source.load = fail  # type: ignore[method-assign]
    assert (
        Converter(source, tmp_path / "out", 64).convert(item).reason
        == "the file is damaged: ZeroDivisionError: by nothing"
    )


def test_folders_of_other_things_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in SOURCES:
        words = ["corpus", "convert", name, str(tmp_path), "--out", str(tmp_path.parent / "out")]
        assert main(words) == 2
        assert "give the folder with the files of" in capsys.readouterr().err
    assert main(["corpus", "convert", "0ad", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    (tmp_path / "public.zip").write_bytes(b"PK")
    assert main(["corpus", "convert", "0ad", str(tmp_path), "--out", str(tmp_path.parent / "out")]) == 2
    assert "unpack the package again" in capsys.readouterr().err


def test_lists_are_checked_before_they_are_joined(tmp_path: Path) -> None:
    for listed, message in (
        ('{"path": "a.glb", "name": 3}', "line 1: no object of the corpus"), ("[]", "line 1"), ("{", "cannot be read"),
        ('{"path": "glb/Reallusion/a.glb"}', "never listed"),
    ):  # fmt: skip
        (tmp_path / "objects.jsonl").write_text(listed + "\n")
        (tmp_path / "rejected.jsonl").write_text("")
        with pytest.raises(UserError, match=message):
            join([tmp_path], tmp_path / "out")


def test_furniture_leaves_two_libraries_out(tmp_path: Path) -> None:
    obj = "mtllib a.mtl\nusemtl a\nv 0 0 0\nv 1 0 0\nv 0 1 1\nf 1 2 3\n"
    catalog = "id=x\nname#1=Chair\ncategory#1=Living room\ncreator#1=Someone\nmodel#1=/a/a.obj\nlicense#1=CC-BY 3.0\n"
    for name in ("BlendSwap-CC-0", "KatorLegaz", "Reallusion"):
        with zipfile.ZipFile(tmp_path / f"{name}.sh3f", "w") as archive:
            for member, text in (("a/a.obj", obj), ("a/a.mtl", "newmtl a\nKd 1 0 0\n"),
                                 ("PluginFurnitureCatalog.properties", catalog)):  # fmt: skip
                archive.writestr(member, text)
    source = Furniture(tmp_path)
    (item,) = source.items()
    assert item == Item("BlendSwap-CC-0.sh3f!/a/a.obj", "Chair", "furniture/Living room", "Someone", "CC-BY 3.0")
    (part,) = source.load(item)
    assert part.material.factor[:3] == (1, 0, 0)
    assert file_of(item).startswith("glb/Living-room/a-")


def test_megaglest_lists_standing_units_once_and_worlds_have_no_team(tmp_path: Path) -> None:
    clear = checker(alpha=0)
    clear[:16, :, 3] = 255
    units, worlds = tmp_path / "techs/megapack/factions/romans/units/guard/models", tmp_path / "tilesets/hell/models"
    for folder, names in ((units, ("guard_attack", "guard_idle", "guard_walk", "guard_die")), (worlds, ("tree",))):
        image(folder / "skin.png", clear)
        for name in names:
            (folder / f"{name}.g3d").write_bytes(g3d([{"texture": "skin.png", "team": True}]))
    source = MegaGlest(tmp_path)
    guard, tree = source.items()
    assert (guard.name, guard.category, guard.creator) == ("guard idle", "megaglest/units", "Jacob Vejvoda")
    assert (tree.category, tree.license) == ("megaglest/worlds", "CC-BY-SA 3.0")
    assert [source.load(item)[0].material.alpha_mode for item in (guard, tree)] == ["opaque", "mask"]
    texture = source.load(tree)[0].material.texture
    assert source.texture_file(tree, texture) == "worlds/skin.png"
    assert source.texture_file(guard, texture) == "techs/megapack/factions/romans/units/guard/models/skin.png"


def test_flightgear_holds_two_categories_out(tmp_path: Path) -> None:
    image(tmp_path / "Scenery/Models/Sport/skin.png", checker())
    for place in ("Sport/goal", "Power/mast", "StreetFurniture/lamp", "Weather/cloud"):
        path = tmp_path / f"Scenery/Models/{place}.ac"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ac3d(ac3d_cube("../Sport/skin.png") + "\n" + ac3d_cube(name="ground shadow")))
    source = FlightGear(tmp_path)
    items = source.items()
    assert [(item.category, item.held_out) for item in items] == [
        ("flightgear/Power", ""), ("flightgear/Sport", "unseen"), ("flightgear/StreetFurniture", "unseen")
    ]  # fmt: skip
    (part,) = source.load(items[0])
    assert len(part.triangles) == 12
    assert source.texture_file(items[0], part.material.texture) == "Scenery/Models/Sport/skin.png"
    assert not source.free


def test_an_empty_source_is_an_error(tmp_path: Path) -> None:
    public_zip(tmp_path / "public.zip", {"a.txt": "x"})
    with pytest.raises(UserError, match="no objects in it"):
        build("0ad", tmp_path, tmp_path.parent / "out")
