"""The server of `z1g app`: a few fixed addresses, answered from memory by the standard library's HTTP server.

Requests that change something carry a header that pages of other sites cannot send (they would have to ask first, and
nobody answers), and a server on loopback answers to its own names only, so that no other site's name leads to it.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import ValidationError

from z1g.core.errors import UserError
from z1g.inference.app.uploads import Cut
from z1g.inference.app.work import SEEDS, Asked, Studio, download, packed
from z1g.inference.photographs import Framing
from z1g.render.web import script
from z1g.surface.build import require_packages

log = logging.getLogger("z1g")
UPLOAD_BYTES, QUESTION_BYTES = 32 * 2**20, 16 * 2**10
"""Size limits of a photograph's file and of a question in JSON."""
REQUESTS = 24
"""Requests answered at once; others wait for their turn."""
PATIENCE_S = 15
"""A connection that says nothing for so long is closed: while it is open, it takes one of the turns."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {
    ".json": "application/json", ".png": "image/png", ".mp4": "video/mp4", ".webp": "image/webp",
    ".glb": "model/gltf-binary",
}  # fmt: skip
PAGE = {"/": ("page.html", "text/html"), "/app.css": ("app.css", "text/css"), "/app.js": ("app.js", "text/javascript")}
CUTS: tuple[Cut, ...] = ("alpha", "rembg", "keep")


class TooLarge(UserError):
    """A body above its limit."""


class AppServer(ThreadingHTTPServer):
    """Serves one `Studio`. host, port: where to listen; port 0 takes a free one. Raises UserError if it cannot."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, studio: Studio, host: str = "127.0.0.1", port: int = 0) -> None:
        self.studio, self.host = studio, host
        self._turns = threading.BoundedSemaphore(REQUESTS)
        try:
            self.address_family = socket.getaddrinfo(host, port)[0][0]
            super().__init__((host, port), Handler)
        except (OSError, UnicodeError) as error:
            raise UserError(f"--host {host} --port {port}: cannot be listened on ({error})") from error

    def server_bind(self) -> None:
        """Bind without asking a name server for this machine's name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    @property
    def address(self) -> str:
        """URL of the page."""
        name = "localhost" if self.host in LOOPBACK else self.host
        return f"http://{name}:{self.server_address[1]}"

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection, when it is its turn."""
        with self._turns:
            super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no fault."""
        log.debug("a connection of %s ended early", client_address, exc_info=True)

    def is_own(self, host: str) -> bool:
        """Whether a request's Host is this server. Asked on loopback only: elsewhere it cannot know its names."""
        return self.host not in LOOPBACK or urlsplit(f"//{host}").hostname in LOOPBACK


class Handler(BaseHTTPRequestHandler):
    """Answers one request after the other of a connection."""

    server: AppServer
    server_version, sys_version = "z1g", ""
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        """Pages, states, images and files."""
        self._answer(GET)

    def do_POST(self) -> None:
        """Photographs and questions."""
        self._answer(POST)

    def _answer(self, routes: Routes) -> None:
        try:
            if not self.server.is_own(self.headers.get("Host", "")):
                self._fail(HTTPStatus.FORBIDDEN, "this server is not reached by that name")
                return
            if routes is POST and self.headers.get("X-Z1G") != "1":
                self._fail(HTTPStatus.FORBIDDEN, "the header X-Z1G is missing")
                return
            path = urlsplit(self.path).path
            for pattern, route in routes:
                match = pattern.fullmatch(path)
                if match:
                    route(self, **{key: unquote(value) for key, value in match.groupdict().items()})
                    return
            self._fail(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        except TooLarge as error:
            self._fail(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error))
        except UserError as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))
        except (ValueError, KeyError) as error:
            self._fail(HTTPStatus.BAD_REQUEST, f"the question is not understood: {str(error).splitlines()[0]}")

    def body(self, limit: int) -> bytes:
        """The body. Raises TooLarge, or UserError if its length is not said."""
        text = self.headers.get("Content-Length", "")
        if not text.isdecimal() or len(text) > 15 or self.headers.get("Transfer-Encoding"):
            raise UserError("the length of the body must be given")
        if int(text) > limit:
            raise TooLarge(f"the limit is {limit / 2**20:.3g} MiB; make it smaller")
        content = self.rfile.read(int(text))
        if len(content) < int(text):
            raise UserError("the body ended early")
        return content

    def query(self) -> dict[str, str]:
        """The parameters of the address."""
        return {key: values[-1] for key, values in parse_qs(urlsplit(self.path).query).items()}

    def send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> None:
        """Send an answer. headers: with _ for -."""
        self.send_response(status)
        fixed = {
            "Content-Type": f"{kind}; charset=utf-8" if kind.startswith("text/") else kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Content-Security-Policy": POLICY,
        }
        for name, value in (fixed | {name.replace("_", "-"): value for name, value in headers.items()}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        """Send JSON."""
        self.send(json.dumps(value).encode(), "application/json", status)

    def _fail(self, status: HTTPStatus, message: str) -> None:
        # The rest of a body that was not read would be taken for the next request.
        self.close_connection = True
        self.send(json.dumps({"error": message}).encode(), "application/json", status, Connection="close")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are not logged: the terminal has what goes wrong."""


Route = Callable[..., None]
Routes = list[tuple[re.Pattern[str], Route]]
WORD = r"[\w-]{1,64}"


@cache
def page_file(name: str) -> bytes:
    """A file of the page; the script has the viewer before it."""
    text = resources.files("z1g.inference.app").joinpath(name).read_text(encoding="utf-8")
    return (script() + text if name.endswith(".js") else text).encode()


def get_page(to: Handler, path: str) -> None:
    """The page, its style and its script."""
    name, kind = PAGE[path]
    to.send(page_file(name), kind)


def get_icon(to: Handler) -> None:
    """Browsers ask for an icon; there is none."""
    to.send(b"", "image/png", HTTPStatus.NO_CONTENT)


def get_about(to: Handler) -> None:
    """Models, and what this server can do."""
    try:
        require_packages()
        mesh = True
    except UserError:
        mesh = False
    models = [
        {
            "name": model.name, "steps": model.infer.steps, "guidance": model.infer.guidance,
            "fov": model.camera.fov_y_deg, "radius": model.camera.radius,
        }
        for model in to.server.studio.models
    ]  # fmt: skip
    to.send_json({"models": models, "mesh": mesh, "bytes": UPLOAD_BYTES, "seeds": SEEDS})


def post_photograph(to: Handler) -> None:
    """Take a photograph's file; `X-Name` is its name, percent-encoded."""
    uploads = to.server.studio.uploads
    identity = uploads.add(to.body(UPLOAD_BYTES), unquote(to.headers.get("X-Name", ""))[:200])
    upload = uploads.get(identity)
    to.send_json({"id": identity, "file": upload.file, "cuts": upload.cuts, "seed": upload.plain.seed})


def get_preview(to: Handler, photograph: str) -> None:
    """The condition image of a photograph with a cut and a framing."""
    query, studio = to.query(), to.server.studio
    cut: Cut = next((x for x in CUTS if x == query.get("cut")), "keep")
    framing = Framing((float(query.get("x", 0)), float(query.get("y", 0))), float(query.get("zoom", 1)))
    model = int(query.get("model", 0))
    if not 0 <= model < len(studio.models):
        raise UserError(f"there are {len(studio.models)} models here, counted from 0")
    to.send(studio.uploads.preview(photograph, cut, framing, studio.models[model]), "image/png")


def post_samples(to: Handler) -> None:
    """Ask for samples."""
    try:
        asked = Asked.model_validate_json(to.body(QUESTION_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc'])) or 'question'}: {first['msg']}") from error
    to.send_json({"samples": to.server.studio.ask(asked)})


def get_sample(to: Handler, sample: str) -> None:
    """The state of a sample."""
    found = to.server.studio.get(sample)
    to.send_json(
        {
            "name": found.name, "seed": found.seed, "state": found.state, "step": found.step, "steps": found.steps,
            "error": found.error, "ahead": to.server.studio.ahead(sample) if found.state == "waiting" else 0,
            "files": list(found.files) if found.state == "done" else [],
        }
    )  # fmt: skip


def post_stop(to: Handler, sample: str) -> None:
    """End a sample."""
    to.body(0)
    to.server.studio.stop(sample)
    to.send_json({})


def get_packed(to: Handler, sample: str) -> None:
    """Splats for the viewer."""
    to.send(packed(to.server.studio.get(sample)), "application/octet-stream")


def get_file(to: Handler, sample: str, ending: str) -> None:
    """A file to keep."""
    found = to.server.studio.get(sample)
    content = download(found, ending)
    kind = TYPES.get("." + ending.rpartition(".")[2], "application/octet-stream")
    to.send(content, kind, Content_Disposition=f'attachment; filename="{found.name}{ending}"')


def _routes(table: dict[str, Route]) -> Routes:
    return [(re.compile(pattern), route) for pattern, route in table.items()]


GET = _routes(
    {
        r"(?P<path>/|/app\.css|/app\.js)": get_page,
        r"/favicon\.ico": get_icon,
        r"/about": get_about,
        rf"/photographs/(?P<photograph>{WORD})/preview": get_preview,
        rf"/samples/(?P<sample>{WORD})": get_sample,
        rf"/samples/(?P<sample>{WORD})/packed": get_packed,
        rf"/samples/(?P<sample>{WORD})/file(?P<ending>(?:\.[a-z0-9]{{1,16}}){{1,2}})": get_file,
    }
)
POST = _routes(
    {r"/photographs": post_photograph, r"/samples": post_samples, rf"/samples/(?P<sample>{WORD})/stop": post_stop}
)
