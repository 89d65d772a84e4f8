"""Meshes from folders, rendered by Blender's Cycles on the CPU."""

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
from z1g.data.manifest import ObjectEntry, int_hash
from z1g.data.shards import RenderedObject
from z1g.data.sources import DataSource, Rejected
from z1g.meshes import blender, files
from z1g.meshes.options import BlenderOptions


class Meshes(DataSource):
    """Mesh files (.obj .glb .gltf .ply .stl .fbx), each moved to the origin and scaled into the sphere of radius 0.5.

    A rendered object's `info` has source, sha256 (of the mesh file), n_triangles, normalisation (centre, scale, up_axis
    as `z1g/blender/render_views.py` defines them), renderer, and licences (names of the licence files beside the mesh).
    """

    kind: Literal["meshes"] = "meshes"
    paths: tuple[str, ...] = Field(
        ("workflow/objects",),
        min_length=1,
        description="folders (searched through), globs or mesh files, relative to the current folder",
    )
    blender: BlenderOptions = BlenderOptions()

    def list_objects(self) -> list[ObjectEntry]:
        """All mesh files below `paths`, sorted by id. Raises UserError where a path gives none."""
        return files.find_meshes(self.paths)

    def ingest(
        self, objects: Sequence[ObjectEntry], camera: CameraOptions, scratch: Path, threads: int
    ) -> Iterator[RenderedObject | Rejected]:
        """Render the objects in one Blender process after the other. Raises UserError where there is no Blender."""
        problems = {entry.id: files.problem(Path(entry.source)) for entry in objects}
        poses = {entry.id: camera.poses(int_hash(entry.id)) for entry in objects}
        jobs = [_job(entry, poses[entry.id]) for entry in objects if problems[entry.id] is None]
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


def _job(entry: ObjectEntry, c2w: NDArray[np.float64]) -> dict[str, Any]:
    """One object of the job file."""
    path = str(Path(entry.source).absolute())
    return {"id": entry.id, "path": path, "cameras": to_blender(c2w).tolist()}


def _collect(entry: ObjectEntry, c2w: NDArray[np.float64], fov_y_deg: float, folder: Path) -> RenderedObject | Rejected:
    """What Blender left in an object's folder."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if result["reason"] is not None:
        return Rejected(entry.id, result["reason"])
    rgba = np.stack([np.asarray(Image.open(folder / f"{view:03d}.png")) for view in range(len(c2w))])
    if not rgba[..., 3].any():
        return Rejected(entry.id, "every view came out empty: the materials are fully transparent")
    source = Path(entry.source)
    info = {
        "source": entry.source,
        "sha256": files.sha256(source),
        "n_triangles": result["n_triangles"],
        "normalisation": result["normalisation"],
        "renderer": result["renderer"],
        "licences": files.licences(source),
    }
    depth = np.load(folder / "depth.npy", allow_pickle=False)
    return RenderedObject(entry.id, c2w, fov_y_deg, rgba, depth, info)
