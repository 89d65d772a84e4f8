"""Writes the report on a set of ablations."""

from pathlib import Path

from z1g.core.files import write_text
from z1g.report.collect import Results
from z1g.report.html import page


def run(results: Path, names: list[str], out: Path) -> None:
    """Write one self-contained HTML page to the file `out`."""
    write_text(out, page(Results(results), names))
