"""Sheet and film of a sample: what their cells and frames show, and errors while they are made side by side."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.gaussians import gaussians

from z1g.geometry.camera import CameraOptions, Cameras
from z1g.inference.outputs import ELEVATION_DEG, SampleWriter
from z1g.render import Rasterizer
from z1g.render.base import Conventions, RenderOutput

FRAMES, SIDE = 10, 32
RADIUS = CameraOptions().radius
BLURRED = 0.06
"""Error of positions that are read from a film's colors."""


class Positions(Rasterizer):
    """Draws the camera's position: each coordinate in ±2·radius is a color."""

    kind: Literal["positions"] = "positions"

    def conventions(self) -> Conventions:
        return Conventions()

    def render(self, gaussians: torch.Tensor, cameras: Cameras) -> RenderOutput:
        colors = 0.5 + cameras.c2w[..., :3, 3] / (4 * RADIUS)
        rgb = colors[..., None, None].expand(*colors.shape, cameras.height, cameras.width)
        return RenderOutput(rgb, torch.ones_like(rgb[:, :, :1]), torch.ones_like(rgb[:, :, :1]))


class Failing(Positions):
    """Cannot draw calls of six images, or of others."""

    six: bool

    def render(self, gaussians: torch.Tensor, cameras: Cameras) -> RenderOutput:
        if (cameras.c2w.shape[1] == 6) == self.six:
            raise RuntimeError("cannot draw")
        return super().render(gaussians, cameras)


def written(folder: Path, rasterizer: Rasterizer) -> dict[str, str]:
    writer = SampleWriter(folder, CameraOptions(), rasterizer, SIDE, FRAMES, 1.0, ".webp")
    return writer.write("a", gaussians()[None])[0]


def positions(image: Image.Image) -> NDArray[np.float64]:
    """Camera positions [rows,columns,3] at the centers of an image's squares of SIDE pixels."""
    return (np.asarray(image.convert("RGB"))[SIDE // 2 :: SIDE, SIDE // 2 :: SIDE] / 255 - 0.5) * 4 * RADIUS


def test_the_sheet_shows_the_six_inputs_and_the_film_a_circle_in_order(tmp_path: Path) -> None:
    files = written(tmp_path, Positions())
    assert files == {"splats": "a.ply", "sheet": "a.sheet.png", "turntable": "a.turntable.webp"}
    assert {file.name for file in tmp_path.iterdir()} == set(files.values()), "no temporary files"
    sheet = positions(Image.open(tmp_path / "a.sheet.png")).reshape(6, 3)
    np.testing.assert_allclose(sheet[0], [0, 0, RADIUS], atol=0.02)  # the frame of the first view
    np.testing.assert_allclose(np.linalg.norm(sheet, axis=1), RADIUS, atol=0.03)
    # Zero123++: azimuths 30 to 330 in steps of 60 degrees, elevations 30 and -20 in turns.
    up = np.radians([30, -20, 30, -20, 30, -20])
    cosine = np.sin(up[0]) * np.sin(up) + np.cos(up[0]) * np.cos(up) * np.cos(np.radians(60 * np.arange(6)))
    np.testing.assert_allclose(sheet @ sheet[0] / RADIUS**2, cosine, atol=0.03)
    with Image.open(tmp_path / "a.turntable.webp") as film:
        circle = np.concatenate([positions(frame(film, i))[0] for i in range(film.n_frames)])
    assert len(circle) == FRAMES
    chord = 2 * RADIUS * math.cos(math.radians(ELEVATION_DEG)) * np.sin(np.pi * np.arange(FRAMES) / FRAMES)
    np.testing.assert_allclose(np.linalg.norm(circle - circle[0], axis=1), chord, atol=BLURRED)


def frame(film: Image.Image, i: int) -> Image.Image:
    film.seek(i)
    return film


@pytest.mark.parametrize("six", [True, False], ids=["sheet", "film"])
def test_an_error_in_either_is_raised_and_leaves_no_temporary_file(tmp_path: Path, six: bool) -> None:
    with pytest.raises(RuntimeError, match="cannot draw"):
        written(tmp_path, Failing(six=six))
    made = "a.turntable.webp" if six else "a.sheet.png"
    assert {file.name for file in tmp_path.iterdir()} == {"a.ply", made}
