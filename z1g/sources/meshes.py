"""Meshes from folders, archives and lists, rendered by Blender."""

import contextlib
import glob
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from z1g.core.needs import Missing
from z1g.core.slots import Runtime
from z1g.data.manifest import INSIDE, ObjectEntry, as_row
from z1g.data.shards import Rejected, RenderedObject
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, to_blender
from z1g.meshes.executable import find_blender
from z1g.meshes.files import licenses, prepare, readable
from z1g.meshes.limits import FileLimits
from z1g.meshes.listing import find_objects
from z1g.meshes.options import BlenderOptions
from z1g.meshes.pool import Drawn, Task, draw
from z1g.meshes.share import Share, share_out
from z1g.sources.base import DataSource, Ingested

INFO = ("source", "content", "name", "category", "creator", "license")


class Meshes(DataSource):
    """Mesh files, each centered at the origin and scaled into the sphere of radius 0.5.

    The `info` of a rendered object has source, n_triangles, normalization (center, scale, up_axis as defined in
    `z1g/meshes/blender/geometry.py`), renderer, licenses (names of the license files in the mesh's folder), and the
    manifest's content, name, category, creator and license.
    """

    kind: Literal["meshes"] = "meshes"
    paths: tuple[str, ...] = Field(
        ("workflow/objects",),
        min_length=1,
        description="folders (searched recursively), globs, mesh files, archives (.zip .sh3f, or one "
        "`file.zip!/member`) or lists of these (.csv .jsonl), relative to the current folder",
    )
    roots: Annotated[tuple[str, ...], Runtime()] = Field(
        (),
        description="further folders from which meshes may read materials, buffers and images; without them, they read "
        "only from their own folder, their archive and the folders in `paths`",
    )
    limits: FileLimits = FileLimits()
    blender: BlenderOptions = BlenderOptions()

    def check(self) -> None:
        absent = [text for text in self.paths if not glob.has_magic(text) and not Path(text.split(INSIDE)[0]).exists()]
        if absent:
            raise Missing("paths", f"{', '.join(absent)}: no such file or folder (looked from {Path.cwd()})")
        if absent := [text for text in self.roots if not Path(text).is_dir()]:
            raise Missing("roots", f"{', '.join(absent)}: no such folder (looked from {Path.cwd()})")

    def list_objects(self) -> list[ObjectEntry]:
        """All meshes at `paths`, sorted by id. Raises UserError if a path has none."""
        return find_objects(self.paths, self.limits, self.roots)

    def ingest(
        self, objects: Sequence[ObjectEntry], camera: CameraOptions, scratch: Path, threads: int
    ) -> Iterator[Ingested]:
        """Render the objects in a pool of Blender processes. Raises UserError if Blender rejects the options."""
        share = share_out(self.blender, threads, len(objects), camera.n_views)
        settings, command = self._settings(camera, share), find_blender(self.blender.python)
        tasks = (_task(entry, camera, self.limits, self.roots) for entry in objects)
        with contextlib.closing(draw(command, settings, tasks, scratch, self.blender, share.processes)) as outcomes:
            for entry, outcome in zip(objects, outcomes, strict=True):
                if isinstance(outcome, Rejected):
                    yield Ingested(outcome)
                    continue
                yield Ingested(_collect(entry, camera, outcome), outcome.result["seconds"])
                shutil.rmtree(outcome.folder)

    def _settings(self, camera: CameraOptions, share: Share) -> dict[str, Any]:
        copied = ("resolution", "samples", "engine", "device", "normals")
        return {
            **{name: getattr(self.blender, name) for name in copied},
            "lighting": asdict(self.blender.lighting.light()),
            "threads": share.threads,
            "memory_mb": share.memory_mb,
            "cores": sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [],
            "fov_y_deg": camera.fov_y_deg,
            "depth_views": list(INPUT_VIEWS),
        }


def _task(entry: ObjectEntry, camera: CameraOptions, limits: FileLimits, roots: Sequence[str]) -> Task:
    prepared, poses = partial(prepare, entry, limits=limits, roots=roots), to_blender(camera.poses(entry.seed))
    return Task(entry.id, prepared, poses.tolist(), partial(readable, entry, roots=roots))


def _collect(entry: ObjectEntry, camera: CameraOptions, drawn: Drawn) -> RenderedObject | Rejected:
    """Load the results of Blender from an object's folder."""
    if drawn.result["reason"] is not None:
        return Rejected(entry.id, drawn.result["reason"])
    c2w = camera.poses(entry.seed)
    rgba = np.stack([np.asarray(Image.open(drawn.folder / f"{view:03d}.png")) for view in range(len(c2w))])
    if not rgba[..., 3].any():
        return Rejected(entry.id, "blank: every view is empty; the materials are transparent or no face has an area")
    entry_info = {name: value for name, value in as_row(entry).items() if name in INFO}
    info = {
        **entry_info,
        **{name: drawn.result[name] for name in ("n_triangles", "normalization", "renderer")},
        "licenses": licenses(entry),
    }
    depth = np.load(drawn.folder / "depth.npy", allow_pickle=False)
    file = drawn.folder / "normals.npy"
    normals = np.load(file, allow_pickle=False) if file.is_file() else None
    return RenderedObject(entry.id, c2w, camera.fov_y_deg, rgba, depth, info, normals)
