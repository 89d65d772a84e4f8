"""The server of `z1g app`."""

from __future__ import annotations

from urllib.parse import unquote

from pydantic import ValidationError

from z1g.core.errors import UserError
from z1g.core.names import counted
from z1g.inference.app.uploads import Cut
from z1g.inference.app.work import SEEDS, Asked, Studio, download, packed
from z1g.inference.local_server import WORD, Handler, LocalServer, page, routes
from z1g.inference.photographs import Framing
from z1g.surface.build import require_packages

UPLOAD_BYTES, QUESTION_BYTES = 32 * 2**20, 16 * 2**10
"""Size limits of a photograph's file and of a question in JSON."""
TYPES = {
    ".json": "application/json", ".png": "image/png", ".mp4": "video/mp4", ".webp": "image/webp",
    ".glb": "model/gltf-binary",
}  # fmt: skip
CUTS: tuple[Cut, ...] = ("alpha", "rembg", "keep")


class AppServer(LocalServer):
    """Serves one `Studio`. host, port: where to listen; port 0 takes a free one. Raises UserError if it cannot."""

    def __init__(self, studio: Studio, host: str = "127.0.0.1", port: int = 0) -> None:
        self.studio = studio
        self.get, self.post = GET, POST
        super().__init__(host, port)


def _studio(to: Handler) -> Studio:
    assert isinstance(to.server, AppServer)
    return to.server.studio


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
        for model in _studio(to).models
    ]  # fmt: skip
    to.send_json({"models": models, "mesh": mesh, "bytes": UPLOAD_BYTES, "seeds": SEEDS})


def post_photograph(to: Handler) -> None:
    """Take a photograph's file; `X-Name` is its name, percent-encoded."""
    uploads = _studio(to).uploads
    identity = uploads.add(to.body(UPLOAD_BYTES), unquote(to.headers.get("X-Name", ""))[:200])
    upload = uploads.get(identity)
    to.send_json({"id": identity, "file": upload.file, "cuts": upload.cuts, "seed": upload.plain.seed})


def get_preview(to: Handler, photograph: str) -> None:
    """The condition image of a photograph with a cut and a framing."""
    query, studio = to.query(), _studio(to)
    cut: Cut = next((x for x in CUTS if x == query.get("cut")), "keep")
    framing = Framing((float(query.get("x", 0)), float(query.get("y", 0))), float(query.get("zoom", 1)))
    model = int(query.get("model", 0))
    if not 0 <= model < len(studio.models):
        raise UserError(f"there is no model {model} here, but {counted(len(studio.models), 'model')}, counted from 0")
    to.send(studio.uploads.preview(photograph, cut, framing, studio.models[model]), "image/png")


def post_samples(to: Handler) -> None:
    """Ask for samples."""
    try:
        asked = Asked.model_validate_json(to.body(QUESTION_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc'])) or 'question'}: {first['msg']}") from error
    to.send_json({"samples": _studio(to).ask(asked)})


def get_sample(to: Handler, sample: str) -> None:
    """The state of a sample."""
    found = _studio(to).get(sample)
    to.send_json(
        {
            "name": found.name, "seed": found.seed, "state": found.state, "step": found.step, "steps": found.steps,
            "error": found.error, "ahead": _studio(to).ahead(sample) if found.state == "waiting" else 0,
            "files": list(found.files) if found.state == "done" else [],
        }
    )  # fmt: skip


def post_stop(to: Handler, sample: str) -> None:
    """End a sample."""
    to.body(0)
    _studio(to).stop(sample)
    to.send_json({})


def get_packed(to: Handler, sample: str) -> None:
    """Splats for the viewer."""
    to.send(packed(_studio(to).get(sample)), "application/octet-stream")


def get_file(to: Handler, sample: str, ending: str) -> None:
    """A file to keep."""
    found = _studio(to).get(sample)
    content = download(found, ending)
    kind = TYPES.get("." + ending.rpartition(".")[2], "application/octet-stream")
    to.send(content, kind, Content_Disposition=f'attachment; filename="{found.name}{ending}"')


GET = routes(
    {
        **page("z1g.inference.app", "page.html", "app.css", "app.js"),
        r"/about": get_about,
        rf"/photographs/(?P<photograph>{WORD})/preview": get_preview,
        rf"/samples/(?P<sample>{WORD})": get_sample,
        rf"/samples/(?P<sample>{WORD})/packed": get_packed,
        rf"/samples/(?P<sample>{WORD})/file(?P<ending>(?:\.[a-z0-9]{{1,16}}){{1,2}})": get_file,
    }
)
POST = routes(
    {r"/photographs": post_photograph, r"/samples": post_samples, rf"/samples/(?P<sample>{WORD})/stop": post_stop}
)
