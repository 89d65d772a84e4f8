"""A damaged file of a results tree is noticed by everyone whom it would mislead.

By default one bit of each kind of file is flipped. `Z1G_DAMAGE=all` also cuts, empties and swaps each, flips bits at
more places, and lets every command read it; `Z1G_DAMAGE_TABLE=file.md` writes the results as a table.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import pytest
from support.damage import DAMAGES, HARMLESS, KINDS, NOTICED, READ_BY_INFER, Judge, Kind, flip
from support.finished import finish

ALL = os.environ.get("Z1G_DAMAGE") == "all"
TABLE = os.environ.get("Z1G_DAMAGE_TABLE")
PLACES = (0.1, 0.9) if ALL else ()
READERS = ("next", "verify", "compare", "photograph")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    planned = finish(tmp_path_factory.mktemp("damage"), metrics={"metrics": {"fd_efflite0": None, "chamfer": None}})
    return Judge(planned, tmp_path_factory.mktemp("copies"))


Table = dict[tuple[str, str], dict[str, Counter[str]]]
"""Counts of verdicts by kind and damage, and by reader."""


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """What the tests of this module fill; written at their end if `Z1G_DAMAGE_TABLE` names a file."""
    filled: Table = {}
    yield filled
    if TABLE is not None:
        lines = [f"| file | damage | {' | '.join(READERS)} |", f"|{'---|' * (2 + len(READERS))}"]
        for (pattern, damage), cells in filled.items():
            words = [", ".join(f"{n}× {verdict}" for verdict, n in sorted(cells.get(c, {}).items())) for c in READERS]
            lines.append(f"| `{pattern}` | {damage} | {' | '.join(words)} |")
        Path(TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def damages() -> list[tuple[str, Callable[[Path], None]]]:
    if not ALL:
        return [("bit flipped", flip)]
    return [*DAMAGES.items(), *(("bit flipped", partial(flip, place=place)) for place in PLACES)]


def readers(kind: Kind, first: bool) -> list[tuple[str, str]]:
    """Column of the table and command. first: whether the damage is the first of its name."""
    pairs = [("next", kind.next), ("verify", "verify")]
    if first:
        pairs.append(("compare", "compare"))
    if kind.pattern.startswith(READ_BY_INFER) or (ALL and first and kind.read):
        pairs.append(("photograph", "photograph"))
    return pairs


@pytest.mark.parametrize("kind", KINDS, ids=[kind.pattern.replace("/", "-") for kind in KINDS])
def test_damage_is_noticed_or_harmless(kind: Kind, judge: Judge, table: Table) -> None:
    bad = []
    for name, damage in damages():
        for column, reader in readers(kind, first=not isinstance(damage, partial)):
            verdict, said = judge.verdict(kind, damage, reader)
            table.setdefault((kind.pattern, name), {}).setdefault(column, Counter())[verdict] += 1
            if verdict not in (NOTICED, HARMLESS):
                bad.append(f"{name}, read by {reader}: {verdict}\n{said}")
            if not kind.read and verdict != HARMLESS:
                bad.append(f"{name}, read by {reader}: nobody should care about it\n{said}")
    assert not bad, "\n".join(bad)


def test_every_file_is_of_a_listed_kind(judge: Judge) -> None:
    patterns = [kind.pattern for kind in KINDS] + [
        "unet/*/pipeline/*/config.json",
        "*/.turns/*",
        "*/.*lock",
        "*/tb/*",
        "*/.snakemake_timestamp",
    ]
    for word, every in (("chunk-00000", "chunk-*"), ("step-00000006", "step-*"), ("sampled", "*")):
        patterns = [pattern.replace(word, every) for pattern in patterns]
    files = [file for file in judge.planned.results.rglob("*") if file.is_file() and not file.is_symlink()]
    names = [file.relative_to(judge.planned.results).as_posix() for file in files]
    assert [name for name in names if not any(fnmatch(name, pattern) for pattern in patterns)] == []
