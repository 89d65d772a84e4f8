"""`z1g app`: the server's answers, its limits, and the page in a real browser."""

import hashlib
import http.client
import io
import json
import pkgutil
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from support import trained_models
from support.browser import Page, needs_chromium, open_page
from support.builders import ball_splats, experiment
from support.photographs import disc, saved
from support.served import served

from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.gaussians import files as splat_files
from z1g.inference.app import server as server_module
from z1g.inference.app import uploads, work
from z1g.inference.app.server import AppServer
from z1g.inference.app.work import Asked, Studio
from z1g.inference.method import ImageToSplats
from z1g.inference.models import open_model
from z1g.inference.photographs import AS_FOUND, condition, read
from z1g.inference.several import ViewSearch
from z1g.surface.build import MeshOptions

pytestmark = pytest.mark.slow
PATIENCE_S = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    return trained_models.write(experiment(root), root / "base")


@pytest.fixture(scope="module", autouse=True)
def _short_films() -> Iterator[None]:
    """Films of few frames, which take most of the time of a model as small as this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("z1g.inference.batch.FRAMES", 2)
        yield


@contextmanager
def serving(*folders: Path, **places: Path) -> Iterator[AppServer]:
    studio = Studio([open_model(str(folder)) for folder in folders], **places)
    try:
        with served(AppServer(studio)) as server:
            yield server
    finally:
        studio.close()


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[AppServer]:
    with serving(folder) as running:
        yield running


def request(
    server: AppServer, method: str, address: str, body: bytes | str | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=PATIENCE_S)
    own = {"X-Z1G": "1"} if method == "POST" else {}
    connection.request(method, address, body, own | {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, dict(answer.getheaders())


def ask(server: AppServer, method: str, address: str, body: bytes | str | None = None, **headers: str) -> Any:
    status, content, _ = request(server, method, address, body, **headers)
    assert status == 200, content
    return json.loads(content)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def finished(server: AppServer, sample: str) -> dict[str, Any]:
    """The state of a sample once it is neither waiting nor running."""
    ended = threading.Event()
    for _ in range(PATIENCE_S * 10):
        state = ask(server, "GET", f"/samples/{sample}")
        if state["state"] not in ("waiting", "running"):
            return dict(state)
        ended.wait(0.1)
    raise AssertionError(state)


def sampled(server: AppServer, image: Image.Image, **wanted: Any) -> list[dict[str, Any]]:
    upload = ask(server, "POST", "/photographs", png(image), X_Name="a.png")
    question = {"photograph": upload["id"], "seeds": [upload["seed"]], "cut": upload["cuts"][0], **wanted}
    samples = ask(server, "POST", "/samples", json.dumps(question))["samples"]
    return [finished(server, sample) | {"id": sample} for sample in samples]


def a_ball(method: ImageToSplats, images: torch.Tensor, seeds: list[int], **_: object) -> tuple[torch.Tensor, ...]:
    """In place of an untrained model's sample, which is no object: a ball of each seed, which is its own code."""
    balls = torch.stack([ball_splats(str(seed), 8) for seed in seeds])
    return balls, balls


def balls_with_coarse_meshes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let samples be balls, and their meshes take little time."""
    monkeypatch.setattr(ImageToSplats, "__call__", a_ball)
    monkeypatch.setattr(ImageToSplats, "refined", lambda _, code, *others: code.clone())
    monkeypatch.setattr(ImageToSplats, "decode", lambda _, codes: codes)
    coarse = MeshOptions(views=12, view_size=64, resolution=32, faces=1000, texture=64)
    monkeypatch.setattr("z1g.inference.batch.MeshOptions", lambda: coarse)


# What it makes


def test_files_are_those_of_the_command(server: AppServer, folder: Path, tmp_path: Path) -> None:
    photograph = saved(tmp_path, disc(), "a.png")
    wanted = {"seeds": [5, 6], "steps": 2, "guidance": 2.5, "shift": [0.1, -0.05], "zoom": 1.25, "refine": True}
    states = sampled(server, disc(), **wanted)
    assert [state["state"] for state in states] == ["done", "done"], states
    assert [state["name"] for state in states] == ["a-5", "a-6"]
    for seed, state in zip((5, 6), states, strict=True):
        record = json.loads(request(server, "GET", f"/samples/{state['id']}/file.json")[1])
        out = tmp_path / f"out{seed}"
        words = [word if word != "a.png" else str(photograph) for word in record["command"][1:]]
        assert main([*words, "--out", str(out)]) == 0
        for ending in (".ply", ".condition.png", ".sheet.png"):
            status, content, headers = request(server, "GET", f"/samples/{state['id']}/file{ending}")
            assert status == 200
            assert content == (out / f"a{ending}").read_bytes(), ending
            assert record["files"][f"a-{seed}{ending}"]["sha256"] == hashlib.sha256(content).hexdigest()
            assert headers["Content-Disposition"] == f'attachment; filename="a-{seed}{ending}"'
        other = json.loads((out / "a.json").read_text())
        same = ("sha256", "seed", "stages", "steps", "guidance", "background", "shift", "zoom", "refined", "photograph")
        assert {name: record[name] for name in same[:-1]} == {name: other[name] for name in same[:-1]}
        assert record["photograph"] == "a.png", "no path of the server is told"
        for ending in (".spz", ".splat"):
            path = tmp_path / f"made{ending}"
            splat_files.write(path, splat_files.read(out / "a.ply"))
            assert request(server, "GET", f"/samples/{state['id']}/file{ending}")[1] == path.read_bytes()
    first, second = (request(server, "GET", f"/samples/{state['id']}/file.ply")[1] for state in states)
    assert first != second


def test_the_preview_is_what_the_model_sees(server: AppServer, folder: Path, tmp_path: Path) -> None:
    upload = ask(server, "POST", "/photographs", png(disc()), X_Name=quote("ä b.png"))
    assert upload["file"] == "ä b.png"
    assert upload["cuts"] == ["alpha"]
    photograph = read(saved(tmp_path, disc()))
    assert upload["seed"] == photograph.seed
    model = open_model(str(folder))
    expected = condition(photograph, model.camera, model.condition.size, "remove", model.condition.resize, AS_FOUND)
    content = request(server, "GET", f"/photographs/{upload['id']}/preview?cut=alpha")[1]
    shown = np.asarray(Image.open(io.BytesIO(content))).astype(float) / 255
    np.testing.assert_allclose(shown, expected.permute(1, 2, 0).numpy(), atol=0.5 / 255 + 1e-6)
    moved = request(server, "GET", f"/photographs/{upload['id']}/preview?cut=alpha&x=0.2&y=-0.1&zoom=1.5")[1]
    assert moved != content


def test_rembg_is_offered_where_its_weights_are(
    server: AppServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opaque = Image.new("RGB", (40, 30), (127, 127, 127))
    assert ask(server, "POST", "/photographs", png(opaque))["cuts"] == ["keep"]
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    monkeypatch.setattr(uploads.importlib.util, "find_spec", lambda name: object())
    assert not uploads.can_remove()
    (tmp_path / "u2net.onnx").write_bytes(b"weights")
    assert ask(server, "POST", "/photographs", png(opaque))["cuts"] == ["rembg", "keep"]
    assert ask(server, "POST", "/photographs", png(disc()))["cuts"] == ["alpha"]


def test_nothing_is_kept_unless_asked(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    kept, unfinished = tmp_path / "kept", tmp_path / "kept/unfinished"
    unfinished.mkdir(parents=True)
    with serving(folder) as server:
        assert sampled(server, disc(), seeds=[1])[0]["state"] == "done"
    assert not list((tmp_path / "temporary").iterdir())
    with serving(folder, out=kept, unfinished=unfinished) as server:
        (state,) = sampled(server, disc(), seeds=[1])
        content = request(server, "GET", f"/samples/{state['id']}/file.ply")[1]
    assert (kept / "a-1.ply").read_bytes() == content
    assert json.loads((kept / "a-1.json").read_text())["seed"] == 1


def test_splats_of_others_are_not_replaced_in_the_folder_of_results(folder: Path, tmp_path: Path) -> None:
    kept, unfinished = tmp_path / "kept", tmp_path / "kept/unfinished"
    unfinished.mkdir(parents=True)
    (kept / "a-1.ply").write_bytes(b"mine")
    with serving(folder, out=kept, unfinished=unfinished) as server:
        (state,) = sampled(server, disc(), seeds=[1], steps=1)
    assert state["state"] == "failed"
    assert "a-1.ply is not from z1g infer and would be replaced" in state["error"]
    assert (kept / "a-1.ply").read_bytes() == b"mine"


# What it refuses


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no image at all", "is not an image of a supported format"),
        (png(disc())[:200], "is damaged"),
        (png(Image.new("RGBA", (20, 20))), "nothing is visible"),
        (b"", "is not an image"),
    ],
)
def test_bad_files_are_said_in_one_line(server: AppServer, content: bytes, message: str) -> None:
    status, answer, _ = request(server, "POST", "/photographs", content, X_Name="../../etc/b%0Aad.png")
    error = json.loads(answer)["error"]
    assert status == 400
    assert message in error
    assert "etc" not in error


def test_sizes_are_limited(server: AppServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "UPLOAD_BYTES", 1000)
    status, answer, _ = request(server, "POST", "/photographs", b"x" * 1001)
    assert status == 413
    assert "the limit is" in json.loads(answer)["error"]
    monkeypatch.setattr(server_module, "UPLOAD_BYTES", 10**6)
    monkeypatch.setattr(uploads, "MAX_PIXELS", 100)
    status, answer, _ = request(server, "POST", "/photographs", png(disc()))
    assert status == 400
    assert "million pixels" in json.loads(answer)["error"]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": list(range(9))}, "seeds"),
        ({"seeds": [-1]}, "seeds.0"),
        ({"steps": 0}, "steps"),
        ({"steps": 10**9}, "steps"),
        ({"guidance": 0}, "guidance"),
        ({"zoom": 100}, "zoom from 0.25 to 4"),
        ({"shift": [5, 0]}, "shift must be from -1 to 1"),
        ({"model": 1}, "there is no model 1 here, but 1 model, counted from 0"),
        ({"cut": "keep"}, "can be used with alpha, not keep"),
        ({"photograph": "unknown"}, "drop it again"),
        ({"model": "/etc"}, "model"),
        ({"out": "/tmp"}, "out"),
    ],
)
def test_questions_are_checked(server: AppServer, question: dict[str, Any], message: str) -> None:
    upload = ask(server, "POST", "/photographs", png(disc()))
    asked = {"photograph": upload["id"], "seeds": [1], "cut": "alpha"} | question
    status, answer, _ = request(server, "POST", "/samples", json.dumps(asked))
    assert status == 400
    assert message in json.loads(answer)["error"]


@pytest.mark.parametrize(
    "address",
    [
        "/etc/passwd", "/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/app.js/../work.py",
        "/samples/x/file../../etc/passwd", "/samples/..%2f..%2fetc/file.passwd", "/work.py",
        "/photographs/x/preview/..",
        "/file=/etc/passwd", "/samples/{id}/file.py", "/samples/{id}/file.%2fpng", "/?path=/etc/passwd",
    ],
)  # fmt: skip
def test_no_file_of_the_server_is_read(server: AppServer, address: str) -> None:
    status, answer, _ = request(server, "GET", address)
    assert b"root:" not in answer
    if "?" not in address:
        assert status in (400, 404)


def test_other_sites_cannot_ask(server: AppServer) -> None:
    port = server.server_address[1]
    for headers in ({"Host": f"evil.example:{port}"}, {"Host": f"localhost.evil.example:{port}"}):
        assert request(server, "GET", "/about", **headers)[0] == 403
    assert request(server, "GET", "/about", Host=f"localhost:{port}")[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("POST", "/photographs", png(disc()), {"Origin": "https://evil.example"})
    assert connection.getresponse().status == 403
    connection.close()
    assert request(server, "OPTIONS", "/photographs")[0] == 501
    headers = request(server, "GET", "/")[2]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers
    page = request(server, "GET", "/")[1] + request(server, "GET", "/app.css")[1]
    assert b"http://" not in page
    assert b"https://" not in page


def test_the_queue_is_limited_and_samples_can_be_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is held in its first sample, at its first step."""
    inside, go_on = threading.Event(), threading.Event()
    make = Studio._make

    def held(studio: Studio, *arguments: Any) -> dict[str, bytes]:
        inside.set()
        assert go_on.wait(PATIENCE_S)
        return make(studio, *arguments)

    monkeypatch.setattr(Studio, "_make", held)
    monkeypatch.setattr(work, "WAITING", 3)
    studio = Studio([open_model(str(folder))])
    try:
        photograph = studio.uploads.add(png(disc()), "a.png")
        (first,) = studio.ask(Asked(photograph=photograph, seeds=[1], cut="alpha"))
        assert inside.wait(PATIENCE_S)
        waiting = studio.ask(Asked(photograph=photograph, seeds=[2, 3, 3, 4], cut="alpha"))
        assert [studio.ahead(identity) for identity in waiting] == [1, 2, 3]
        with pytest.raises(UserError, match="full with 3 waiting samples"):
            studio.ask(Asked(photograph=photograph, seeds=[5], cut="alpha"))
        studio.stop(waiting[0])
        assert studio.get(waiting[0]).state == "stopped"
        assert [studio.ahead(identity) for identity in waiting[1:]] == [1, 2]
        studio.stop(first)
        go_on.set()
        while studio.get(waiting[2]).state in ("waiting", "running"):
            threading.Event().wait(0.05)
        assert [studio.get(identity).state for identity in (first, *waiting)] == ["stopped", "stopped", "done", "done"]
        assert not studio._photographs
    finally:
        go_on.set()
        studio.close()


def test_a_sample_can_be_stopped_while_it_is_matched_with_the_photograph(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two steps of the search, as between two of sampling; a film or a mesh is not begun."""
    studio = Studio([open_model(str(folder))])
    error, steps = ViewSearch._error, [0, 0]

    def stopping(search: ViewSearch, *arguments: Any) -> Any:
        ((running, seed),) = [(key, x.seed) for key, x in studio._samples.items() if x.state == "running"]
        steps[seed] += 1
        if seed == 0 and steps[0] == 2:
            studio.stop(running)
        return error(search, *arguments)

    monkeypatch.setattr(ViewSearch, "_error", stopping)
    try:
        photograph = studio.uploads.add(png(disc()), "a.png")
        for seed in (0, 1):
            asked = Asked(photograph=photograph, seeds=[seed], steps=1, cut="alpha", refine=True)
            (identity,) = studio.ask(asked)
            while studio.get(identity).state in ("waiting", "running"):
                threading.Event().wait(0.05)
            sample = studio.get(identity)
            assert (sample.state, bool(sample.files)) == (("stopped", False), ("done", True))[seed]
            assert sample.step == (3 if seed == 0 else sample.steps)
    finally:
        studio.close()
    assert steps[0] == 2
    assert steps[1] > 2


@pytest.mark.parametrize(
    "part",
    [
        "z1g.inference.outputs.SampleWriter._frames", "z1g.surface.build.look", "z1g.surface.build.fuse",
        "z1g.surface.build.clean", "z1g.surface.texture.bake", "z1g.surface.build.TexturedMesh.save",
    ],
)  # fmt: skip
def test_a_sample_can_be_stopped_while_its_film_or_its_mesh_is_made(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """At the next check of the part in which it is stopped, or after it. Nothing is left of it."""
    of, name = part.rsplit(".", 1)
    owner = pkgutil.resolve_name(of)
    make = getattr(owner, name)

    def stopping(*arguments: Any, **options: Any) -> Any:
        for key, sample in studio._samples.items():
            if sample.state == "running" and sample.seed == 0:
                studio.stop(key)
        return make(*arguments, **options)

    monkeypatch.setattr(owner, name, stopping)
    balls_with_coarse_meshes(monkeypatch)
    kept, unfinished = tmp_path / "kept", tmp_path / "kept/unfinished"
    unfinished.mkdir(parents=True)
    studio = Studio([open_model(str(folder))], kept, unfinished)
    try:
        photograph = studio.uploads.add(png(disc()), "a.png")
        for seed, state in ((0, "stopped"), (1, "done")):
            (identity,) = studio.ask(Asked(photograph=photograph, seeds=[seed], steps=1, cut="alpha", mesh=True))
            while studio.get(identity).state in ("waiting", "running"):
                threading.Event().wait(0.05)
            sample = studio.get(identity)
            assert (sample.state, sample.error) == (state, "")
            assert (".glb" in sample.files) == (seed == 1)
            assert not list(unfinished.iterdir())
    finally:
        studio.close()
    assert {file.name.partition(".")[0] for file in kept.iterdir() if file.is_file()} == {"a-1"}


def test_old_photographs_and_samples_make_room(
    server: AppServer, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(uploads, "KEPT", 2)
    monkeypatch.setattr(work, "KEPT", 1)
    identities = [ask(server, "POST", "/photographs", png(disc()))["id"] for _ in range(3)]
    assert request(server, "GET", f"/photographs/{identities[0]}/preview?cut=alpha")[0] == 400
    assert request(server, "GET", f"/photographs/{identities[2]}/preview?cut=alpha")[0] == 200
    states = [sampled(server, disc(), seeds=[seed])[0] for seed in (1, 2, 3)]
    assert request(server, "GET", f"/samples/{states[0]['id']}")[0] == 400
    assert request(server, "GET", f"/samples/{states[2]['id']}")[0] == 200


def test_a_fault_of_one_sample_ends_no_other(
    server: AppServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("z1g.inference.app.work.Batch", lambda *a: 1 / 0)
        (state,) = sampled(server, disc(), seeds=[1])
    assert state["state"] == "failed"
    assert state["error"] == "something went wrong; the server's terminal says what"
    assert "ZeroDivisionError" in caplog.text
    assert sampled(server, disc(), seeds=[1])[0]["state"] == "done"


def test_a_full_disk_is_said_on_the_page_without_a_path(
    server: AppServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("z1g.inference.batch.save_png", lambda *_: Path("/dev/full").write_bytes(b"x"))
    (state,) = sampled(server, disc(), seeds=[1])
    assert (state["state"], state["error"]) == ("failed", "the server's disk is full")
    assert "a-1.condition.png" in caplog.text


def test_a_sample_without_a_mesh_says_why(server: AppServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_mesh(*_: object) -> None:
        raise UserError("there is no surface")

    monkeypatch.setattr("z1g.inference.batch.build", no_mesh)
    (state,) = sampled(server, disc(), seeds=[1], mesh=True)
    assert (state["state"], state["error"]) == ("done", "a-1: no mesh: there is no surface")
    assert ".ply" in state["files"]
    assert ".glb" not in state["files"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nowhere"], "nowhere is neither a folder with model.json"),
        (["--model", "{model}", "--host", "nowhere.invalid"], "--host nowhere.invalid --port 8090"),
        (["--model", "{model}", "--keep", "{model}/model.json"], "model.json"),
    ],
)
def test_arguments_that_cannot_be_used(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["app", "--no-browser", *(word.format(model=folder) for word in words)]) == 2
    assert message in capsys.readouterr().err


# In a browser


GIVE = """(() => {
  const data = new DataTransfer();
  data.items.add(new File(['no image'], '%s.png', { type: 'image/png' }));
  dispatchEvent(new %s, { %s: data, cancelable: true }));
})()"""
"""Paste or drop a file that is no image."""


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(float)


def object_in(page: Page) -> np.ndarray:
    """Center of the red disc in the preview, in pixels of the screen, and the number of its pixels."""
    red, green, _ = np.moveaxis(pixels(page.element("#preview")), -1, 0)
    rows, columns = np.nonzero(red - green > 60)
    return np.array([columns.mean(), rows.mean(), len(rows)])


def drag(page: Page, right: int, down: int) -> None:
    """Drag the middle of the preview with the mouse."""
    box = json.loads(page.evaluate("JSON.stringify(document.getElementById('preview').getBoundingClientRect())"))
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    path = [("mousePressed", 0.0), *(("mouseMoved", i / 5) for i in range(1, 6)), ("mouseReleased", 1.0)]
    for kind, at in path:
        page.call(
            "Input.dispatchMouseEvent", type=kind, x=x + at * right, y=y + at * down, button="left", clickCount=1,
            buttons=0 if kind == "mouseReleased" else 1,
        )  # fmt: skip


@needs_chromium
@pytest.mark.browser
def test_a_browser_goes_from_photograph_to_the_command_s_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upload by the page's own input, a dragged crop, splats by their pixels, and files that equal `z1g infer`'s."""
    balls_with_coarse_meshes(monkeypatch)
    photograph, downloads = saved(tmp_path, disc(), "photo.png"), tmp_path / "downloads"
    with serving(folder) as server, open_page(server.address, tmp_path, (1300, 900)) as page:
        page.keep_downloads(downloads)
        page.until("document.getElementById('model').options.length === 1")
        for event, carrier in (("ClipboardEvent('paste'", "clipboardData"), ("DragEvent('drop'", "dataTransfer")):
            page.evaluate(GIVE % (carrier, event, carrier))
            page.until(f"document.getElementById('message').innerText.startsWith('{carrier}.png is not an image')")
        page.errors.clear()  # the browser notes answers of 400
        page.choose_file("#file", photograph)
        page.until("document.getElementById('preview').naturalWidth > 0")
        page.evaluate("addEventListener('click', (event) => { window.opens = !event.defaultPrevented; }), null")
        before = object_in(page)
        drag(page, 40, -25)
        page.until_true(lambda: np.abs(object_in(page) - before - (40, -25, 0))[:2].max() < 5, "a moved crop")
        assert page.evaluate("window.opens") is False, "the end of a drag chooses no file"
        shift = [float(page.evaluate(f"document.getElementById('{name}').value")) for name in "xy"]
        size = page.evaluate("document.getElementById('preview').clientWidth")
        np.testing.assert_allclose(shift, [-40 / size, 25 / size], atol=0.02)
        page.evaluate(
            "document.getElementById('preview').dispatchEvent(new WheelEvent('wheel', { deltaY: -120 })), null"
        )
        page.until_true(lambda: object_in(page)[2] > 1.2 * before[2], "a larger object")
        page.evaluate("Object.assign(document.getElementById('seeds'), { value: '7, 8' })")
        page.evaluate("document.getElementById('mesh').click()")
        page.evaluate("document.getElementById('refine').click()")
        page.evaluate("document.getElementById('make').click()")
        page.until("document.querySelectorAll('canvas[data-drawn]').length === 2")
        shots = [pixels(page.element("article canvas", i)) for i in range(2)]
        for shot in shots:
            assert (shot < 250).any(axis=2).mean() > 0.01, "something is drawn on white"
        assert np.abs(shots[0] - shots[1]).mean() > 0, "two seeds"
        page.evaluate(
            "document.querySelector('article canvas').dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft' }))"
        )
        page.frame()
        for i, shot in enumerate(shots):
            assert np.abs(pixels(page.element("article canvas", i)) - shot).mean() > 0, "both turn"
        for ending in (".ply", ".glb", ".json"):
            link = f"[...document.querySelectorAll('article nav a')].find((e) => e.innerText === '{ending}')"
            page.evaluate(f"{link}.click()")
            page.until_true(lambda ending=ending: list(downloads.glob(f"*{ending}")), f"a download of {ending}")
        tool = "[...document.querySelectorAll('#tools button')].find((e) => e.innerText === 'Screenshot')"
        page.evaluate(f"{tool}.click()")
        page.until_true(lambda: list(downloads.glob("splats.png")), "a screenshot")
        assert page.errors == []
    (record,) = (json.loads(file.read_text()) for file in downloads.glob("*.json"))
    assert (record["shift"], record["zoom"], record["refined"]) == (shift, 1.22, True)
    words = [word if word != "photo.png" else str(photograph) for word in record["command"][1:]]
    assert main([*words, "--out", str(tmp_path / "o")]) == 0
    assert len(trimesh.load(next(downloads.glob("*.glb")), force="mesh").faces) > 100
    for ending in (".ply", ".glb"):
        (file,) = downloads.glob(f"*{ending}")
        assert file.name in (f"photo-7{ending}", f"photo-8{ending}")
        assert file.read_bytes() == (tmp_path / f"o/photo{ending}").read_bytes(), ending
    with Image.open(downloads / "splats.png") as both:
        assert both.width == 2 * both.height, "both samples"
    shutil.rmtree(downloads)
