"""HTTP servers for pages on this machine, of the standard library: fixed addresses, answered from memory.

Requests that change something carry a header that pages of other sites cannot send (they would have to ask first, and
nobody answers), and a server on loopback answers to its own names only, so that no other site's name leads to it.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from z1g.core.errors import UserError
from z1g.render.web import script

log = logging.getLogger("z1g")
REQUESTS = 24
"""Requests answered at once; others wait for their turn."""
PATIENCE_S = 15
"""A connection that says nothing for so long is closed: while it is open, it takes one of the turns."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Route = Callable[..., None]
Routes = list[tuple[re.Pattern[str], Route]]
"""Patterns of addresses with functions that answer; named groups are their arguments, after the handler."""
WORD = r"[\w-]{1,64}"


KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def routes(table: Mapping[str, Route]) -> Routes:
    """Routes of patterns as text."""
    return [(re.compile(pattern), route) for pattern, route in table.items()]


class TooLarge(UserError):
    """A body above its limit."""


class PortTaken(UserError):
    """Another program listens on the port."""


class LocalServer(ThreadingHTTPServer):
    """Answers what its routes say. host, port: where to listen; 0 takes a free port. Raises UserError if it cannot."""

    daemon_threads = True
    request_queue_size = 64
    get: Routes
    """Answers to GET."""
    post: Routes = []
    """Answers to POST, with the header X-Z1G: 1."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self._turns = threading.BoundedSemaphore(REQUESTS)
        try:
            self.address_family = socket.getaddrinfo(host, port)[0][0]
            super().__init__((host, port), Handler)
        except (OSError, UnicodeError) as error:
            kind = PortTaken if getattr(error, "errno", None) == errno.EADDRINUSE else UserError
            raise kind(f"--host {host} --port {port}: cannot be listened on ({error})") from error

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

    server: LocalServer
    server_version, sys_version = "z1g", ""
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        """Pages, states, images and files."""
        self._answer(self.server.get)

    def do_POST(self) -> None:
        """Photographs and questions."""
        self._answer(self.server.post, changes=True)

    def _answer(self, routes: Routes, changes: bool = False) -> None:
        try:
            if not self.server.is_own(self.headers.get("Host", "")):
                self._fail(HTTPStatus.FORBIDDEN, "this server is not reached by that name")
                return
            if changes and self.headers.get("X-Z1G") != "1":
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


def page(package: str, *names: str) -> dict[str, Route]:
    """Answers with files of a package, of which `page.html` is at /, and that there is no icon.

    Scripts have what draws splats before them, see `z1g.render.web.script`.
    """

    def sends(name: str) -> Route:
        return lambda to: to.send(_page_file(package, name), KINDS[Path(name).suffix])

    files = {re.escape(f"/{name}" if name != "page.html" else "/"): sends(name) for name in names}
    return {**files, r"/favicon\.ico": lambda to: to.send(b"", "image/png", HTTPStatus.NO_CONTENT)}


@cache
def _page_file(package: str, name: str) -> bytes:
    text = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    return (script() + text if name.endswith(".js") else text).encode()
