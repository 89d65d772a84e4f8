"""Notebooks of the documentation run, with the model of the package, and what they show is what they say."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image
from plyfile import PlyData
from support.paths import ROOT

FOLDER = ROOT / "docs/notebooks"
STEPS = 3
Outputs = list[tuple[str, str, Any]]


def outputs(notebook: nbformat.NotebookNode) -> list[Outputs]:
    """What each cell of code puts out: its kind, its type, and its content, an image or a text."""
    found: list[Outputs] = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found.append([_output(output) for output in cell.outputs])
    return found


def _output(output: nbformat.NotebookNode) -> tuple[str, str, Any]:
    if output.output_type == "stream":
        return "stream", output.name, output.text
    for kind in ("image/png", "image/webp"):
        if kind in output.data:
            return output.output_type, kind, Image.open(io.BytesIO(base64.b64decode(output.data[kind])))
    return output.output_type, "text/plain", output.data["text/plain"]


def form(found: list[Outputs]) -> list[list[tuple[str, str, Any]]]:
    """Outputs without what steps of sampling change: sizes of images, texts without their numbers."""
    return [
        [(a, b, x.size if isinstance(x, Image.Image) else re.sub(r"[\d.]+", "#", x)) for a, b, x in cell]
        for cell in found
    ]


@pytest.fixture(scope="module")
def stored() -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / "first_steps.ipynb", as_version=4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory, stored: nbformat.NotebookNode) -> tuple[list[Outputs], Path]:
    """Outputs of all cells with few steps of sampling, and the folder in which they ran."""
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copy(FOLDER / "ball.png", folder)
    notebook = nbformat.from_dict(stored)
    (first,) = [cell for cell in notebook.cells if "steps = 12" in cell.source]
    first.source = first.source.replace("steps = 12", f"steps = {STEPS}")
    place = {"metadata": {"path": str(folder)}}
    with pytest.MonkeyPatch.context() as patch:
        # Not the history and the connections of whoever runs the tests.
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    return outputs(notebook), folder


def ink(image: Image.Image) -> np.ndarray:
    """Where an image on white shows something, [H,W]."""
    return np.asarray(image.convert("RGB")).min(axis=2) < 200


@pytest.mark.slow
def test_the_splats_are_the_object_of_the_photograph(executed: tuple[list[Outputs], Path]) -> None:
    """Read by another reader of .ply files: inside the sphere around the origin, visible, with the ball's color."""
    cells, folder = executed
    vertices = PlyData.read(folder / "splats/ball.ply")["vertex"]
    ((_, _, text),) = cells[2]
    total, visible = (int(word) for word in re.findall(r"\d+", text))
    assert total == len(vertices)
    opacity = 1 / (1 + np.exp(-np.asarray(vertices["opacity"])))
    assert visible == (opacity >= 1 / 255).sum() > 1000
    solid = opacity > 0.5
    centers = np.stack([vertices[axis][solid] for axis in "xyz"], 1)
    assert np.linalg.norm(centers, axis=1).max() < 0.7
    assert np.abs(centers.mean(0)).max() < 0.1
    # The first coefficient of spherical harmonics is (color - 0.5) / 0.2821.
    red, green, blue = (0.5 + 0.28209479 * np.median(vertices[f"f_dc_{i}"][solid]) for i in range(3))
    assert red > 1.3 * green > 1.3 * 1.3 * blue, "an orange ball"


@pytest.mark.slow
def test_the_pictures_show_the_ball(executed: tuple[list[Outputs], Path]) -> None:
    """In front and behind with the photograph's outline; from every side as high and in the middle of the picture."""
    cells, _ = executed
    ((_, _, photograph),), ((_, _, row),) = cells[1], cells[4]
    views = [row.crop((192 * i, 0, 192 * (i + 1), 192)) for i in range(4)]
    outline = photograph.getchannel("A").point(lambda a: 255 * (a > 127))
    expected = np.asarray(outline.crop(outline.getbbox()).resize((128, 128))) > 127
    heights = []
    for i, view in enumerate(views):
        shown = Image.fromarray(ink(view)).convert("L")
        box = shown.getbbox()
        assert box is not None
        heights.append(box[3] - box[1])
        assert abs(box[0] + box[2] - 192) < 40
        if i % 2 == 0:
            found = np.asarray(shown.crop(box).resize((128, 128))) > 127
            assert (found & expected).sum() / (found | expected).sum() > 0.85
    assert 60 < max(heights) < 1.3 * min(heights)
    assert len({view.tobytes() for view in views}) == 4


@pytest.mark.slow
def test_the_film_turns(executed: tuple[list[Outputs], Path]) -> None:
    cells, folder = executed
    with Image.open(folder / "splats/ball.webp") as film:
        assert (film.n_frames, film.size) == (30, (128, 128))
        first = np.asarray(film.convert("RGB")).astype(float)
        film.seek(15)
        assert np.abs(np.asarray(film.convert("RGB")) - first).mean() > 1
    ((_, kind, shown),) = cells[5]
    assert (kind, shown.n_frames) == ("image/webp", 30)


@pytest.mark.slow
def test_files_and_colors(executed: tuple[list[Outputs], Path]) -> None:
    cells, folder = executed
    assert (folder / "splats/ball.spz").stat().st_size < 0.3 * (folder / "splats/ball.ply").stat().st_size
    ((_, _, blue),) = cells[7]
    red, _, other = np.asarray(blue.convert("RGB"))[ink(blue)].mean(0)
    assert other > 1.2 * red


@pytest.mark.slow
def test_stored_outputs_are_those_of_the_code(
    executed: tuple[list[Outputs], Path], stored: nbformat.NotebookNode
) -> None:
    """Numbers and pixels differ with the steps and the machine; their kinds, texts and sizes do not."""
    assert form(outputs(stored)) == form(executed[0])


def test_the_notebook_is_valid_small_and_run_in_order(stored: nbformat.NotebookNode) -> None:
    nbformat.validate(stored)
    assert (FOLDER / "first_steps.ipynb").stat().st_size < 500_000
    counts = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert "stderr" not in {name for cell in outputs(stored) for _, name, _ in cell}
