"""G-buffer Objaverse, a data set of 280,000 objects with 40 views each, in its own layout on disk."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.core.names import counted
from z1g.core.needs import require_file, require_folder
from z1g.data.manifest import ObjectEntry, unique_ids
from z1g.data.shards import BrokenObject, RenderedObject
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, orbit_c2w
from z1g.sources._g_objaverse_files import View, read_depth, read_view
from z1g.sources._original_files import read_image
from z1g.sources.base import DataSource, Ingested, read_each

RENDERS = "campos_512_v4"


class GObjaverse(DataSource):
    """Folders `root/<dictionary>/<instance>/campos_512_v4/NNNNN/` with `NNNNN.json`, `.png` and `_nd.exr`.

    View 00000 is the condition view; the input views are those nearest to the layout of `camera.layout`, relative to
    it; the others are free views in random order. Poses and depth are scaled so that input view 1 is at distance
    `camera.radius`. Objects of this data set fill the unit cube, so some extend beyond the sphere of radius 0.5.
    """

    kind: Literal["g_objaverse"] = "g_objaverse"
    root: str = Field("data/gobjaverse", description="folder of the data set")
    index: str | None = Field(
        None, description="JSON list of `<dictionary>/<instance>`, like the data set's own; null: search the folder"
    )

    def check(self) -> None:
        require_folder("root", self.root, "give the data set's folder")
        if self.index is not None:
            require_file("index", self.index, "null searches the folder")

    def list_objects(self) -> list[ObjectEntry]:
        root = Path(self.root)
        if not root.is_dir():
            raise UserError(f"data.root: {root} is not a folder (current folder: {Path.cwd()})")
        names = self._names(root) if self.index is None else self._indexed(Path(self.index))
        if not names:
            raise UserError(f"data.root: {root} has no <dictionary>/<instance>/{RENDERS}")
        return [ObjectEntry(i, (root / name).as_posix()) for i, name in zip(unique_ids(names), names, strict=True)]

    def _names(self, root: Path) -> list[str]:
        return sorted(path.parent.relative_to(root).as_posix() for path in root.glob(f"*/*/{RENDERS}"))

    def _indexed(self, path: Path) -> list[str]:
        try:
            names = read_json(path)
        except (OSError, ValueError) as error:
            raise UserError(f"data.index: {path} cannot be read as JSON: {error}") from error
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"data.index: {path} is not a list of strings such as 0/10010")
        return sorted(set(names))

    def ingest(
        self, objects: Sequence[ObjectEntry], camera: CameraOptions, scratch: Path, threads: int
    ) -> Iterator[Ingested]:
        return read_each(objects, partial(_read, camera=camera))


def _read(entry: ObjectEntry, camera: CameraOptions) -> RenderedObject:
    folder = Path(entry.source) / RENDERS
    views = _in_order([read_view(path) for path in sorted(folder.glob("[0-9]*"))], entry, camera)
    images = [read_image(view.file(".png")) for view in views]
    depth = [read_depth(views[i]) for i in INPUT_VIEWS]
    if len({image.shape[:2] for image in images} | {distance.shape for distance in depth}) != 1:
        raise BrokenObject(f"the images in {folder} have different sizes")
    if len({round(view.fov_y_deg, 3) for view in views}) != 1:
        raise BrokenObject(f"the cameras in {folder} have different fields of view")
    scale = camera.radius / float(np.linalg.norm(views[INPUT_VIEWS[0]].c2w[:3, 3]))
    c2w = np.stack([view.c2w for view in views])
    c2w[:, :3, 3] *= scale
    info = {"source": entry.source, "scale": scale}
    distances = np.stack(depth) * np.float32(scale)
    return RenderedObject(entry.id, c2w, views[0].fov_y_deg, np.stack(images), distances, info)


def _in_order(views: list[View], entry: ObjectEntry, camera: CameraOptions) -> list[View]:
    """Condition view, input views, free views. Raises BrokenObject if there are too few."""
    if len(views) < camera.n_views:
        raise BrokenObject(
            f"{entry.source} has {counted(len(views), 'view')}, but the configuration has {camera.n_views} "
            "(camera.*_views)"
        )
    condition, *remaining = views
    x, _, z = condition.direction
    condition_azimuth = float(np.degrees(np.arctan2(x, z)))
    chosen = [condition]
    for elevation, azimuth in camera.input_angles:
        direction = orbit_c2w(elevation, condition_azimuth + azimuth, 1.0)[:3, 3]
        chosen.append(remaining.pop(int(np.argmax([view.direction @ direction for view in remaining]))))
    order = np.random.default_rng([camera.seed, entry.seed]).permutation(len(remaining))
    return chosen + [remaining[i] for i in order[: camera.n_views - len(chosen)]]
