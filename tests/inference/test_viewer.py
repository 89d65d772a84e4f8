"""The viewer: displayed Gaussians of a file, and the page in a real browser."""

import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.browser import Page, needs_chromium, open_page
from support.builders import ball_splats
from support.gaussians import covariance, gaussians

from z1g.cli.main import main
from z1g.gaussians import files as splat_files
from z1g.gaussians.channels import to_gaussians
from z1g.inference.viewer import COLORINGS, SIZE, VIEW_COLORS, Viewer, VisibleGaussians, ramp

NOISE = "Computed radius is NaN"
"""Warning of three.js about an empty geometry that viser creates for every object."""


def ball_file(folder: Path, name: str, color: tuple[float, float, float], size: int = 12) -> Path:
    """A ball of one color in splatter images."""
    x = to_gaussians(ball_splats(name, size)[None])[0]
    x[:, 3] = 0.95
    x[:, 11:14] = torch.tensor(color)
    path = folder / f"{name}.ply"
    splat_files.write(path, x)
    return path


def test_files_are_scaled_to_a_common_size(tmp_path: Path) -> None:
    x = gaussians(50)
    x[:, 3] = 0.5 + 0.5 * x[:, 3]
    x[:10, 3] = 0.001
    splat_files.write(tmp_path / "a.ply", x)
    model = VisibleGaussians.load(tmp_path / "a.ply")
    assert len(model.centers) == 40
    low, high = x[10:, :3].min(dim=0).values, x[10:, :3].max(dim=0).values
    center = ((low + high) / 2).double().numpy()
    reach = float(np.linalg.norm(x[10:, :3].double().numpy() - center, axis=1).max())
    factor = SIZE / 2 / reach
    np.testing.assert_allclose(model.centers, factor * (x[10:, :3].double().numpy() - center), atol=1e-4)
    np.testing.assert_allclose(model.covariances(1.0), factor**2 * covariance(x[10:]), rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(model.covariances(0.5), model.covariances(1.0) / 4)


def test_colorings(tmp_path: Path) -> None:
    model = VisibleGaussians.load(ball_file(tmp_path, "a", (0.2, 0.4, 0.8)))
    for by in COLORINGS:
        colors = model.colors(by)
        assert colors.shape == model.centers.shape
        assert 0 <= colors.min() <= colors.max() <= 1
    np.testing.assert_allclose(model.colors("rgb"), np.tile([0.2, 0.4, 0.8], (len(model.centers), 1)), atol=1e-5)
    np.testing.assert_allclose(model.colors("opacity"), ramp(np.full(len(model.centers), 0.95)), atol=1e-4)
    np.testing.assert_array_equal(model.colors("source view"), VIEW_COLORS[np.repeat(np.arange(6), 144)])


def test_normals_point_outwards(tmp_path: Path) -> None:
    """Flat discs on a ball, whose thin axes are radial."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator), dim=1)
    x = gaussians(200)
    x[:, :3], x[:, 3], x[:, 4:7] = 0.4 * normal, 0.9, torch.tensor([0.02, 0.02, 0.001])
    # The axis of the half turn that maps z to the normal is halfway between both.
    axis = torch.nn.functional.normalize(normal + torch.tensor([0.0, 0, 1]), dim=1)
    x[:, 7], x[:, 8:11] = 0, axis
    splat_files.write(tmp_path / "a.ply", x)
    model = VisibleGaussians.load(tmp_path / "a.ply")
    outward = model.centers / np.linalg.norm(model.centers, axis=1, keepdims=True)
    assert ((2 * model.colors("normal") - 1) * outward).sum(axis=1).min() > 0.95


def test_a_pruned_file_has_no_source_views(tmp_path: Path) -> None:
    splat_files.write(tmp_path / "a.ply", gaussians(55))
    model = VisibleGaussians.load(tmp_path / "a.ply")
    assert model.views is None
    assert len(np.unique(model.colors("source view"))) == 1


@pytest.mark.parametrize(("name", "message"), [("gone.ply", "cannot be read"), ("a.obj", "unknown extension")])
def test_mistakes_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str) -> None:
    assert main(["view", "--no-browser", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("host", ["1.2.3.4.5", "nowhere.invalid", "x.ply", "é" * 70])
def test_a_host_that_is_not_this_machine_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    """Viser would wait for its server forever."""
    splat_files.write(tmp_path / "a.ply", gaussians(20))
    assert main(["view", str(tmp_path / "a.ply"), "--host", host, "--no-browser"]) == 2
    assert f"--host {host}: no address of this machine" in capsys.readouterr().err


def test_without_viser_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    assert main(["view", "--no-browser", str(ball_file(tmp_path, "a", (1, 0, 0)))]) == 2
    assert "pip install 'z1g[view]'" in capsys.readouterr().err


def test_a_port_in_use_is_skipped(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        viewer = Viewer([ball_file(tmp_path, "a", (1, 0, 0))], "127.0.0.1", port)
        viewer.stop()
    assert viewer.address != f"http://localhost:{port}"


def share(image: Image.Image, color: tuple[int, int, int], slack: int = 70) -> float:
    """Share of pixels near a color."""
    return float((np.abs(np.asarray(image).astype(int) - color).max(axis=2) < slack).mean())


@needs_chromium
@pytest.mark.browser
def test_a_browser_shows_two_models_side_by_side_and_recolors_them(tmp_path: Path) -> None:
    paths = [ball_file(tmp_path, "red", (0.9, 0.1, 0.1)), ball_file(tmp_path, "blue", (0.1, 0.1, 0.9))]
    viewer = Viewer(paths, "127.0.0.1", 0)
    try:
        with open_page(viewer.address, tmp_path, (900, 600)) as page:
            image = page.until_true(lambda: _with(page, (230, 26, 26), 0.02), "a red ball")
            assert share(image, (26, 26, 230)) > 0.02
            columns = [np.nonzero(_mask(image, c))[1].mean() for c in ((230, 26, 26), (26, 26, 230))]
            assert columns[0] + 100 < columns[1]
            text = page.evaluate("document.body.innerText")
            assert "red.ply" in text
            assert "splat scale" in text
            _choose(page, "opacity")
            yellow = tuple(int(255 * value) for value in ramp(np.array([0.95]))[0])
            page.until_true(lambda: _with(page, yellow, 0.05), "balls colored by their opacity")
            assert [error for error in page.errors if NOISE not in error] == []
    finally:
        viewer.stop()


def _mask(image: Image.Image, color: tuple[int, int, int]) -> np.ndarray:
    return np.abs(np.asarray(image).astype(int) - color).max(axis=2) < 70


def _with(page: Page, color: tuple[int, ...], least: float) -> Image.Image | None:
    image = page.screenshot()
    return image if share(image, color) > least else None  # type: ignore[arg-type]


def _choose(page: Page, value: str) -> None:
    """Select an entry of the page's drop-down list by clicks."""
    page.evaluate("document.querySelector('input[value=\"rgb\"]').click()")
    entry = f"[...document.querySelectorAll('[role=option]')].find((e) => e.innerText.trim() === '{value}')"
    page.until(f"!!({entry})")
    page.evaluate(f"({entry}).click()")
