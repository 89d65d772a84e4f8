"""glTF files with skins, morph targets and animations: their first frame, by hand and as Blender shows it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.meshes import CAMERA
from support.raster import Gltf, rasterizer

from z1g.data.shards import EncodedObject, RenderedObject
from z1g.meshes.raster.gltf import read_gltf
from z1g.meshes.raster.scene import MeshError
from z1g.meshes.renderers import Blender, Raster
from z1g.sources.meshes import Meshes

HALF = float(np.sqrt(0.5))
RING = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], float)
HEIGHTS = (0.0, 2.0, 4.0)


def tube() -> tuple[np.ndarray, np.ndarray]:
    """A square tube of side 2 from y = 0 to y = 4 with a ring in the middle: vertices [12,3] and triangles."""
    points = np.array([[x, y, z] for y in HEIGHTS for x, z in RING])
    faces = []
    for ring in (0, 4):
        for i in range(4):
            a, b = ring + i, ring + (i + 1) % 4
            faces += [(a, b, b + 4), (a, b + 4, a + 4)]
    return points, np.array([*faces, (0, 2, 1), (0, 3, 2), (8, 9, 10), (8, 10, 11)])


def jointed(**changes: Any) -> Gltf:
    """The tube: the lower joint holds y = 0, the upper one y = 4; both have half of the ring between.

    The upper joint is at y = 2 and turned by 90 degrees about z, which moves +y to -x. The node of the mesh has a
    translation, which skins ignore.
    """
    points, faces = tube()
    gltf = Gltf()
    joints = np.tile([0, 1, 0, 0], (12, 1))
    weights = np.repeat([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 1, 0, 0]], 4, axis=0)
    attributes = {
        "POSITION": gltf.accessor(points, min=points.min(0).tolist(), max=points.max(0).tolist()),
        "JOINTS_0": gltf.accessor(joints, "uint8"), "WEIGHTS_0": gltf.accessor(weights),
    }  # fmt: skip
    gltf.mesh(attributes, indices=gltf.accessor(faces.reshape(-1), "uint16"))
    binds = np.stack([np.eye(4), np.eye(4)])
    binds[1, 1, 3] = -2.0
    gltf.document["accessors"].append({
        "bufferView": gltf.view(binds.transpose(0, 2, 1).astype("f4").tobytes()), "componentType": 5126, "count": 2,
        "type": "MAT4",
    })  # fmt: skip
    document = gltf.document
    document["skins"] = [{"joints": [1, 2], "inverseBindMatrices": len(document["accessors"]) - 1}]
    document["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [50, 60, 70]},
        {"name": "lower", "children": [2], "translation": [1, 0, 0]},
        {"name": "upper", "translation": [0, 2, 0], "rotation": [0, 0, HALF, HALF]},
    ]
    document["scenes"] = [{"nodes": [0, 1]}]
    document.update(changes)
    return gltf


def bent(turned: bool = True) -> np.ndarray:
    """The vertices of `jointed`, by hand."""
    points, _ = tube()
    below = points + np.array([1, 0, 0])
    above = points + np.array([1, 0, 0])
    if turned:
        x, y, z = (points - np.array([0, 2, 0])).T
        above = np.stack([-y, x, z], axis=1) + np.array([1, 2, 0])
    return np.concatenate([below[:4], (below[4:8] + above[4:8]) / 2, above[8:]])


def animated(gltf: Gltf, *tracks: tuple[int, str, Any, str]) -> Gltf:
    """Add an animation of channels: node, path, values of all keys, interpolation."""
    channels, samplers = [], []
    for node, path, values, interpolation in tracks:
        keys = 2
        times = gltf.accessor(np.arange(keys) + 0.5, min=[0.5], max=[1.5])
        flat = np.asarray(values, float)
        output = gltf.accessor(flat.reshape(-1) if path == "weights" else flat)
        samplers.append({"input": times, "output": output, "interpolation": interpolation})
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})
    gltf.document.setdefault("animations", []).append({"channels": channels, "samplers": samplers})
    return gltf


def positions(gltf: Gltf, folder: Path) -> np.ndarray:
    (part,) = read_gltf(gltf.save(folder / "a.glb"))
    return part.positions


def test_a_skin_follows_its_joints(tmp_path: Path) -> None:
    np.testing.assert_allclose(positions(jointed(), tmp_path), bent(), atol=1e-6)


@pytest.mark.parametrize("interpolation", ["LINEAR", "STEP", "CUBICSPLINE"])
def test_the_first_key_of_the_first_animation_counts(tmp_path: Path, interpolation: str) -> None:
    straight, other = [0.0, 0, 0, 1], [HALF, 0, 0, HALF]
    keys = [straight, other]
    if interpolation == "CUBICSPLINE":
        keys = [[9, 9, 9, 9], straight, [8, 8, 8, 8], [7, 7, 7, 7], other, [6, 6, 6, 6]]
    gltf = animated(jointed(), (2, "rotation", keys, interpolation))
    animated(gltf, (1, "translation", [[5, 5, 5], [6, 6, 6]], "LINEAR"))
    np.testing.assert_allclose(positions(gltf, tmp_path), bent(turned=False), atol=1e-6)


def morphed(weights: list[float] | None) -> Gltf:
    points, faces = tube()
    gltf = Gltf()
    targets = []
    for axis in (0, 2):
        moved = np.zeros_like(points)
        moved[:4, axis] = points[:4, axis]
        targets.append({"POSITION": gltf.accessor(moved, min=moved.min(0).tolist(), max=moved.max(0).tolist())})
    attributes = {"POSITION": gltf.accessor(points, min=points.min(0).tolist(), max=points.max(0).tolist())}
    gltf.mesh(attributes, indices=gltf.accessor(faces.reshape(-1), "uint16"), targets=targets)
    if weights is not None:
        gltf.document["meshes"][0]["weights"] = weights
    return gltf


def test_morph_targets_are_added_by_their_weights(tmp_path: Path) -> None:
    points, _ = tube()
    for weights, scale in ((None, (1, 1)), ([0.5, 1.0], (1.5, 2))):
        expected = points.copy()
        expected[:4, 0] *= scale[0]
        expected[:4, 2] *= scale[1]
        np.testing.assert_allclose(positions(morphed(weights), tmp_path), expected, atol=1e-6)
    gltf = animated(morphed([0.5, 1.0]), (0, "weights", [[2.0, 0.0], [0.0, 1.0]], "LINEAR"))
    expected = points.copy()
    expected[:4, 0] *= 3
    np.testing.assert_allclose(positions(gltf, tmp_path), expected, atol=1e-6)


@pytest.mark.parametrize("damage", ["circle", "joint", "sampler", "few"])
def test_damaged_poses_are_refused(tmp_path: Path, damage: str) -> None:
    gltf = animated(jointed(), (2, "rotation", [[0, 0, 0, 1]] * 2, "LINEAR"))
    if damage == "circle":
        gltf.document["nodes"][2]["children"] = [1]
    if damage == "joint":
        gltf.document["skins"][0]["joints"] = [1]
    if damage == "sampler":
        gltf.document["animations"][0]["channels"][0]["sampler"] = 7
    if damage == "few":
        gltf.document["accessors"][-1]["count"] = 0
    with pytest.raises(MeshError):
        read_gltf(gltf.save(tmp_path / "a.glb"))


@pytest.mark.blender
@pytest.mark.parametrize("case", ["skin", "animation", "morph"])
def test_poses_are_those_of_blender(blender: str, tmp_path: Path, case: str) -> None:
    rasterizer(16)
    gltf = {
        "skin": jointed,
        "animation": lambda: animated(
            animated(jointed(), (2, "rotation", [[0.3, 0, 0, 0.954], [0, 0, 0, 1]], "LINEAR"),
                     (1, "translation", [[0, 0, 2], [5, 5, 5]], "STEP")),
            (2, "rotation", [[0, 0, 0, 1]] * 2, "LINEAR"),
        ),
        "morph": lambda: animated(morphed([0.1, 0.2]), (0, "weights", [[0.9, 0.3], [0.0, 1.0]], "LINEAR")),
    }[case]()  # fmt: skip
    mesh = gltf.save(tmp_path / "a.glb")
    items: list[Any] = []
    for name, renderer in {
        "blender": Blender(resolution=64, samples=1, python=blender), "raster": Raster(resolution=64)
    }.items():  # fmt: skip
        data = Meshes(paths=(str(mesh),), renderer=renderer)
        (tmp_path / name).mkdir()
        (ingested,) = data.ingest(data.list_objects(), CAMERA, tmp_path / name, 1)
        items.append(ingested.outcome)
    assert isinstance(items[0], RenderedObject), items[0]
    assert isinstance(items[1], EncodedObject), items[1]
    placed = [np.array([*item.info["normalization"]["center"], item.info["normalization"]["scale"]]) for item in items]
    np.testing.assert_allclose(placed[0], placed[1], atol=1e-4)
    seen = [item.depth > 0 for item in items]
    assert (seen[0] & seen[1]).sum() / (seen[0] | seen[1]).sum() > 0.99
    both = seen[0] & seen[1]
    assert np.quantile(np.abs(items[0].depth - items[1].depth)[both], 0.98) < 1e-3
