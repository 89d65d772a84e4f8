"""Configurations by name: of a scale, or of ablations at a scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from z1g.config.resolve import resolve, scale_file
from z1g.config.yaml_file import read_yaml
from z1g.core.errors import UserError
from z1g.plan.plan import read_ablations

if TYPE_CHECKING:
    from z1g.config.tree import Experiment


def experiments(
    scale: str, names: Sequence[str] | None, ablations: Path, configs: Path, objects: Sequence[str] = ()
) -> Iterator[tuple[str, Experiment]]:
    """Named ablations at a scale, or the scale itself under its name if there are no names. Raises UserError."""
    if not names:
        yield Path(scale).stem, resolve([read_yaml(scale_file(scale, configs))])
        return
    loaded, problems = read_ablations(scale, names, ablations, configs, objects)
    if problems:
        raise UserError("\n".join(problems))
    for ablation in loaded:
        yield ablation.name, ablation.experiment
