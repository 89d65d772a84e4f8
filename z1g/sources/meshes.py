"""Meshes from folders, archives and lists, rendered here."""

import contextlib
import glob
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from z1g.core.needs import Missing
from z1g.core.slots import OneOf, Runtime
from z1g.core.urls import TO_COPY, is_url
from z1g.data.manifest import INSIDE, ObjectEntry, as_row
from z1g.data.shards import EncodedObject, Rejected, RenderedObject
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions
from z1g.meshes.conversion import Converted, converted, needs_conversion, placed_as_listed
from z1g.meshes.files import Unusable, licenses, prepare, readable
from z1g.meshes.limits import FileLimits
from z1g.meshes.listing import find_objects
from z1g.meshes.pool import Drawn, Task, draw
from z1g.meshes.renderers import Raster, Renderer
from z1g.meshes.share import Share, share_out
from z1g.sources.base import DataSource, Ingested

INFO = ("source", "content", "name", "category", "creator", "license")


class MeshSource(DataSource):
    """Base of sources that render mesh files, each centered at the origin and scaled into the sphere of radius 0.5.

    The `info` of a rendered object has source, n_triangles, normalization (center, scale, up_axis as defined in
    `z1g/meshes/blender/geometry.py`), renderer, licenses (names of the license files in the mesh's folder), and the
    manifest's content, name, category, creator and license.
    """

    roots: Annotated[tuple[str, ...], Runtime()] = Field(
        (),
        description="further folders from which meshes may read materials, buffers and images; without them, they read "
        "only from their own folder, their archive and the folders in `paths`",
    )
    limits: FileLimits = FileLimits()
    renderer: Annotated[Renderer, OneOf()] = Raster()

    def check(self) -> None:
        if absent := [text for text in self.roots if not text.strip() or not Path(text).is_dir()]:
            named = ", ".join(text or "(an empty path)" for text in absent)
            raise Missing("roots", f"{named}: no such folder (looked from {Path.cwd()})")

    def ingest(
        self, objects: Sequence[ObjectEntry], camera: CameraOptions, scratch: Path, threads: int
    ) -> Iterator[Ingested]:
        """Render the objects in a pool of processes. Raises UserError if the renderer rejects the options."""
        renderer = self.renderer
        share = share_out(renderer, threads, len(objects), camera.n_views)
        settings, command = self._settings(camera, share), renderer.command()
        glbs = self._converted(objects, scratch, threads)
        tasks = (self._task(entry, camera, glbs.get(entry.id)) for entry in objects)
        with contextlib.closing(draw(command, settings, tasks, scratch, renderer, share.processes)) as outcomes:
            for entry, outcome in zip(objects, outcomes, strict=True):
                if isinstance(outcome, Rejected):
                    yield Ingested(outcome)
                    continue
                made = glbs.get(entry.id)
                if isinstance(made, Converted) and outcome.result["reason"] is None:
                    outcome = replace(outcome, result=placed_as_listed(entry, outcome.result, made))
                collect = _collect_files if isinstance(renderer, Raster) else _collect
                yield Ingested(collect(entry, camera, outcome), outcome.result["seconds"])
                shutil.rmtree(outcome.folder)

    def _settings(self, camera: CameraOptions, share: Share) -> dict[str, Any]:
        return {
            **self.renderer.settings(),
            "resolution": self.renderer.resolution,
            "normals": self.renderer.normals,
            "threads": share.threads,
            "memory_mb": share.memory_mb,
            "cores": sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [],
            "fov_y_deg": camera.fov_y_deg,
            "depth_views": list(INPUT_VIEWS),
        }

    def _converted(
        self, objects: Sequence[ObjectEntry], scratch: Path, threads: int
    ) -> dict[str, Converted | Rejected]:
        """The meshes that the renderer does not read itself, by id."""
        if not isinstance(self.renderer, Raster):
            return {}
        entries = [entry for entry in objects if needs_conversion(entry)]
        return converted(entries, self.renderer.by_blender(), self.limits, self.roots, scratch, threads)

    def _task(self, entry: ObjectEntry, camera: CameraOptions, made: Converted | Rejected | None) -> Task:
        poses = self.renderer.cameras(camera.poses(entry.seed))
        if made is not None:
            return Task(entry.id, partial(_made, made), poses)
        prepared = partial(prepare, entry, limits=self.limits, roots=self.roots)
        return Task(entry.id, prepared, poses, partial(readable, entry, roots=self.roots))


class Meshes(MeshSource):
    """Mesh files from folders, globs, archives and lists, each centered and scaled into the sphere of radius 0.5."""

    kind: Literal["meshes"] = "meshes"
    paths: tuple[str, ...] = Field(
        ("workflow/objects",),
        min_length=1,
        description="folders (searched recursively), globs, mesh files, archives (.zip .sh3f, or one "
        "`file.zip!/member`) or lists of these (.csv .jsonl), relative to the current folder",
    )

    def check(self) -> None:
        if url := next(filter(is_url, self.paths), None):
            raise Missing("paths", f"{url}: {TO_COPY}")
        absent = [text for text in self.paths if not glob.has_magic(text) and not Path(text.split(INSIDE)[0]).exists()]
        if absent:
            raise Missing("paths", f"{', '.join(absent)}: no such file or folder (looked from {Path.cwd()})")
        super().check()

    def list_objects(self) -> list[ObjectEntry]:
        """All meshes at `paths`, sorted by id. Raises UserError if a path has none."""
        return find_objects(self.paths, self.limits, self.roots)


def _made(made: Converted | Rejected, folder: Path) -> Path:
    """A converted mesh. Raises Unusable if there is none."""
    if isinstance(made, Rejected):
        raise Unusable(made.reason)
    return made.checked()


def _collect(entry: ObjectEntry, camera: CameraOptions, drawn: Drawn) -> RenderedObject | Rejected:
    """Load the results of Blender from an object's folder."""
    if drawn.result["reason"] is not None:
        return Rejected(entry.id, drawn.result["reason"])
    c2w = camera.poses(entry.seed)
    rgba = np.stack([np.asarray(Image.open(drawn.folder / f"{view:03d}.png")) for view in range(len(c2w))])
    if not rgba[..., 3].any():
        return Rejected(entry.id, "blank: every view is empty; the materials are transparent or no face has an area")
    return RenderedObject(entry.id, c2w, camera.fov_y_deg, rgba, *_surface(entry, drawn))


def _collect_files(entry: ObjectEntry, camera: CameraOptions, drawn: Drawn) -> EncodedObject | Rejected:
    """Load the results of the rasterizer, whose images are in their final form, from an object's folder."""
    if drawn.result["reason"] is not None:
        return Rejected(entry.id, drawn.result["reason"])
    c2w = camera.poses(entry.seed)
    images = tuple((drawn.folder / f"{view:03d}.png").read_bytes() for view in range(len(c2w)))
    return EncodedObject(entry.id, c2w, camera.fov_y_deg, images, *_surface(entry, drawn))


def _surface(
    entry: ObjectEntry, drawn: Drawn
) -> tuple[NDArray[np.float32], dict[str, Any], NDArray[np.float16] | None]:
    """Depth, metadata and normals of a rendered object."""
    entry_info = {name: value for name, value in as_row(entry).items() if name in INFO}
    info = {
        **entry_info,
        **{name: drawn.result[name] for name in ("n_triangles", "normalization", "renderer")},
        "licenses": licenses(entry),
    }
    depth = np.load(drawn.folder / "depth.npy", allow_pickle=False)
    file = drawn.folder / "normals.npy"
    return depth, info, np.load(file, allow_pickle=False) if file.is_file() else None
