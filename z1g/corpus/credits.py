"""Credits of a source: who made its objects, under which licenses, and the packages' own copyright files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from z1g.core.names import counted
from z1g.corpus.source import Item, Source

AUTHORS = ("copyright", "AUTHORS.data.txt", "COPYRIGHT.data.txt", "LICENSES")
"""Files of packages that tell who made what."""
LARGEST = 2 * 2**20


def credits_of(source: Source, items: Sequence[Item]) -> str:
    """A page in Markdown: creators with their licenses and numbers of objects, then the packages' files in full."""
    lines = [
        f"# Credits: {source.name}",
        "",
        f"{counted(len(items), 'object')} from Debian's {source.of}, converted to GLB.",
    ]
    if source.share_alike:
        lines += ["", source.share_alike]
    lines += ["", "| creator | license | objects |", "|---|---|---|"]
    counts = Counter((item.creator or "not known", item.license or "see below") for item in items)
    lines += [
        f"| {_cell(creator)} | {_cell(terms)} | {number} |" for (creator, terms), number in sorted(counts.items())
    ]
    for file in _files(source.folder):
        text = file.read_bytes()[:LARGEST].decode("utf-8", errors="replace").replace("```", "'''")
        lines += ["", f"## {file.relative_to(source.folder).as_posix()}", "", "```text", text.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.name in AUTHORS and file.is_file())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
