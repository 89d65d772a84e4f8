"""Writes tables that compare ablations."""

import logging
from pathlib import Path

from z1g.core.files import write_text
from z1g.report.collect import Results
from z1g.report.summary import summarize
from z1g.report.tables import csv_text, latex, markdown

log = logging.getLogger("z1g")


def run(results: Path, names: list[str], out: Path) -> None:
    """Write `ablations.csv`, `ablations.md` and `ablations.tex` into the folder `out`."""
    tree = Results(results)
    summary = summarize(tree, tree.ablations(names))
    write_text(out / "ablations.csv", csv_text(summary.single, summary.metrics))
    write_text(out / "ablations.md", markdown(summary))
    write_text(out / "ablations.tex", latex(summary))
    for note in tree.notes:
        log.warning("%s", note)
