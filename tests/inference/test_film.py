"""Films along camera paths: views against the formulas of their source, frames, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.gaussians import gaussians

from z1g.cli.main import main
from z1g.gaussians import files as splat_files
from z1g.inference.film import CameraPath, camera, one_turn

KEYFRAMES = [(0.0, 0.0, 1.0), (90.0, 60.0, 2.0), (400.0, 85.0, 0.5), (380.0, -20.0, 1.0)]


def document(keyframes: list[tuple[float, float, float]], **changes: Any) -> dict[str, Any]:
    names = ("azimuth_deg", "elevation_deg", "zoom")
    listed = [dict(zip(names, keyframe, strict=True)) for keyframe in keyframes]
    return {"kind": "camera path", "version": 1, "seconds": 2.0, "keyframes": listed} | changes


def saved(folder: Path, content: Any) -> Path:
    file = folder / "a.path.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_views_are_catmull_s_and_rom_s_spline(tmp_path: Path) -> None:
    """The basis matrix of Catmull and Rom in each segment; an end is repeated so that it has no tangent."""
    n = 31
    views = np.array(CameraPath.read(saved(tmp_path, document(KEYFRAMES))).views(n))
    basis = 0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])
    points = np.array([(a, e, np.log(z)) for a, e, z in KEYFRAMES])
    for i in range(n):
        at = min(int(i / 10), 2)
        t = i / 10 - at
        # Before the first keyframe lies the second, and after the last the last but one: the tangents there are zero.
        before = points[at - 1] if at else points[1]
        after = points[at + 2] if at < 2 else points[2]
        expected = np.array([1, t, t**2, t**3]) @ basis @ np.stack([before, points[at], points[at + 1], after])
        expected[1] = np.clip(expected[1], -np.degrees(1.5), np.degrees(1.5))
        np.testing.assert_allclose(views[i], [*expected[:2], np.exp(expected[2])], atol=1e-9)


def test_a_zoom_is_a_factor_on_the_focal_length() -> None:
    near, far = (camera((0, 0, zoom), 64) for zoom in (2.0, 1.0))
    assert near.focal == pytest.approx(2 * far.focal)
    np.testing.assert_allclose(far.c2w[0, 0, :3, 3], [0, 0, 1.5], atol=1e-7)


def test_one_turn_closes() -> None:
    azimuths = [azimuth for azimuth, _, _ in one_turn()]
    np.testing.assert_allclose(np.diff([*azimuths, 360]), 360 / len(azimuths))


def test_a_film_shows_files_side_by_side(tmp_path: Path) -> None:
    colors = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    for name, color in zip("ab", colors, strict=True):
        x = gaussians(30)
        x[:, 3], x[:, 4:7], x[:, 11:] = 0.99, 0.2, torch.tensor(color)
        splat_files.write(tmp_path / f"{name}.ply", x)
    path = saved(tmp_path, document([(0, 0, 1), (40, 10, 1.5)], seconds=0.25))
    files = [str(tmp_path / f"{name}.ply") for name in "ab"]
    assert main(["film", *files, "--path", str(path), "--size", "32", "--out", str(tmp_path / "f.webp")]) == 0
    with Image.open(tmp_path / "f.webp") as film:
        assert (film.size, film.n_frames) == ((64, 32), 6)
        film.seek(1)
        film.load()
        assert film.info["duration"] == 42
        middle = [film.convert("RGB").getpixel((x, 16)) for x in (16, 48)]
    for found, color in zip(middle, colors, strict=True):
        np.testing.assert_allclose(np.array(found) / 255, color, atol=0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "a.path.json is no camera path: Invalid JSON"),
        ("[" * 100_000, "a.path.json is no camera path"),
        (document(KEYFRAMES[:1]), "keyframes: List should have at least 2 items"),
        (document(KEYFRAMES, version=2), "version: Input should be 1"),
        (document(KEYFRAMES, seconds=float("nan")), "is no camera path"),
        (document([(0, 0, 0), (0, 0, 1)]), "keyframes.0.zoom"),
        (document(KEYFRAMES, run="x"), "run: Extra inputs"),
        (None, "cannot be read"),
    ],
)
def test_paths_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, message: str
) -> None:
    splat_files.write(tmp_path / "a.ply", gaussians(20))
    path = tmp_path / "gone.json" if content is None else saved(tmp_path, content)
    assert main(["film", str(tmp_path / "a.ply"), "--path", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.film.*"))


def test_other_formats_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["film", str(tmp_path / "a.ply"), "--out", str(tmp_path / "a.gif")]) == 2
    assert "films are written as .mp4 or .webp" in capsys.readouterr().err
