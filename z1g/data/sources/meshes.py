"""Meshes from folders, archives and lists, rendered by Blender."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from z1g.camera import INPUT_VIEWS, CameraOptions, to_blender
from z1g.data.manifest import ObjectEntry, as_row
from z1g.data.shards import RenderedObject
from z1g.data.sources import DataSource, Rejected
from z1g.meshes import blender
from z1g.meshes.files import FileLimits, Unusable, licences, prepare
from z1g.meshes.listing import find_objects
from z1g.meshes.options import BlenderOptions

INFO = ("source", "content", "name", "category", "creator", "licence")


class Meshes(DataSource):
    """Mesh files, each moved to the origin and scaled into the sphere of radius 0.5.

    A rendered object's `info` has source, n_triangles, normalisation (centre, scale, up_axis as
    `z1g/blender/render_views.py` defines them), renderer, licences (names of the licence files beside the mesh), and
    what the manifest knows: content, name, category, creator, licence.
    """

    kind: Literal["meshes"] = "meshes"
    paths: tuple[str, ...] = Field(
        ("workflow/objects",),
        min_length=1,
        description="folders (searched through), globs, mesh files, archives (.zip .sh3f, also one `file.zip!/member`) "
        "or lists of these (.csv .jsonl), relative to the current folder",
    )
    limits: FileLimits = FileLimits()
    blender: BlenderOptions = BlenderOptions()

    def list_objects(self) -> list[ObjectEntry]:
        """All meshes behind `paths`, sorted by id. Raises UserError where a path gives none."""
        return find_objects(self.paths)

    def ingest(
        self, objects: Sequence[ObjectEntry], camera: CameraOptions, scratch: Path, threads: int
    ) -> Iterator[RenderedObject | Rejected]:
        """Render the objects in one Blender process after the other. Raises UserError where there is no Blender."""
        poses = {entry.id: camera.poses(entry.seed) for entry in objects}
        problems: dict[str, str | None] = dict.fromkeys(poses)
        jobs = []
        for entry in objects:
            try:
                path = prepare(entry, scratch / "files" / entry.id, self.limits)
                jobs.append(_job(entry, path, poses[entry.id]))
            except Unusable as error:
                problems[entry.id] = str(error)
        command = blender.find_blender(self.blender.python)
        settings = self._settings(camera, threads)
        with contextlib.closing(blender.render(command, jobs, settings, scratch, self.blender.timeout_s)) as rendered:
            for entry in objects:
                reason = problems[entry.id]
                outcome = Rejected(entry.id, reason) if reason is not None else next(rendered)
                if isinstance(outcome, Path):
                    yield _collect(entry, poses[entry.id], camera.fov_y_deg, outcome)
                    shutil.rmtree(outcome)
                else:
                    yield outcome

    def _settings(self, camera: CameraOptions, threads: int) -> dict[str, Any]:
        return {
            "resolution": self.blender.resolution,
            "samples": self.blender.samples,
            "lighting": self.blender.lighting,
            "threads": threads,
            "fov_y_deg": camera.fov_y_deg,
            "depth_views": list(INPUT_VIEWS),
        }


def _job(entry: ObjectEntry, path: Path, c2w: NDArray[np.float64]) -> dict[str, Any]:
    """One object of the job file."""
    return {"id": entry.id, "path": str(path.absolute()), "cameras": to_blender(c2w).tolist()}


def _collect(entry: ObjectEntry, c2w: NDArray[np.float64], fov_y_deg: float, folder: Path) -> RenderedObject | Rejected:
    """What Blender left in an object's folder."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if result["reason"] is not None:
        return Rejected(entry.id, result["reason"])
    rgba = np.stack([np.asarray(Image.open(folder / f"{view:03d}.png")) for view in range(len(c2w))])
    if not rgba[..., 3].any():
        return Rejected(entry.id, "every view came out empty: the materials are fully transparent")
    known = {name: value for name, value in as_row(entry).items() if name in INFO}
    info = {
        **known,
        "n_triangles": result["n_triangles"],
        "normalisation": result["normalisation"],
        "renderer": result["renderer"],
        "licences": licences(entry),
    }
    depth = np.load(folder / "depth.npy", allow_pickle=False)
    return RenderedObject(entry.id, c2w, fov_y_deg, rgba, depth, info)
