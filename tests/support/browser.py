"""Headless Chromium, controlled through the DevTools protocol."""

import base64
import io
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH")
FLAGS = (
    "--headless=new", "--no-sandbox", "--no-first-run", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--remote-debugging-port=0", "--remote-allow-origins=*",
)  # fmt: skip
PATIENCE_S = 60


class Page:
    """An open page."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._last = socket, 0
        self.errors: list[str] = []
        """Errors on the console and uncaught exceptions."""
        self.requests: list[str] = []
        """Addresses that the page asked for after `Network.enable`."""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its result."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE_S))
            self._note(message)
            if message.get("id") == self._last:
                assert "error" not in message, message["error"]
                return message["result"]

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self) -> Image.Image:
        """Screenshot of the page, RGB."""
        content = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return Image.open(io.BytesIO(content)).convert("RGB")

    def keep_downloads(self, folder: Path) -> None:
        """Save what the page offers for download in a folder."""
        folder.mkdir(exist_ok=True)
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def choose_file(self, selector: str, file: Path) -> None:
        """Give a file to an input of the page."""
        self.call("DOM.enable")
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def frame(self) -> None:
        """Wait until the browser has drawn what has changed."""
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def element(self, selector: str, index: int = 0) -> Image.Image:
        """An element as it is on the screen, RGB."""
        script = f"JSON.stringify(document.querySelectorAll({selector!r})[{index}].getBoundingClientRect())"
        box = json.loads(self.evaluate(script))
        return self.screenshot().crop(tuple(round(box[side]) for side in ("left", "top", "right", "bottom")))

    def until(self, script: str) -> Any:
        """Wait until an expression is true."""
        return self.until_true(lambda: self.evaluate(script), script)

    def until_true(self, check: Any, what: str) -> Any:
        """Wait until `check()` returns a true value, and return it."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if value := check():
                return value
            self.evaluate("new Promise((done) => setTimeout(done, 100))")
        raise AssertionError(f"{what} did not come true; errors: {self.errors}")

    def _note(self, message: dict[str, Any]) -> None:
        about = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(about["exceptionDetails"].get("exception", about["exceptionDetails"])))
        elif message.get("method") == "Runtime.consoleAPICalled" and about["type"] == "error":
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in about["args"]))
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif message.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.errors.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")


@contextmanager
def open_page(address: str, folder: Path, size: tuple[int, int] = (1000, 700)) -> Iterator[Page]:
    """Open an address in a new Chromium with its files in `folder`; it terminates at the end of the block."""
    from websockets.sync.client import connect

    assert CHROMIUM is not None
    own = [f"--window-size={size[0]},{size[1]}", f"--user-data-dir={folder / 'web'}", "about:blank"]
    command = [CHROMIUM, *FLAGS, *own]
    log = folder / "chromium.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        host = _listening(process, log)
        with connect(_first_page(host), max_size=None) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Log"):
                page.call(f"{domain}.enable")
            page.call("Page.navigate", url=address)
            page.until("document.readyState === 'complete' && location.href !== 'about:blank'")
            yield page
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)


def _listening(process: subprocess.Popen, log: Path) -> str:
    """Host and port on which Chromium listens."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        match = re.search(r"DevTools listening on ws://([^/]+)/", log.read_text(errors="replace"))
        if match:
            return match[1]
        time.sleep(0.05)
    raise AssertionError(f"Chromium does not listen: {log.read_text(errors='replace')[-2000:]}")


def _first_page(host: str) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://{host}/json/list") as answer:
        return next(tab["webSocketDebuggerUrl"] for tab in json.load(answer) if tab["type"] == "page")
