"""The rasterizer against Cycles at the same cameras, by the same route."""

from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT
from support.raster import card, png, rasterizer

from z1g.data.shards import RenderedObject
from z1g.geometry.camera import CONDITION_VIEW, CameraOptions
from z1g.meshes.renderers import Blender, Raster
from z1g.sources.meshes import Meshes

pytestmark = pytest.mark.blender
CAMERA = CameraOptions(condition_elevation_deg=(5, 5), train_views=1, validation_views=1, test_views=1)
SIZE = 64


def both(mesh: Path, scratch: Path, blender: str, samples: int) -> tuple[RenderedObject, RenderedObject]:
    """An object rendered by Blender and by the rasterizer, decoded."""
    rasterizer(16)
    renderers = {
        "blender": Blender(resolution=SIZE, samples=samples, python=blender),
        "raster": Raster(resolution=SIZE),
    }
    items = []
    for name, renderer in renderers.items():
        data = Meshes(paths=(str(mesh),), renderer=renderer)
        (scratch / name).mkdir()
        (ingested,) = data.ingest(data.list_objects(), CAMERA, scratch / name, 1)
        items.append(ingested.outcome)
    return items[0], items[1]


def images(item) -> np.ndarray:
    if isinstance(item, RenderedObject):
        return item.rgba.astype(float)
    return np.stack([item.view(view) for view in range(len(item.c2w))]).astype(float)


def test_a_demo_object_looks_as_in_cycles(blender: str, tmp_path: Path) -> None:
    (mesh,) = (path for path in (ROOT / "workflow/objects/crate").iterdir() if path.suffix in (".obj", ".glb", ".gltf"))
    path_traced, rasterized = both(mesh, tmp_path, blender, samples=32)
    a, b = images(path_traced), images(rasterized)
    covered = a[..., 3] > 127, b[..., 3] > 127
    assert (covered[0] & covered[1]).sum() / (covered[0] | covered[1]).sum() > 0.99
    inside = (a[..., 3] > 250) & (b[..., 3] > 250)
    difference = (a - b)[inside][:, :3] / 255
    # Uniform light is darker where the crate's own boards are close.
    assert -10 * np.log10((difference**2).mean()) > 25
    seen = (path_traced.depth > 0) & (rasterized.depth > 0)
    assert np.quantile(np.abs(path_traced.depth - rasterized.depth)[seen], 0.99) < 1e-4
    assert path_traced.info["normalization"]["scale"] == pytest.approx(
        rasterized.info["normalization"]["scale"], rel=1e-5
    )


@pytest.mark.parametrize("angle", [0.5, -1.2])
def test_texture_transforms_turn_as_in_blender(blender: str, tmp_path: Path, angle: float) -> None:
    colors = np.array([[[230, 20, 20], [20, 200, 30]], [[30, 40, 220], [220, 210, 30]]], np.uint8)
    transform = {"offset": [0.1, 0.2], "rotation": angle, "scale": [0.6, 1.2]}
    texture = {"index": 0, "extensions": {"KHR_texture_transform": transform}}
    surface = {"baseColorTexture": texture, "metallicFactor": 0.0, "roughnessFactor": 1.0}
    gltf = card({"pbrMetallicRoughness": surface}, png(np.kron(colors, np.ones((32, 32, 1), np.uint8))))
    gltf.document["extensionsUsed"] = ["KHR_texture_transform"]
    path_traced, rasterized = both(gltf.save(tmp_path / "card.glb"), tmp_path, blender, samples=8)
    a, b = images(path_traced)[CONDITION_VIEW], images(rasterized)[CONDITION_VIEW]
    inside = (a[..., 3] > 250) & (b[..., 3] > 250)
    assert inside.sum() > 300
    # Which of the four colors it is, at nearly every pixel.
    nearest = [np.linalg.norm(x[inside][:, None, :3] - colors.reshape(4, 3), axis=-1).argmin(-1) for x in (a, b)]
    assert (nearest[0] == nearest[1]).mean() > 0.93
    assert len(set(nearest[0])) == 4
