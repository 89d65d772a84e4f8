"""Decides which arms of a study are trained beyond a rung."""

import logging
from pathlib import Path

from z1g.core.files import read_json, write_json
from z1g.plan.pruning import Cohort, decision_file
from z1g.training.rungs import FIGURES, rung_name

log = logging.getLogger("z1g")


def run(results: Path, study: str, rung: float) -> None:
    """Write the decision at a rung, and why a run was pruned as `pruned` to the `plan.json` of its runs."""
    cohort = Cohort.load(results, study)
    decision = cohort.decision(results, rung)
    write_json(decision_file(results, study, rung), decision)
    pruned = cohort.pruned(results)
    for name in cohort.runs:
        file = results / "ablations" / name / "plan.json"
        plan = {key: value for key, value in read_json(file).items() if key != "pruned"}
        write_json(file, {**plan, **({"pruned": pruned[name]} if name in pruned else {})})
    figure = FIGURES[cohort.prune.by]
    for arm, value in decision["values"].items():
        shown = "no value" if value is None else f"{figure.label} {value:.2f} {figure.unit}"
        log.info("%s: %s at %s: %s", "kept" if arm in decision["kept"] else "pruned", arm, rung_name(rung), shown)
