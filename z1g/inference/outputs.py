"""Output files of one sample: splats, an image of six views, a turntable video."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from z1g.core.files import atomic_file
from z1g.core.progress import Check, no_check
from z1g.gaussians import files
from z1g.gaussians.affine import transform
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, Cameras, view_frame
from z1g.render import Rasterizer
from z1g.render.images import mosaic_image, save_png, to_bytes, turntable_cameras
from z1g.render.video import save_frames

ELEVATION_DEG = 20.0
CAMERAS_AT_ONCE = 8
"""Frames rendered at once, which limits GPU memory."""


def in_world(gaussians: Tensor, camera: CameraOptions) -> Tensor:
    """Gaussians [N,14] of the view-1 frame in the y-up world, float32 on the CPU."""
    to_world = np.linalg.inv(view_frame(camera.poses(0), camera.radius)).astype(np.float64)
    return transform(gaussians.double().cpu(), to_world).float()


class SampleWriter:
    """Writes `name.ply`, `name.sheet.png` and `name.turntable.*` of objects.

    size: side of the views in the sheet and of the turntable, pixels. ending: `.webp` or `.mp4`, of the turntable.
    check: called before every few frames of it, in another thread.
    """

    def __init__(
        self, folder: Path, camera: CameraOptions, rasterizer: Rasterizer, size: int, frames: int, seconds: float,
        ending: str, check: Check = no_check,
    ) -> None:  # fmt: skip
        self.check = check
        self.folder, self.rasterizer, self.ending, self.seconds = folder, rasterizer, ending, seconds
        poses = camera.poses(0)
        to_frame = view_frame(poses, camera.radius)
        self.camera = camera
        inputs = torch.from_numpy((to_frame @ poses)[list(INPUT_VIEWS)]).float()[None]
        self.inputs = Cameras(inputs, camera.fov_y_deg, size, size)
        self.circle = turntable_cameras(to_frame, self.inputs, frames, ELEVATION_DEG)

    def write(self, name: str, gaussians: Tensor) -> tuple[dict[str, str], Tensor]:
        """Write files of an object [1,N,14] in the view-1 frame; returns names by kind, and Gaussians [N,14] y-up."""
        world = in_world(gaussians[0], self.camera)
        names = {
            "splats": f"{name}.ply",
            "sheet": f"{name}.sheet.png",
            "turntable": f"{name}.turntable{self.ending}",
        }
        files.write(self.folder / names["splats"], world)
        # The film is encoded by another process.
        with ThreadPoolExecutor(1) as pool:
            film = pool.submit(self._film, self.folder / names["turntable"], gaussians)
            self._sheet(self.folder / names["sheet"], gaussians)
            film.result()
        return names, world

    def _sheet(self, file: Path, gaussians: Tensor) -> None:
        with atomic_file(file) as temporary:
            save_png(mosaic_image(self.rasterizer, gaussians, self.inputs.to(gaussians.device)), temporary)

    def _film(self, file: Path, gaussians: Tensor) -> None:
        save_frames(self._frames(gaussians), file, round(1000 * self.seconds / self.circle.c2w.shape[1]))

    @torch.no_grad()
    def _frames(self, gaussians: Tensor) -> Iterator[NDArray[np.uint8]]:
        """Frames [H,W,3] of the turntable on white."""
        circle = self.circle.to(gaussians.device)
        for ids in torch.arange(circle.c2w.shape[1]).split(CAMERAS_AT_ONCE):
            self.check()
            images = self.rasterizer.render(gaussians, circle.views(ids)).over(1.0)[0]
            yield from (to_bytes(image) for image in images)
