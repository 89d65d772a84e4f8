"""One list of all sources."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from z1g.core.errors import UserError
from z1g.core.files import read_jsonl, write_jsonl
from z1g.corpus.build import LIST, REJECTED, kind_of
from z1g.corpus.excluded import require_allowed


def join(folders: Sequence[Path], out: Path) -> str:
    """Write the list and the rejected objects of sources' folders below `out`; return a table of their numbers.

    Paths are made relative to `out`. Raises UserError if a source is missing or has what is never listed.
    """
    listed: list[dict[str, str]] = []
    rejected: list[dict[str, str]] = []
    lines = []
    for folder in folders:
        rows, refused = _rows(folder / LIST, "path"), _rows(folder / REJECTED, "reason")
        place = Path(os.path.relpath(folder, out))
        listed += [{**row, "path": (place / row["path"]).as_posix()} for row in rows]
        rejected += refused
        lines.append(f"{folder.name:<12}{len(rows):>6} listed {len(refused):>6} rejected")
    require_allowed(value for row in listed for key, value in row.items() if key != "creator")
    write_jsonl(out / LIST, listed)
    write_jsonl(out / REJECTED, rejected)
    lines.append(f"{'all':<12}{len(listed):>6} listed {len(rejected):>6} rejected")
    kinds = Counter(kind_of(row["reason"]) for row in rejected)
    lines += [f"  {number:>6} {kind}" for kind, number in kinds.most_common()]
    return "\n".join(lines)


def _rows(path: Path, key: str) -> list[dict[str, str]]:
    """Rows of texts, all with a key. Raises UserError."""
    try:
        rows = read_jsonl(path)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}; convert the source first") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or key not in row or not all(isinstance(value, str) for value in row.values()):
            raise UserError(f"{path}, line {number}: no object of the corpus; convert the source again")
    return rows
