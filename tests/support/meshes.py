"""Small meshes, and cameras and options to render them with Blender."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from z1g.core.files import write_json
from z1g.geometry.camera import CameraOptions
from z1g.meshes.renderers import Blender
from z1g.plan.folder import StageFolder
from z1g.sources.meshes import Meshes

CAMERA = CameraOptions(train_views=1, validation_views=1, test_views=1)
SIZE = 32
"""Side of the images in pixels."""
COLORS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


def cuboid(low: tuple[float, ...], high: tuple[float, ...], first: int = 1) -> str:
    """OBJ text of a box whose vertex numbers start at `first`."""
    corners = [(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    lines = [f"v {x} {y} {z}" for x, y, z in corners]
    return "\n".join(lines + ["f " + " ".join(str(first + i) for i in face) for face in faces]) + "\n"


def axes(folder: Path) -> Path:
    """Boxes of side 0.8 two units from (10, 10, 10): red along x, green along y, blue along z."""
    mesh = "mtllib axes.mtl\n"
    for i, name in enumerate(COLORS):
        middle = 10 + 2 * np.eye(3)[i]
        mesh += f"usemtl {name}\n" + cuboid(tuple(middle - 0.4), tuple(middle + 0.4), 1 + 8 * i)
    (folder / "axes.obj").write_text(mesh)
    materials = [f"newmtl {name}\nKd {r} {g} {b}\nKs 0 0 0\nd 1\n" for name, (r, g, b) in COLORS.items()]
    (folder / "axes.mtl").write_text("".join(materials))
    (folder / "Licence.txt").write_text("CC0")
    return folder / "axes.obj"


def ingest_folder(folder: Path, data: Meshes, camera: CameraOptions = CAMERA) -> StageFolder:
    """The folder of a stage that renders meshes, as the plan writes it."""
    data.manifest().save(folder / "manifest.jsonl")
    record = {"stage": "ingest", "id": "0", "recipe": "", "upstream": {}, "config": {}, "n_chunks": 1}
    write_json(folder / "stage.json", record)
    return StageFolder(folder, "ingest", "0", {}, SimpleNamespace(data=data, camera=camera))  # type: ignore[arg-type]


def options(blender: str, **values: Any) -> Blender:
    """Options for small, noisy images; `values` are further options."""
    return Blender(resolution=SIZE, samples=2, python=blender, **values)
