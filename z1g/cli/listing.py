"""`z1g list`: write a list of the objects at paths, with their digests, for `data.paths`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from z1g.cli.arguments import some_path
from z1g.cli.near_duplicates import Compared, compare
from z1g.core.errors import UserError
from z1g.core.files import write_jsonl
from z1g.core.names import counted
from z1g.core.urls import is_url
from z1g.data.manifest import INSIDE, ObjectEntry, as_row
from z1g.meshes.colors import colored
from z1g.meshes.copies import copied
from z1g.meshes.files import readable
from z1g.meshes.listing import find_objects
from z1g.meshes.lists import COLUMNS
from z1g.meshes.store import UNREADABLE, Archive, Disk


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `list`."""
    parser.add_argument(
        "paths",
        nargs="+",
        help="folders, globs, mesh files, archives (.zip .sh3f) or lists; those of buckets (s3://BUCKET/PATH) are "
        "copied to NAME.files beside the list",
    )
    parser.add_argument("--out", type=some_path, required=True, help="the list to write (.jsonl)")
    parser.add_argument(
        "--root", action="append", default=[], help="a further folder from which meshes may read, as in data.roots"
    )
    parser.add_argument("--colored", action="store_true", help="leave out OBJ meshes of one plain color")
    parser.add_argument(
        "--near-duplicates",
        action="store_true",
        help="find objects of one shape with other textures, parts or poses; they share a `group` and so a side of the "
        "split. Pairs and reasons are written beside the list, to NAME.near.jsonl",
    )
    parser.add_argument(
        "--against", action="append", default=[], metavar="PATH",
        help="leave out near duplicates of the objects at this path, for example of the objects of a test",
    )  # fmt: skip


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Write the list and print the numbers of objects and duplicates."""
    if arguments.out.suffix != ".jsonl":
        raise UserError(f"--out {arguments.out}: lists are JSON Lines; use a name that ends in .jsonl")
    if absent := [text for text in arguments.root if not Path(text).is_dir()]:
        raise UserError(f"--root {absent[0]}: no such folder (looked from {Path.cwd()})")
    copies_of = arguments.out.with_suffix(".files")
    paths = [copied(text, copies_of) if is_url(text) else text for text in arguments.paths]
    entries = find_objects(paths, roots=arguments.root)
    kept = [entry for entry in entries if not arguments.colored or _colored(entry, arguments.root)]
    if not kept:
        raise UserError(
            f"{', '.join(arguments.paths)}: without those of one plain color, nothing is left of "
            f"{counted(len(entries), 'object')}"
        )
    compared = Compared(kept, [], [], {})
    if arguments.near_duplicates or arguments.against:
        compared = compare(kept, arguments)
        write_jsonl(arguments.out.with_suffix(".near.jsonl"), compared.rows())
    write_jsonl(arguments.out, [_row(entry, arguments.out.parent) for entry in compared.kept])
    copies = sum(len(entry.copies) for entry in entries)
    sys.stdout.write(f"{arguments.out}: {counted(len(compared.kept), 'object')}")
    sys.stdout.write(compared.text())
    sys.stdout.write(f", {len(entries) - len(kept)} of one plain color left out" if arguments.colored else "")
    sys.stdout.write(f", {counted(copies, 'duplicate')} listed once" if copies else "")
    unread = sum(not entry.content for entry in entries)
    sys.stdout.write(f", {unread} not read (ingest sets them aside and says why)\n" if unread else "\n")


def _row(entry: ObjectEntry, folder: Path) -> dict[str, str]:
    file, inside, member = entry.source.partition(INSIDE)
    path = os.path.relpath(file, folder) + inside + member
    values = {**as_row(entry), "path": path, "source": entry.origin}
    row = {name: values[name] for name in COLUMNS if values.get(name)}
    return row | ({"root": os.path.relpath(entry.root, folder)} if entry.root else {})


def _colored(entry: ObjectEntry, roots: Sequence[str]) -> bool:
    """Whether a mesh is colored; True for those that were not read, so that ingest reports the error."""
    if not entry.content:
        return True
    file, inside, member = entry.source.partition(INSIDE)
    path = Path(file)
    try:
        if not inside:
            return colored(Disk(path.parent, readable(entry, path.parent, roots)), path.name)
        with Archive(path) as archive:
            return colored(archive, member)
    except UNREADABLE:
        return True
