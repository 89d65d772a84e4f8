"""All preflights at once: what would stop a run of many ablations, before its first job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from z1g.config.preflight import ELSEWHERE, Policy, examine, warn
from z1g.config.resolve import Ablation
from z1g.core.errors import UserError
from z1g.plan.lists import Lists
from z1g.plan.plan import read_ablations


def check(
    scale: str,
    names: Iterable[str] | None,
    ablations: Path,
    configs: Path,
    objects: Sequence[str] = (),
    missing: Policy = "stop",
) -> int:
    """Read all ablations, ask for what their options need, and list their objects; arguments as in `Plan.load`.

    Unlike `Plan.load`, goes on after the first kind of mistake: an ablation that cannot be read does not hide what
    another one lacks. Logs warnings. Returns the number of ablations. Raises UserError with all findings, one a line.
    """
    loaded, problems = read_ablations(scale, names, ablations, configs, objects)
    examined = examine(loaded, missing)
    warn(examined)
    absent = [line for line, stops in examined.items() if stops]
    if stopping := [*problems, *_data_problems(loaded, missing), *absent, *([ELSEWHERE] if absent else [])]:
        raise UserError("\n".join(dict.fromkeys(stopping)))
    return len(loaded)


def _data_problems(ablations: Iterable[Ablation], missing: Policy) -> list[str]:
    """What is wrong with the objects of each data set that is on this machine."""
    problems = []
    lists = Lists()
    for ablation in {id(ablation.experiment.data): ablation for ablation in ablations}.values():
        try:
            if missing == "stop":
                ablation.experiment.data.check()
        except (UserError, OSError):
            continue  # The preflight names it.
        try:
            lists.of(ablation)
        except UserError as error:
            problems += str(error).splitlines()
    return problems
