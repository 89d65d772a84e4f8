"""What is written as GLB is read again, small and the same; welding, cutting of atlases, digests."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh
from support.games import FACES, checker, sphere
from support.raster import drawn, rasterizer

from z1g.corpus.glb import encoded, write_glb
from z1g.corpus.textures import fitted, reduced
from z1g.corpus.welding import geometry_digest, merged, welded
from z1g.meshes.raster.gltf import read_gltf
from z1g.meshes.raster.scene import Material, Part, Texture


def ball(material: Material, uv: np.ndarray | None = None) -> Part:
    points, faces = sphere()
    return Part(0.4 * points, np.array(faces), None, (points[:, :2] + 1) / 2 if uv is None else uv, None, material)


def corners(parts: list[Part]) -> np.ndarray:
    return np.sort(np.concatenate([part.positions[part.triangles].reshape(-1, 9) for part in parts]), axis=0)


def test_files_are_read_again_by_others_and_by_us(tmp_path: Path) -> None:
    clear = checker()
    clear[:8, :, 3] = 0
    parts = [
        ball(Material((0.5, 1, 0.25, 1), Texture(checker(), ("clamp", "mirror"), nearest=True))),
        ball(Material(texture=Texture(clear), alpha_mode="mask", cutoff=0.25)),
        ball(Material((1, 0, 0, 0.5), None, "blend")),
        replace(ball(Material()), color=np.random.default_rng(0).random((169, 4)).round(3)),
    ]  # fmt: skip
    path = tmp_path / "a.glb"
    parts = [welded(part) for part in parts]
    write_glb(path, parts)
    ours = read_gltf(path)
    np.testing.assert_allclose(corners(ours), corners(parts), atol=1e-6)
    for mine, part in zip(ours[:2], parts, strict=False):
        np.testing.assert_allclose(mine.uv[mine.triangles], part.uv[part.triangles], atol=1e-6)
    assert [part.material.alpha_mode for part in ours] == ["opaque", "mask", "blend", "opaque"]
    assert ours[0].material.factor == (0.5, 1, 0.25, 1)
    assert ours[0].material.texture.wrap == ("clamp", "mirror")
    assert ours[0].material.texture.nearest
    assert ours[1].material.cutoff == 0.25
    np.testing.assert_array_equal(ours[1].material.texture.image, clear)
    assert ours[2].material.factor == (1, 0, 0, 0.5)
    theirs = trimesh.load_scene(path).dump()
    assert sorted(len(mesh.faces) for mesh in theirs) == sorted(len(part.triangles) for part in ours)
    size, text = struct.unpack_from("<I", path.read_bytes(), 12)[0], path.read_bytes()[20:]
    document = json.loads(text[:size])
    assert {accessor["componentType"] for accessor in document["accessors"]} == {5123, 5126}


def test_welding_changes_no_pixel(tmp_path: Path) -> None:
    part, gl = ball(Material(texture=Texture(checker()))), rasterizer(48)
    loose = Part(part.positions[part.triangles.reshape(-1)], np.arange(3 * len(part.triangles)).reshape(-1, 3), None,
                 part.uv[part.triangles.reshape(-1)], None, part.material)  # fmt: skip
    tight = welded(loose)
    assert len(tight.positions) < len(loose.positions) / 4
    np.testing.assert_array_equal(drawn(gl, [tight], 30), drawn(gl, [loose], 30))


def test_parts_of_a_material_are_one() -> None:
    texture = Texture(checker())
    parts = [ball(Material(texture=texture)), ball(Material((1, 0, 0, 1))), ball(Material(texture=texture))]
    parts.append(replace(parts[0], triangles=np.zeros((0, 3), np.int64)))
    one, other = merged(parts)
    np.testing.assert_allclose(corners([one]), corners([parts[0], parts[2]]))
    assert other.material.factor == (1, 0, 0, 1)


def test_an_atlas_is_cut_to_what_is_used_and_looks_the_same() -> None:
    atlas = np.random.default_rng(1).integers(0, 256, (64, 64, 4), np.uint8)
    atlas[..., 3] = 255
    atlas[10:42, 20:52] = checker()
    points, _ = sphere()
    uv = (points[:, :2] + 1) / 2 * 0.4 + (22 / 64 - 3, 12 / 64 + 2)  # in another tile
    part = ball(Material(texture=Texture(atlas)), uv)
    (cut,) = fitted([part], 512)
    assert cut.material.texture.image.shape[0] < 40
    gl = rasterizer(48)
    before, after = (drawn(gl, [item], 30).astype(int) for item in (part, cut))
    # Averages over more texels differ at the border of the part.
    assert np.abs(before - after)[before[..., 3] == 255].mean() < 3
    whole = ball(Material(texture=Texture(atlas)), (points[:, :2] + 1) * 3)
    (repeated,) = fitted([whole], 512)
    np.testing.assert_array_equal(repeated.material.texture.image, atlas)
    np.testing.assert_array_equal(repeated.uv, whole.uv)


def test_textures_are_reduced_apart_from_their_alpha() -> None:
    image = np.zeros((100, 50, 4), np.uint8)
    image[..., 0] = 200
    image[:, 25:, 3] = 255
    small = reduced(image, 20)
    assert small.shape == (20, 10, 4)
    np.testing.assert_array_equal(small[..., 0], 200)  # also where it is transparent
    assert (small[:, :4, 3] < 30).all()
    assert (small[:, 6:, 3] > 225).all()
    np.testing.assert_array_equal(reduced(image, 100), image)


def test_images_without_alpha_are_jpeg_unless_they_are_simple() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    noise[..., 3] = 255
    plain, clear = np.full((64, 64, 4), 255, np.uint8), noise.copy()
    clear[0, 0, 3] = 0
    assert [encoded(image)[0] for image in (noise, plain, clear)] == ["jpeg", "png", "png"]


def test_a_shape_is_known_by_its_triangles() -> None:
    part = ball(Material())
    digest = geometry_digest([part])
    shuffled = replace(part, triangles=np.random.default_rng(0).permutation(part.triangles))
    assert geometry_digest([replace(shuffled, positions=shuffled.positions * 7 + (1, 2, 3))]) == digest
    assert (
        geometry_digest([Part(part.positions, part.triangles[::2]), Part(part.positions, part.triangles[1::2])])
        == digest
    )
    moved = part.positions.copy()
    moved[80] *= 1.05
    assert geometry_digest([replace(part, positions=moved)]) != digest
    assert len(part.triangles) > len(FACES)


def test_triangles_without_area_are_dropped() -> None:
    part = Part(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], float), np.array([[0, 1, 2], [0, 1, 3]]))
    assert len(welded(part).triangles) == 1
    assert welded(part).normals is None
