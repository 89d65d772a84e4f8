"""A search space in the terms of Optuna. Points keep the few digits that names of runs have."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from z1g.config.sweep import Distribution

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Space = Mapping[str, Distribution]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each key path. Choices are JSON texts, since they may be lists and mappings."""
    return {path: _distribution(kind) for path, kind in space.items()}


def _distribution(kind: Distribution) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if kind.choice is not None:
        return CategoricalDistribution([json.dumps(value) for value in kind.choice])
    if kind.integers is not None:
        return IntDistribution(*kind.integers)
    if kind.log_uniform is not None:
        return FloatDistribution(*kind.log_uniform, log=True)
    return FloatDistribution(*(kind.uniform or (0.0, 1.0)))


def rounded(space: Space, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Optuna's parameters with numbers rounded as in a random sweep; still parameters of the same distributions."""
    return {path: _rounded(kind, parameters[path]) for path, kind in space.items()}


def _rounded(kind: Distribution, value: Any) -> Any:
    if kind.log_uniform is not None:
        low, high = kind.log_uniform
        return kind.at(math.log(value / low) / math.log(high / low))
    if kind.uniform is not None:
        low, high = kind.uniform
        return kind.at((value - low) / (high - low))
    return value


def probes(space: Space) -> list[dict[str, Any]]:
    """The middle of the space, and points that differ from it in one key path: each choice, or each limit."""
    middle = {path: kind.at(0.5) for path, kind in space.items()}
    return [middle, *({**middle, path: value} for path, kind in space.items() for value in kind.ends())]


def point(space: Space, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Values of an ablation by key path."""
    return {
        path: json.loads(parameters[path]) if kind.choice is not None else parameters[path]
        for path, kind in space.items()
    }
