"""Runs that were planned in a results folder, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from z1g.config.run_names import PART, SAFE, means
from z1g.core.errors import UserError
from z1g.core.files import read_bytes, write_text
from z1g.core.locks import waiting
from z1g.core.names import did_you_mean, listed
from z1g.core.sealed import checksum

FOLDER = "ablations"
NAMES_FILE = "runs.txt"
"""In the results folder: the planned ablations, one a line, since a command line cannot hold thousands of names."""
CHECKSUM = "# checksum "
"""Start of the last line of a file of names."""


def planned_runs(results: Path) -> list[str]:
    """Names of all planned runs, sorted, so that replicates follow each other."""
    return sorted(path.parent.name for path in results.glob(f"{FOLDER}/*/plan.json"))


def run_folder(text: str, results: Path) -> Path:
    """The folder that a path or the name of a run means: a folder as it is, or `<results>/ablations/<name>`.

    Raises UserError with the nearest name if there is neither.
    """
    path, named = Path(text), results / FOLDER / text
    if path.is_dir():
        return path
    if text and "/" not in text and (named / "plan.json").is_file():
        return named
    raise UserError(f'"{text}" is neither a folder nor a run of {results}{_nearest(text, planned_runs(results))}')


def _nearest(text: str, names: list[str]) -> str:
    """The runs that the name of a file or arm means; else the nearest run, or the studies that there are."""
    if not names:
        return ", which has no runs yet"
    if meant := [name for name in names if means(text, name)]:
        return f"; name one of its runs: {listed(meant)}"
    near = did_you_mean(text, names)
    return near if "did you mean" in near else did_you_mean(text, {name.partition(PART)[0] for name in names})


def write_names(file: Path, names: Sequence[str]) -> None:
    """Write names of runs, one a line, and their checksum. What killed processes left of them is removed."""
    with waiting(file.parent / FOLDER / ".lock"):
        for unfinished in file.parent.glob(f".{file.name}.*.tmp"):
            unfinished.unlink(missing_ok=True)
        write_text(file, "".join(f"{name}\n" for name in names) + f"{CHECKSUM}{checksum(list(names))}\n")


def named(words: Sequence[str]) -> list[str]:
    """Names of runs, where `@FILE` stands for those in a file, one a line: a command line cannot hold thousands.

    Raises UserError if a file cannot be read, names nothing, or does not have its checksum, which may be left out.
    """
    return [name for word in words for name in (_read_names(Path(word[1:])) if word.startswith("@") else [word])]


def _read_names(file: Path) -> list[str]:
    try:
        # Not `splitlines`, which takes characters for ends of lines that only damage can bring here.
        lines = [line.strip(" \t\r") for line in read_bytes(file).decode().split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    names = [line for line in lines if not line.startswith(CHECKSUM)]
    sums = [line.removeprefix(CHECKSUM) for line in lines if line.startswith(CHECKSUM)]
    if not names:
        raise UserError(f"{file} names no run")
    for name in names:
        if not SAFE.fullmatch(name):
            raise UserError(
                f"{file}: {name!r} cannot be a run's name: it is damaged; start `snakemake` to write it again"
            )
    if sums and sums != [checksum(names)]:
        raise UserError(f"{file} does not have its checksum: it is damaged; start `snakemake` again to write it again")
    return names
