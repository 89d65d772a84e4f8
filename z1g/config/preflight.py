"""Before the first job: whether all files, folders and packages that configurations name are on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from z1g.config.explain import locate
from z1g.config.resolve import Ablation
from z1g.config.walk import sections
from z1g.config.yaml_file import KeyPath
from z1g.core.errors import UserError
from z1g.core.needs import Missing
from z1g.core.slots import Section

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
    """The findings of all ablations, each once, and whether the policy lets it stop the plan.

    A part of the configuration that several ablations share is asked once.
    """
    asked: dict[int, tuple[Section, list[_Lack]]] = {}
    examined: dict[str, bool] = {}
    for ablation in ablations:
        for name in type(ablation.experiment).model_fields:
            part = getattr(ablation.experiment, name)
            if id(part) not in asked:
                asked[id(part)] = part, list(_lacks(part, (name,)))
            for lack in asked[id(part)][1]:
                examined[lack.line(ablation)] = lack.fatal and policy == "stop"
    return examined


def warn(examined: Mapping[str, bool]) -> None:
    """Log the findings that do not stop the plan."""
    for line, stops in examined.items():
        if not stops:
            log.warning("%s", line)


def findings(ablation: Ablation) -> Iterator[tuple[str, bool]]:
    """What is missing, `file:line: key path: words`, and whether jobs cannot do without it."""
    for lack in _lacks(ablation.experiment, ()):
        yield lack.line(ablation), lack.fatal


@dataclass(frozen=True)
class _Lack:
    """What an option at a key path misses."""

    path: KeyPath
    words: str
    fatal: bool

    def line(self, ablation: Ablation) -> str:
        return f"{locate(ablation.files, self.path)}: {'.'.join(self.path)}: {self.words}"


def _lacks(section: Section, root: KeyPath) -> Iterator[_Lack]:
    for path, part in sections(section, root):
        try:
            part.check()
        except Missing as error:
            yield _Lack((*path, error.field) if error.field else path, error.message, error.fatal)
        except (UserError, OSError) as error:
            yield _Lack(path, str(error), True)
