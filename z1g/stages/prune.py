"""Decides which arms of a study are trained beyond a rung."""

import logging
from pathlib import Path

from z1g.core.sealed import write_sealed
from z1g.plan.pruning import Cohort, decision_file, study_owner
from z1g.plan.records import PLAN, ablation_owner, read_plan
from z1g.training.rungs import FIGURES, rung_name

log = logging.getLogger("z1g")


def run(results: Path, study: str, rung: float) -> None:
    """Write the decision at a rung, and why a run was pruned as `pruned` to the `plan.json` of its runs."""
    cohort = Cohort.load(results, study)
    decision = cohort.decision(results, rung)
    write_sealed(decision_file(results, study, rung), decision, study_owner(study))
    pruned = cohort.pruned(results)
    for name in cohort.runs:
        folder = results / "ablations" / name
        plan = {key: value for key, value in read_plan(folder).items() if key != "pruned"}
        reason = {"pruned": pruned[name]} if name in pruned else {}
        write_sealed(folder / PLAN, {**plan, **reason}, ablation_owner(name))
    figure = FIGURES[cohort.prune.by]
    for arm, value in decision["values"].items():
        shown = "no value" if value is None else f"{figure.label} {value:.2f} {figure.unit}"
        log.info("%s: %s at %s: %s", "kept" if arm in decision["kept"] else "pruned", arm, rung_name(rung), shown)
