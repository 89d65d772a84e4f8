"""`z1g app`: a page in the browser that makes splats of photographs."""

import argparse
import contextlib
import sys
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path

from z1g.cli import stage
from z1g.cli.arguments import between, some_path
from z1g.core.needs import GPU
from z1g.render.compiled import compile_beside


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `app`."""
    parser.add_argument(
        "--model", nargs="+", metavar="MODEL",
        help="models to choose from: folders, see z1g pack, names of the package or the hub, s3://BUCKET/PATH; "
        "default: all of the package",
    )  # fmt: skip
    parser.add_argument("--port", type=between(1, 65_535), default=8090, help="port of the page")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: reachable from other machines"
    )
    parser.add_argument("--keep", type=some_path, help="folder for all results; default: none is kept on disk")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument("--threads", type=between(0, 4096), default=0, help="threads of a sample; 0: torch's choice")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Serve the page until interrupted."""
    stage.limit_threads(arguments.threads)
    if not GPU.exists():
        compile_beside()
    from z1g.networks.lean import import_networks

    import_networks()
    from z1g.inference.app.server import AppServer
    from z1g.inference.app.work import Studio
    from z1g.inference.models import open_model
    from z1g.networks.weights.packaged import shipped

    models = [open_model(name) for name in arguments.model or shipped() or [None]]
    with _kept(arguments.keep) as (out, unfinished):
        studio = Studio(models, out, unfinished)
        server = AppServer(studio, arguments.host, arguments.port)
        sys.stdout.write(f"{server.address}  (press Ctrl-C to stop)\n")
        sys.stdout.flush()
        if not arguments.no_browser:
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        try:
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
        finally:
            server.server_close()
            studio.close()


@contextlib.contextmanager
def _kept(folder: Path | None) -> Iterator[tuple[Path | None, Path | None]]:
    """The folder of all results, held against other processes, and one in it for unfinished files."""
    if folder is None:
        yield None, None
        return
    from z1g.core.locks import exclusive_folder

    with exclusive_folder(folder) as unfinished:
        yield folder, unfinished
