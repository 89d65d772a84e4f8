"""The viewer: displayed Gaussians of a file, what its server answers, and the page in a real browser."""

import http.client
import io
import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from support.browser import Page, needs_chromium, open_page
from support.builders import ball_splats
from support.gaussians import covariance, gaussians
from support.served import served

from z1g.cli.main import main
from z1g.gaussians import files as splat_files
from z1g.gaussians.channels import to_gaussians
from z1g.inference.film import CameraPath, frames
from z1g.inference.viewer.gaussians import COLORINGS, VIEW_COLORS, VisibleGaussians, ramp
from z1g.inference.viewer.server import MOST_FILES, ViewerServer
from z1g.render.cpu import Cpu

ALL = 10**6


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
    model = VisibleGaussians.load(tmp_path / "a.ply", ALL)
    assert len(model.gaussians) == model.n_visible == 40
    low, high = x[10:, :3].min(dim=0).values, x[10:, :3].max(dim=0).values
    center = ((low + high) / 2).double().numpy()
    reach = float(np.linalg.norm(x[10:, :3].double().numpy() - center, axis=1).max())
    factor, shown = 0.5 / reach, torch.from_numpy(model.gaussians)
    np.testing.assert_allclose(shown[:, :3], factor * (x[10:, :3].double().numpy() - center), atol=1e-5)
    np.testing.assert_allclose(covariance(shown), factor**2 * covariance(x[10:]), rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(shown[:, 11:], x[10:, 11:].double(), atol=1e-6)


def test_colorings(tmp_path: Path) -> None:
    model = VisibleGaussians.load(ball_file(tmp_path, "a", (0.2, 0.4, 0.8)), ALL)
    for by in COLORINGS:
        colors = model.colors(by)
        assert colors.shape == (len(model.gaussians), 3)
        assert 0 <= colors.min() <= colors.max() <= 1
    np.testing.assert_allclose(model.colors("rgb"), np.tile([0.2, 0.4, 0.8], (864, 1)), atol=1e-5)
    np.testing.assert_allclose(model.colors("opacity"), ramp(np.full(len(model.gaussians), 0.95)), atol=1e-4)
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
    model = VisibleGaussians.load(tmp_path / "a.ply", ALL)
    centers = model.gaussians[:, :3]
    outward = centers / np.linalg.norm(centers, axis=1, keepdims=True)
    assert ((2 * model.colors("normal") - 1) * outward).sum(axis=1).min() > 0.95


def test_a_pruned_file_has_no_source_views(tmp_path: Path) -> None:
    splat_files.write(tmp_path / "a.ply", gaussians(55))
    model = VisibleGaussians.load(tmp_path / "a.ply", ALL)
    assert model.views is None
    assert len(np.unique(model.colors("source view"))) == 1


def test_of_large_files_a_part_is_shown_with_the_views_that_it_is_from(tmp_path: Path) -> None:
    file = ball_file(tmp_path, "a", (0.2, 0.4, 0.8))
    whole, part = (VisibleGaussians.load(file, limit) for limit in (ALL, 200))
    assert (len(part.gaussians), part.n_visible) == (200, 864)
    assert whole.views is not None
    assert part.views is not None
    view_of = {tuple(position): view for position, view in zip(whole.gaussians[:, :3], whole.views, strict=True)}
    assert [view_of[tuple(position)] for position in part.gaussians[:, :3]] == part.views.tolist()


@pytest.mark.parametrize(("name", "message"), [("gone.ply", "cannot be read"), ("a.obj", "unknown extension")])
def test_mistakes_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str) -> None:
    assert main(["view", "--no-browser", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


def test_more_files_than_a_browser_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / "a.ply")] * (MOST_FILES + 1)
    assert main(["view", "--no-browser", *files]) == 2
    assert f"at most {MOST_FILES}" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["1.2.3.4.5", "nowhere.invalid", "x.ply", "é" * 70])
def test_a_host_that_is_not_this_machine_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    splat_files.write(tmp_path / "a.ply", gaussians(20))
    assert main(["view", str(tmp_path / "a.ply"), "--host", host, "--no-browser"]) == 2
    assert f"--host {host} --port 8080: cannot be listened on" in capsys.readouterr().err


def test_a_port_in_use_is_skipped(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        viewer = ViewerServer([ball_file(tmp_path, "a", (1, 0, 0))], "127.0.0.1", port)
        viewer.server_close()
    assert port < viewer.server_address[1] < port + 100


def asked(viewer: ViewerServer, address: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", viewer.server_address[1], timeout=60)
    connection.request("GET", address, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_the_condition_image_beside_a_file_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [ball_file(tmp_path, name, (1, 0, 0), 4) for name in ("a", "b", "c")]
    Image.new("RGB", (900, 450), (10, 200, 30)).save(tmp_path / "a.condition.png")
    (tmp_path / "b.condition.png").write_bytes((tmp_path / "a.condition.png").read_bytes()[:60])
    with served(ViewerServer(files)) as viewer:
        status, content = asked(viewer, "/conditions/0")
        assert status == 200
        image = Image.open(io.BytesIO(content))
        assert (image.size, image.getpixel((0, 0))) == ((640, 320), (10, 200, 30))
        assert "b.condition.png cannot be shown" in caplog.text
        assert "c.condition.png" not in caplog.text
        about = json.loads(asked(viewer, "/about")[1])
        assert [model["condition"] for model in about["models"]] == [True, False, False]
        for address in ("/conditions/1", "/conditions/3", "/splats/3", "/splats/0?color=%2fetc%2fpasswd"):
            assert asked(viewer, address)[0] == 400, address
        for address in ("/a.ply", "/../a.ply", "/splats/-1", "/viewer.py", "//etc/passwd"):
            assert asked(viewer, address)[0] == 404, address
        port = viewer.server_address[1]
        assert asked(viewer, "/splats/0", Host=f"evil.example:{port}")[0] == 403


# In a browser


def click(page: Page, words: str) -> None:
    """Click one of the tools."""
    page.evaluate(f"[...document.querySelectorAll('#tools button')].find((e) => e.textContent === {words!r}).click()")


def choose(page: Page, identity: str, value: str, event: str = "change") -> None:
    script = f"Object.assign(document.getElementById({identity!r}), {{ value: {value!r} }})"
    page.evaluate(f"{script}.dispatchEvent(new Event({event!r})), null")


def press(page: Page, key: str, times: int = 1) -> None:
    """Press a key on the first canvas."""
    event = f"new KeyboardEvent('keydown', {{ key: {key!r} }})"
    for _ in range(times):
        page.evaluate(f"document.querySelector('canvas').dispatchEvent({event})")
    page.frame()


def download(page: Page, folder: Path, ending: str) -> Path:
    """The only finished download with an ending."""
    (file,) = page.until_true(lambda: list(folder.glob(f"*{ending}")), f"a download of {ending}")
    return file


def taken(page: Page, folder: Path) -> np.ndarray:
    """Pixels of a new screenshot."""
    click(page, "Screenshot")
    file = download(page, folder, ".png")
    shot = pixels(Image.open(file))
    file.unlink()
    return shot


def share(image: Image.Image, color: tuple[int, ...], slack: int = 70) -> float:
    """Share of pixels near a color."""
    return float((np.abs(np.asarray(image).astype(int) - color).max(axis=2) < slack).mean())


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(float)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.square((a - b) / 255).mean()))


@needs_chromium
@pytest.mark.browser
def test_a_browser_shows_two_models_and_remembers_how(tmp_path: Path) -> None:
    """Side by side, on top of each other, colored, beside the condition image, and all of it after a new visit."""
    red, blue, green = (230, 26, 26), (26, 26, 230), (10, 200, 30)
    files = [ball_file(tmp_path, "red", (0.9, 0.1, 0.1)), ball_file(tmp_path, "blue", (0.1, 0.1, 0.9))]
    Image.new("RGB", (100, 100), green).save(tmp_path / "red.condition.png")
    with served(ViewerServer(files)) as viewer, open_page(viewer.address, tmp_path, (900, 600)) as page:
        page.until("document.body.dataset.color === 'rgb'")
        page.frame()
        shots = [page.element("canvas", i) for i in range(2)]
        assert [share(shot, color) > 0.1 for shot in shots for color in (red, blue)] == [True, False, False, True]
        assert share(page.screenshot(), green, 10) > 0.005, "the condition image"
        page.evaluate("document.getElementById('condition').click()")
        page.frame()
        assert share(page.screenshot(), green, 10) == 0
        choose(page, "color", "opacity")
        page.until("document.body.dataset.color === 'opacity'")
        page.frame()
        yellow = tuple(int(255 * value) for value in ramp(np.array([0.95]))[0])
        assert min(share(page.element("canvas", i), yellow) for i in range(2)) > 0.1
        choose(page, "size", "0.1", "input")
        choose(page, "apart", "")
        press(page, "ArrowLeft", 5)
        press(page, "+", 3)
        before = pixels(page.screenshot())
        page.evaluate("window.before = true")
        page.call("Page.reload")
        page.until("!window.before && document.body?.dataset.color === 'opacity'")
        page.frame()
        assert np.abs(pixels(page.screenshot()) - before).mean() < 0.01, "as it was"
        choose(page, "color", "rgb")
        page.until("document.body.dataset.color === 'rgb'")
        page.frame()
        together = page.element("canvas", 2)
        assert min(share(together, color) for color in (red, blue)) > 0.01
        page.evaluate("document.querySelector('#files input').click()")
        page.frame()
        assert share(page.element("canvas", 2), red) == 0
        assert page.errors == []


@needs_chromium
@pytest.mark.browser
def test_a_camera_path_of_the_browser_is_a_film(tmp_path: Path) -> None:
    """A screenshot is what the page shows, and a saved path leads the rasterizer to the same views."""
    splats, downloads = gaussians(60, seed=3), tmp_path / "downloads"
    splat_files.write(tmp_path / "a.ply", splats)
    with served(ViewerServer([tmp_path / "a.ply"])) as viewer, open_page(viewer.address, tmp_path, (700, 900)) as page:
        page.keep_downloads(downloads)
        page.until("document.body.dataset.color === 'rgb'")
        click(page, "Add keyframe")
        first = pixels(page.element("canvas"))
        press(page, "ArrowLeft", 9)
        press(page, "ArrowDown", 2)
        press(page, "+", 4)
        click(page, "Add keyframe")
        shot = taken(page, downloads)
        inside = ImageOps.crop(page.element("canvas"), 1)  # without its frame
        assert psnr(shot, pixels(inside.resize(shot.shape[1::-1]))) > 25
        click(page, "Save path")
        file = download(page, downloads, ".path.json")
        page.evaluate("document.querySelector('#tools .path button').click()")
        page.frame()
        assert np.abs(pixels(page.element("canvas")) - first).mean() < 0.01, "the first keyframe"
        page.evaluate("document.querySelectorAll('#tools .path button')[1].click()")
        assert page.evaluate("document.getElementById('tools').dataset.keyframes") == "1"
        page.choose_file("#tools input[type=file]", file)
        page.until("document.getElementById('tools').dataset.keyframes === '2'")
        seconds = "Object.assign(document.querySelector('#tools input[type=number]'), { value: 0.2 })"
        page.evaluate(f"{seconds}, null")
        click(page, "Play")
        page.until("[...document.querySelectorAll('#tools button')].some((e) => e.textContent === 'Play')")
        page.frame()
        assert np.abs(taken(page, downloads) - shot).mean() < 0.1, "played to its end"
        (tmp_path / "other.json").write_text('{"kind": "camera path", "version": 1, "keyframes": 5}')
        page.choose_file("#tools input[type=file]", tmp_path / "other.json")
        page.until("document.querySelector('#tools .message').textContent.includes('other.json is no camera path')")
        assert page.errors == []
    path = CameraPath.read(file)
    assert path.seconds == 4
    (drawn,) = frames([splats], path.views(2)[1:], Cpu(), shot.shape[0])
    assert psnr(drawn, shot) > 30
