"""`z1g view`: show files of Gaussians in the browser."""

import argparse
import contextlib
import sys
import threading
import webbrowser

from z1g.cli.arguments import between, some_path


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `view`."""
    parser.add_argument("splats", nargs="+", type=some_path, help="files to show side by side: .ply, .splat or .spz")
    parser.add_argument("--port", type=between(1, 65_535), default=8080, help="port of the page, or the next free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: reachable from other machines"
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the address")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Show the viewer until interrupted."""
    from z1g.inference.viewer.server import ViewerServer

    viewer = ViewerServer(arguments.splats, arguments.host, arguments.port)
    sys.stdout.write(f"{viewer.address}  (press Ctrl-C to stop)\n")
    sys.stdout.flush()
    if not arguments.no_browser:
        threading.Thread(target=webbrowser.open, args=(viewer.address,), daemon=True).start()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            viewer.serve_forever()
    finally:
        viewer.server_close()
