"""The original's own renders, as they lie on disk."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from z1g.camera import CameraOptions, from_seed_orbit
from z1g.data.manifest import ObjectEntry, unique_ids
from z1g.data.shards import BrokenObject, RenderedObject
from z1g.data.sources import DataSource, Ingested, Rejected, _seed_files
from z1g.errors import UserError


class Seed(DataSource):
    """Folders of `NNN.png` (RGBA) and `NNN.npy` (elevation, azimuth, radius): view 0 condition, 1-6 inputs, then free.

    The views are where the files say. There is no depth, so fits start from silhouettes or LGM.
    """

    kind: Literal["seed"] = "seed"
    renders: str = Field("data/renders", description="folder with one folder a scene")

    def list_objects(self) -> list[ObjectEntry]:
        root = Path(self.renders)
        if not root.is_dir():
            raise UserError(f"data.renders: {root} is no folder (looked from {Path.cwd()})")
        folders = sorted(path for path in root.iterdir() if (path / "000.png").is_file())
        if not folders:
            raise UserError(f"data.renders: no folder in {root} holds a 000.png")
        ids = unique_ids([folder.name for folder in folders])
        return [ObjectEntry(name, folder.as_posix()) for name, folder in zip(ids, folders, strict=True)]

    def ingest(
        self, objects: Sequence[ObjectEntry], camera: CameraOptions, scratch: Path, threads: int
    ) -> Iterator[Ingested]:
        for entry in objects:
            try:
                yield Ingested(_read(entry, camera))
            except BrokenObject as error:
                yield Ingested(Rejected(entry.id, str(error)))


def _read(entry: ObjectEntry, camera: CameraOptions) -> RenderedObject:
    folder, n_views = Path(entry.source), camera.n_views
    there = sum(1 for file in folder.glob("[0-9][0-9][0-9].png"))
    if there < n_views:
        raise BrokenObject(f"{folder} has {there} views where the configuration has {n_views} (camera.*_views)")
    angles = [_seed_files.read_angles(folder / f"{view:03d}.npy") for view in range(n_views)]
    c2w = np.stack([from_seed_orbit(a["elevation"], a["azimuth"], a["radius"], camera.radius) for a in angles])
    pictures = [_seed_files.read_picture(folder / f"{view:03d}.png") for view in range(n_views)]
    if len({picture.shape for picture in pictures}) != 1:
        raise BrokenObject(f"the pictures in {folder} have different sizes")
    return RenderedObject(entry.id, c2w, camera.fov_y_deg, np.stack(pictures), None, {"source": entry.source})
