"""All preflights at once: what would stop a run of many ablations, before its first job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from z1g.config.explain import locate
from z1g.config.preflight import ELSEWHERE, Policy, examine, warn
from z1g.config.resolve import Ablation
from z1g.core.errors import UserError
from z1g.core.stages import TRAINED
from z1g.plan.cost import memory
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

    Training that would not fit into `gpu_memory_gb` is a mistake, too, where its memory was measured.

    Unlike `Plan.load`, goes on after the first kind of mistake: an ablation that cannot be read does not hide what
    another one lacks. Logs warnings. Returns the number of ablations. Raises UserError with all findings, one a line.
    """
    loaded, problems = read_ablations(scale, names, ablations, configs, objects)
    examined = examine(loaded, missing)
    warn(examined)
    absent = [line for line, stops in examined.items() if stops]
    if stopping := [
        *problems,
        *_data_problems(loaded, missing),
        *_memory_problems(loaded),
        *absent,
        *([ELSEWHERE] if absent else []),
    ]:
        raise UserError("\n".join(dict.fromkeys(stopping)))
    return len(loaded)


def _memory_problems(ablations: Iterable[Ablation]) -> Iterator[str]:
    """Training stages that do not fit into the memory that they may use, as far as it was measured."""
    for ablation in ablations:
        for stage in TRAINED:
            if problem := memory.problem(ablation.experiment, stage):
                path = ("resources", stage, "gpu_memory_gb")
                yield f"{locate(ablation.files, path)}: {'.'.join(path)}: {problem}"


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
