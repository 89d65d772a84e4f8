"""Before the first job: whether all files, folders and packages that configurations name are on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from z1g.config.explain import locate
from z1g.config.resolve import Ablation
from z1g.config.walk import sections
from z1g.core.errors import UserError
from z1g.core.needs import Missing

log = logging.getLogger("z1g")
Policy = Literal["stop", "warn"]
ELSEWHERE = "where jobs run on machines that have these: --config missing=warn (snakemake), --missing warn (z1g plan)"


def preflight(ablations: Iterable[Ablation], policy: Policy = "stop") -> None:
    """Ask every section of every ablation whether it can work here (`Section.check`).

    What jobs can do without is logged as a warning; with the policy "warn", everything is. Raises UserError naming all
    the rest with file, line and key path.
    """
    examined = examine(ablations, policy)
    warn(examined)
    if stopping := [line for line, stops in examined.items() if stops]:
        raise UserError("\n".join([*stopping, ELSEWHERE]))


def examine(ablations: Iterable[Ablation], policy: Policy) -> dict[str, bool]:
    """The findings of all ablations, each once, and whether the policy lets it stop the plan."""
    return {line: fatal and policy == "stop" for ablation in ablations for line, fatal in findings(ablation)}


def warn(examined: Mapping[str, bool]) -> None:
    """Log the findings that do not stop the plan."""
    for line, stops in examined.items():
        if not stops:
            log.warning("%s", line)


def findings(ablation: Ablation) -> Iterator[tuple[str, bool]]:
    """What is missing, `file:line: key path: words`, and whether jobs cannot do without it."""
    for path, section in sections(ablation.experiment):
        try:
            section.check()
        except Missing as error:
            path = (*path, error.field) if error.field else path
            yield f"{locate(ablation.files, path)}: {'.'.join(path)}: {error.message}", error.fatal
        except (UserError, OSError) as error:
            yield f"{locate(ablation.files, path)}: {'.'.join(path)}: {error}", True
