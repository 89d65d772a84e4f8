"""Writes the report on a set of ablations."""

from pathlib import Path

from z1g.core.files import write_text
from z1g.report.collect import Results
from z1g.report.html import page
from z1g.report.study_page import studies_of


def run(results: Path, names: list[str], out: Path) -> None:
    """Write one self-contained HTML page to the file `out`, and tables of studies to the folder `studies` beside it."""
    tree = Results(results)
    studies = studies_of(tree, tree.ablations(names))
    studies.write(out.parent / "studies")
    write_text(out, page(tree, names, studies))
