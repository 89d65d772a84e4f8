"""The server of `z1g view`."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image

from z1g.core.errors import UserError
from z1g.core.names import counted
from z1g.inference.local_server import Handler, LocalServer, PortTaken, page, routes
from z1g.inference.viewer.gaussians import COLORINGS, VisibleGaussians
from z1g.surface.views import FOV_Y_DEG, RADIUS

log = logging.getLogger("z1g")
MOST_FILES = 12
"""Browsers allow few WebGL contexts."""
SHOWN = 1_000_000
"""Largest number of splats that a browser gets of all files together."""
CONDITION_SIDE = 640
PORTS = 100
"""Ports that are tried, one after the other."""
T = TypeVar("T")


class ViewerServer(LocalServer):
    """Shows files of Gaussians, on the first free port from `port`.

    Raises UserError if a file cannot be read, or if the server cannot listen.
    """

    def __init__(self, paths: Sequence[Path], host: str = "127.0.0.1", port: int = 0) -> None:
        if len(paths) > MOST_FILES:
            raise UserError(f"{len(paths)} files are more than a browser shows at once: at most {MOST_FILES}")
        self.models = [VisibleGaussians.load(path, SHOWN // len(paths)) for path in paths]
        self.conditions = [condition_of(path) for path in paths]
        self.get = GET
        last = min(port + PORTS, 65_535)
        for candidate in range(port, last):
            try:
                super().__init__(host, candidate)
                return
            except PortTaken:
                log.debug("port %d is taken", candidate)
        super().__init__(host, last)


def condition_of(path: Path) -> bytes | None:
    """PNG of the condition image that `z1g infer` has written beside the splats; None without one."""
    file = path.with_name(f"{path.stem}.condition.png")
    try:
        with Image.open(file, formats=["PNG"]) as image:
            image.thumbnail((CONDITION_SIDE, CONDITION_SIDE))
            content = io.BytesIO()
            image.convert("RGB").save(content, "PNG")
    except FileNotFoundError:
        return None
    except Exception as error:  # Pillow raises many kinds for damaged files
        log.warning("%s cannot be shown: %s", file, error)
        return None
    return content.getvalue()


def _server(to: Handler) -> ViewerServer:
    assert isinstance(to.server, ViewerServer)
    return to.server


def get_about(to: Handler) -> None:
    """Names and numbers of splats."""
    server = _server(to)
    models = [
        {"name": model.name, "shown": len(model.gaussians), "visible": model.n_visible, "condition": image is not None}
        for model, image in zip(server.models, server.conditions, strict=True)
    ]
    to.send_json({"models": models, "colorings": COLORINGS, "fov": FOV_Y_DEG, "radius": RADIUS})


def get_splats(to: Handler, index: str) -> None:
    """Splats of a file for `splatCanvas`; `color` says by what they are colored."""
    by = to.query().get("color", COLORINGS[0])
    if by not in COLORINGS:
        raise UserError(f"splats are colored by {', '.join(COLORINGS)}")
    to.send(_of(_server(to).models, index).packed(by), "application/octet-stream")


def get_condition(to: Handler, index: str) -> None:
    """The condition image of a file."""
    content = _of(_server(to).conditions, index)
    if content is None:
        raise UserError("there is no condition image beside this file")
    to.send(content, "image/png")


def _of(items: Sequence[T], index: str) -> T:
    if int(index) >= len(items):
        raise UserError(f"there is no such file here, but {counted(len(items), 'file')}, counted from 0")
    return items[int(index)]


GET = routes(
    {
        **page("z1g.inference.viewer", "page.html", "viewer.css", "viewer.js"),
        r"/about": get_about,
        r"/splats/(?P<index>[0-9]{1,3})": get_splats,
        r"/conditions/(?P<index>[0-9]{1,3})": get_condition,
    }
)
