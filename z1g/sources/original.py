"""The original's renders in their layout on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from z1g.core.errors import UserError
from z1g.core.names import counted
from z1g.core.needs import require_folder
from z1g.data.manifest import ObjectEntry, unique_ids
from z1g.data.shards import BrokenObject, RenderedObject
from z1g.geometry.camera import CameraOptions, from_original_orbit
from z1g.sources import _original_files as _original_files
from z1g.sources.base import DataSource, Ingested, read_each

if TYPE_CHECKING:
    from torch import Tensor


class Original(DataSource):
    """Folders of `NNN.png` (RGBA) and `NNN.npy` (elevation, azimuth, radius): view 0 condition, 1-6 inputs, then free.

    Poses are read from the files. There is no depth, so fits start from silhouettes or LGM; with `splats`, the
    original's own fits are used and nothing is fitted.

    The original divided quaternions by a norm over all Gaussians, so its files have quaternions that are nearly zero,
    which its rasterizer did not normalize. `as_drawn` converts them to the unit quaternions with the same appearance.
    """

    kind: Literal["original"] = "original"
    renders: str = Field("data/renders", description="folder with one subfolder per scene")
    splats: str | None = Field(
        None, description="folder with the scenes' fitted splats (eval_pred_gs_*_es); null: fit them"
    )
    rotations: Literal["as_drawn", "as_written"] = Field(
        "as_drawn",
        description="quaternions of `splats`: as_drawn: unit quaternions with the same appearance; as_written: values "
        "of the files",
    )

    def check(self) -> None:
        require_folder("renders", self.renders, "give the folder with one folder a scene")
        if self.splats is not None:
            require_folder("splats", self.splats, "null fits splats here")

    def list_objects(self) -> list[ObjectEntry]:
        root = Path(self.renders)
        if not root.is_dir():
            raise UserError(f"data.renders: {root} is not a folder (current folder: {Path.cwd()})")
        folders = sorted(path for path in root.iterdir() if (path / "000.png").is_file())
        if not folders:
            raise UserError(f"data.renders: no subfolder of {root} has a 000.png")
        if self.splats is not None and not Path(self.splats).is_dir():
            raise UserError(f"data.splats: {self.splats} is not a folder (current folder: {Path.cwd()})")
        ids = unique_ids([folder.name for folder in folders])
        return [ObjectEntry(name, folder.as_posix()) for name, folder in zip(ids, folders, strict=True)]

    def given_splats(self, entry: ObjectEntry, size: int) -> Tensor:
        """The original's fit of an object, [6,14,size,size]. Raises BrokenObject if it is missing or incomplete."""
        from z1g.sources._original_splats import read_splats

        assert self.splats is not None
        return read_splats(Path(self.splats), Path(entry.source).name, size, self.rotations)

    def ingest(
        self, objects: Sequence[ObjectEntry], camera: CameraOptions, scratch: Path, threads: int
    ) -> Iterator[Ingested]:
        return read_each(objects, partial(_read, camera=camera))


def _read(entry: ObjectEntry, camera: CameraOptions) -> RenderedObject:
    folder, n_views = Path(entry.source), camera.n_views
    available = sum(1 for file in folder.glob("[0-9][0-9][0-9].png"))
    if available < n_views:
        raise BrokenObject(
            f"{folder} has {counted(available, 'view')}, but the configuration has {n_views} (camera.*_views)"
        )
    angles = [_original_files.read_angles(folder / f"{view:03d}.npy") for view in range(n_views)]
    c2w = np.stack(
        [
            from_original_orbit(view_angles["elevation"], view_angles["azimuth"], view_angles["radius"], camera.radius)
            for view_angles in angles
        ]
    )
    images = [_original_files.read_image(folder / f"{view:03d}.png") for view in range(n_views)]
    if len({image.shape for image in images}) != 1:
        raise BrokenObject(f"the images in {folder} have different sizes")
    return RenderedObject(entry.id, c2w, camera.fov_y_deg, np.stack(images), None, {"source": entry.source})
