"""Runs that the budget of a set left out, and what each of them would have added to its GPU hours."""

from collections.abc import Iterable
from dataclasses import replace

from z1g.config.run_names import means
from z1g.core.errors import UserError
from z1g.jobs.budget import Budget, read_budget, stage_folders
from z1g.report.collect import Ablation, Results


def budget_of(results: Results, ablations: Iterable[Ablation]) -> Budget | None:
    """The budget of the set that was started last, if it is the set of these ablations and left something out.

    A budget that cannot be read is noted.
    """
    try:
        budget = read_budget(results.root)
    except UserError as error:
        results.note(str(error))
        return None
    if budget is None or not budget.left_out:
        return None
    own = set(stage_folders(key for ablation in ablations for key in ablation.stages.items()))
    return budget if own & set(budget.stages) else None


def left_out_of(results: Results, target: str) -> Budget | None:
    """The budget as far as it left out runs that a name means: a run, an arm or a study; None if it left out none."""
    try:
        budget = read_budget(results.root)
    except UserError:
        return None
    return budget and _only(budget, target)


def left_out_hours(results: Results, ablations: Iterable[Ablation], study: str) -> dict[str, float]:
    """GPU hours that each run of a study would have added that the budget of these ablations left out."""
    budget = budget_of(results, ablations)
    part = budget and _only(budget, study)
    return dict(part.left_out) if part else {}


def left_out_text(budget: Budget) -> str:
    """A sentence on which runs were left out, and on the GPU hours that each would add."""
    runs = ", ".join(f"{name} (+{hours:.4g})" for name, hours in budget.left_out.items())
    return f"Left out by the budget of {budget.gpu_hours:.4g} GPU hours, with those that each run would add: {runs}."


def _only(budget: Budget, target: str) -> Budget | None:
    hours = {name: hours for name, hours in budget.left_out.items() if means(target, name)}
    return replace(budget, left_out=hours) if hours else None
