"""`z1g corpus`: convert a source of the corpus from unpacked packages, and join the lists of several."""

import argparse
import sys
from pathlib import Path

from z1g.cli.arguments import at_least, between, existing_folder, some_path
from z1g.core.errors import UserError

SOURCES = ("0ad", "flightgear", "furniture", "megaglest", "ufoai")


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `corpus`."""
    parts = parser.add_subparsers(dest="what", required=True, metavar="part")
    convert = parts.add_parser("convert", help="convert one source to GLB, with its list, sheets and credits")
    convert.add_argument("source", choices=SOURCES)
    convert.add_argument("folder", type=existing_folder, help="with the files of its packages")
    convert.add_argument("--out", type=some_path, required=True, help="the folder to write")
    convert.add_argument("--textures", type=between(16, 4096), default=512, help="largest side of a texture, texels")
    convert.add_argument("--processes", type=between(1, 64), default=2, help="processes that convert")
    convert.add_argument("--limit", type=at_least(1), help="objects to try; default: all")
    join = parts.add_parser("join", help="write one list of several sources")
    join.add_argument("folders", nargs="+", type=existing_folder, help="what `convert` wrote")
    join.add_argument("--out", type=some_path, required=True, help="the folder of the list")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Convert or join, and print the numbers of objects."""
    if arguments.what == "join":
        from z1g.corpus.joining import join

        sys.stdout.write(join(arguments.folders, arguments.out) + "\n")
        return
    from z1g.corpus.build import build

    _require_apart(arguments.folder, arguments.out)
    line = build(arguments.source, arguments.folder, arguments.out, arguments.textures, arguments.processes,
                 arguments.limit)  # fmt: skip
    sys.stdout.write(line + "\n")


def _require_apart(folder: Path, out: Path) -> None:
    """Raise UserError if the output lies in the folder that is read, whose files would mix with it."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--out {out} is inside of {folder}, which is read; name another folder")
