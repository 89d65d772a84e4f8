"""Assembly of 0 A.D.'s actors from a small zip made by hand."""

import random
from pathlib import Path

import numpy as np
import pytest
from support.games import CUBE, checker, pmd, png_bytes, public_zip

from z1g.corpus.actors import Actors
from z1g.corpus.source import UNSEEN
from z1g.corpus.zero_ad import ZeroAd
from z1g.meshes.raster.scene import MeshError

HALF = float(np.sqrt(0.5))
BODY = pmd(
    bones=[(0, 2, 0, 0, 0, 0, 1), (10, 0, 0, 0, HALF, 0, HALF)],  # the second turns z to x, x to -z
    props=[("prop-helmet", (0, 1, 0, 0, 0, 0, 1), 0), ("hand", (1, 0, 3, 0, 0, 0, 1), 1)],
)  # fmt: skip
SOLDIER = """<actor version="1">
  <group>
    <variant frequency="1"><mesh>skeletal/body.dae</mesh>
      <props><prop actor="props/sword.xml" attachpoint="hand"/>
        <prop actor="props/hat.xml" attachpoint="helmet"/></props>
      <textures><texture file="bare.png" name="baseTex"/></textures></variant>
    <variant><mesh>skeletal/never.dae</mesh></variant>
  </group>
  <group><variant file="shared/cloth.xml"><props><prop attachpoint="hand"/></props></variant></group>
  <group><variant><props><prop actor="props/decal_shadow.xml" attachpoint="root"/></props></variant></group>
  <material>player_trans.xml</material>
</actor>"""
MEMBERS = {
    "actors/units/soldier.xml": SOLDIER,
    "actors/units/ranks.xml": '<qualitylevels><actor quality="1" file="units/x.xml"/><actor file="units/soldier.xml"/>'
    "</qualitylevels>",
    "actors/props/hat.xml": "<actor><group><variant><mesh>hat.dae</mesh><color>0 128 255</color><textures>"
    '<texture file="bare.png" name="baseTex"/></textures></variant></group><material>objectcolor.xml</material>'
    "</actor>",
    "actors/props/sword.xml": "<actor><group><variant><mesh>hat.dae</mesh></variant></group></actor>",
    "actors/props/decal_shadow.xml": "<actor><group><variant><mesh>hat.dae</mesh></variant></group></actor>",
    "actors/fauna/pig.xml": SOLDIER, "actors/flora/fndn_tree.xml": SOLDIER, "actors/props/structures/door.xml": SOLDIER,
    "actors/props/units/hat.xml": SOLDIER, "actors/special/x.xml": SOLDIER, "actors/loop.xml": "<actor><group><variant>"
    '<mesh>hat.dae</mesh><props><prop actor="loop.xml" attachpoint="root"/></props></variant></group></actor>',
    "variants/shared/cloth.xml": '<variant><textures><texture file="cloth.png" name="baseTex"/></textures></variant>',
    "materials/player_trans.xml": '<material><define name="USE_PLAYERCOLOR" value="1"/></material>',
    "materials/objectcolor.xml": '<material><define name="USE_OBJECTCOLOR" value="1"/></material>',
    "materials/leaf.xml": '<material><define name="USE_TRANSPARENT" value="1"/></material>',
    "meshes/skeletal/body.dae.cached.pmd": BODY, "meshes/hat.dae.cached.pmd": pmd(CUBE * 0.5),
}  # fmt: skip
HALF_CLEAR = checker()
HALF_CLEAR[16:, :, 3] = 51


def game(folder: Path, **changed: str | bytes) -> Path:
    members = {
        **MEMBERS, "textures/skins/cloth.png": png_bytes(HALF_CLEAR), "textures/skins/bare.png": png_bytes(HALF_CLEAR),
    }  # fmt: skip
    members |= {name.replace("__", "/").replace("_xml", ".xml"): value for name, value in changed.items()}
    return public_zip(folder / "usr/public.zip", members)


def test_props_are_placed_by_bones_and_emptied_points_stay_empty(tmp_path: Path) -> None:
    body, hat = Actors(game(tmp_path)).parts("units/soldier.xml", (10, 200, 30), random.Random(0))
    np.testing.assert_allclose(body.positions, CUBE * (1, 1, -1))
    np.testing.assert_allclose(hat.positions, (CUBE * 0.5 + (0, 3, 0)) * (1, 1, -1), atol=1e-6)


def test_a_bone_turns_what_is_attached(tmp_path: Path) -> None:
    armed = SOLDIER.replace('<props><prop attachpoint="hand"/></props>', "")
    _, sword, _ = Actors(game(tmp_path, actors__units__soldier_xml=armed)).parts(
        "units/soldier.xml", (0, 0, 0), random.Random(0)
    )
    x, y, z = (CUBE * 0.5 + (1, 0, 3)).T
    np.testing.assert_allclose(sword.positions, np.column_stack([10 + z, y, x]), atol=1e-6)


def test_colors_of_player_and_object_show_where_the_image_is_clear(tmp_path: Path) -> None:
    body, hat = Actors(game(tmp_path)).parts("units/ranks.xml", (10, 200, 30), random.Random(0))
    for part, color in ((body, (10, 200, 30)), (hat, (0, 128, 255))):
        image = part.material.texture.image
        np.testing.assert_array_equal(image[:16], HALF_CLEAR[:16])
        # A fifth of the texel's own color, the rest of it times the color.
        expected = HALF_CLEAR[16:, :, :3] * (0.2 + 0.8 * np.array(color) / 255)
        np.testing.assert_allclose(image[16:, :, :3], expected, atol=0.51)
        assert (image[..., 3] == 255).all()
        assert part.material.alpha_mode == "opaque"
    assert body.material.texture.name == "art/textures/skins/cloth.png"


def test_transparent_materials_cut_out_and_others_ignore_alpha(tmp_path: Path) -> None:
    leafy, plain = (SOLDIER.replace("player_trans.xml", name) for name in ("leaf.xml", "unknown.xml"))
    actors = Actors(game(tmp_path, actors__units__soldier_xml=leafy, actors__units__other_xml=plain))
    leaf = actors.parts("units/soldier.xml", (1, 2, 3), random.Random(0))[0].material
    assert leaf.alpha_mode == "mask"
    np.testing.assert_array_equal(leaf.texture.image, HALF_CLEAR)
    other = actors.parts("units/other.xml", (1, 2, 3), random.Random(0))[0].material
    np.testing.assert_array_equal(other.texture.image[..., :3], HALF_CLEAR[..., :3])
    assert (other.texture.image[..., 3] == 255).all()


def test_variants_are_drawn_by_their_frequency(tmp_path: Path) -> None:
    often = "".join(
        f'<variant frequency="{n}"><mesh>{mesh}.dae</mesh></variant>' for mesh, n in (("hat", 3), ("skeletal/body", 1))
    )
    actors = Actors(game(tmp_path, actors__units__soldier_xml=f"<actor><group>{often}</group></actor>"))
    sizes = [np.ptp(actors.parts("units/soldier.xml", (0, 0, 0), random.Random(i))[0].positions) for i in range(400)]
    assert 0.68 < np.mean(np.array(sizes) < 1.5) < 0.82  # 3 in 4; more than three standard errors to either side


def test_damage_is_a_reason(tmp_path: Path) -> None:
    actors = Actors(game(
        tmp_path, actors__units__soldier_xml="<actor>", actors__units__x_xml=SOLDIER.replace("shared/cloth", "none")
        .replace("bare.png", "gone.png"), actors__units__y_xml=SOLDIER.replace("body.dae", "short.dae"),
        **{"meshes__skeletal__short.dae.cached.pmd": BODY[:200]},
    ))  # fmt: skip
    for name, message in (
        ("soldier", "is damaged"), ("gone", "missing"), ("x", r"texture missing: gone\.png"), ("y", "truncated"),
    ):  # fmt: skip
        with pytest.raises(MeshError, match=message):
            actors.parts(f"units/{name}.xml", (0, 0, 0), random.Random(0))
    assert 1 < len(actors.parts("loop.xml", (0, 0, 0), random.Random(0))) < 20


def test_what_is_listed_and_what_is_unseen(tmp_path: Path) -> None:
    game(tmp_path)
    items = {item.key: item for item in ZeroAd(tmp_path).items()}
    assert {key: item.category for key, item in items.items()} == {
        "fauna/pig.xml": "0ad/fauna", "props/units/hat.xml": "0ad/props-units", "units/ranks.xml": "0ad/units",
        "units/soldier.xml": "0ad/units",
    }  # fmt: skip
    assert [key for key, item in items.items() if item.held_out] == ["fauna/pig.xml"]
    assert items["fauna/pig.xml"].held_out == UNSEEN
    source = ZeroAd(tmp_path)
    first, again = (source.load(items["units/soldier.xml"])[0].material.texture.image for _ in range(2))
    np.testing.assert_array_equal(first, again)
