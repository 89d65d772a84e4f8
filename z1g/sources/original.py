"""The original's own renders, as they lie on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from z1g.core.errors import UserError
from z1g.core.needs import require_folder
from z1g.data.manifest import ObjectEntry, unique_ids
from z1g.data.shards import BrokenObject, Rejected, RenderedObject
from z1g.geometry.camera import CameraOptions, from_original_orbit
from z1g.sources import _original_files as _original_files
from z1g.sources.base import DataSource, Ingested

if TYPE_CHECKING:
    from torch import Tensor


class Original(DataSource):
    """Folders of `NNN.png` (RGBA) and `NNN.npy` (elevation, azimuth, radius): view 0 condition, 1-6 inputs, then free.

    The views are where the files say. There is no depth, so fits start from silhouettes or LGM, unless `splats` has the
    original's own fits: then nothing is fitted.

    The original divided quaternions by a norm over all Gaussians, so its files hold ones that are nearly zero, and its
    rasterizer did not normalize them. `as_drawn` turns them into unit quaternions that look as they did there.
    """

    kind: Literal["original"] = "original"
    renders: str = Field("data/renders", description="folder with one folder a scene")
    splats: str | None = Field(
        None, description="folder with the scenes' fitted splats (eval_pred_gs_*_es); null: fit them here"
    )
    rotations: Literal["as_drawn", "as_written"] = Field(
        "as_drawn",
        description="of `splats`: as_drawn: unit quaternions that look the same; as_written: the files' numbers",
    )

    def check(self) -> None:
        require_folder("renders", self.renders, "give the folder with one folder a scene")
        if self.splats is not None:
            require_folder("splats", self.splats, "null fits splats here")

    def list_objects(self) -> list[ObjectEntry]:
        root = Path(self.renders)
        if not root.is_dir():
            raise UserError(f"data.renders: {root} is no folder (looked from {Path.cwd()})")
        folders = sorted(path for path in root.iterdir() if (path / "000.png").is_file())
        if not folders:
            raise UserError(f"data.renders: no folder in {root} holds a 000.png")
        if self.splats is not None and not Path(self.splats).is_dir():
            raise UserError(f"data.splats: {self.splats} is no folder (looked from {Path.cwd()})")
        ids = unique_ids([folder.name for folder in folders])
        return [ObjectEntry(name, folder.as_posix()) for name, folder in zip(ids, folders, strict=True)]

    def given_splats(self, entry: ObjectEntry, size: int) -> Tensor:
        """The original's fit of an object, [6,14,size,size]. Raises BrokenObject where it is not there or not whole."""
        from z1g.sources._original_splats import read_splats

        assert self.splats is not None
        return read_splats(Path(self.splats), Path(entry.source).name, size, self.rotations)

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
    angles = [_original_files.read_angles(folder / f"{view:03d}.npy") for view in range(n_views)]
    c2w = np.stack([from_original_orbit(a["elevation"], a["azimuth"], a["radius"], camera.radius) for a in angles])
    images = [_original_files.read_image(folder / f"{view:03d}.png") for view in range(n_views)]
    if len({image.shape for image in images}) != 1:
        raise BrokenObject(f"the images in {folder} have different sizes")
    return RenderedObject(entry.id, c2w, camera.fov_y_deg, np.stack(images), None, {"source": entry.source})
