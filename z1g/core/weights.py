"""Loading weights into a network exactly: nothing is missing, left over or of another shape."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from z1g.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

NAMED = 4
"""Tensors of each sort that a message names."""
Shape = tuple[int, ...]


def load_exactly(
    module: nn.Module,
    state: Mapping[str, Any],
    where: Path | str,
    only: Collection[str] | None = None,
    assign: bool = False,
    remedy: str = "",
) -> None:
    """Load a state dict that holds exactly what the module expects; where it does not, the module stays as it is.

    state: tensors, and extra state, by the names that `module.state_dict()` gives them. where: the file that they come
    from, for the message. only: names that the state holds, while the module's others keep their values; None: all.
    assign: take the state's tensors themselves instead of copying their numbers, as a module on `meta` needs it.
    remedy: what the user can do, the end of the message.

    Raises UserError naming the file and what is missing, extra and of another shape.
    """
    expected = {name: shape_of(value) for name, value in module.state_dict().items() if only is None or name in only}
    if unknown := sorted(set(only or ()) - expected.keys()):
        raise ValueError(f"{type(module).__name__} has no {', '.join(unknown)}")
    require_fit(expected, {name: shape_of(value) for name, value in state.items()}, where, remedy)
    module.load_state_dict(state, strict=only is None, assign=assign)


def require_fit(
    expected: Mapping[str, Shape | None], found: Mapping[str, Shape | None], where: Path | str, remedy: str = ""
) -> None:
    """Raise UserError where two sets of names and shapes are not the same. A shape of None is that of no tensor."""
    misshapen = {
        name: f"{_shown(found[name])} instead of {_shown(expected[name])}"
        for name in expected.keys() & found.keys()
        if expected[name] != found[name]
    }
    refuse_misfit(expected.keys() - found.keys(), found.keys() - expected.keys(), misshapen, where, remedy)


def refuse_misfit(
    missing: Collection[str],
    extra: Collection[str],
    misshapen: Mapping[str, str],
    where: Path | str,
    remedy: str = "",
) -> None:
    """Raise UserError where any of them is not empty. misshapen: for each name what is wrong with its shape."""
    sorts = {
        "missing": sorted(missing),
        "extra": sorted(extra),
        "of another shape": [f"{name} {misshapen[name]}".strip() for name in sorted(misshapen)],
    }
    parts = [f"{len(names)} {sort} ({_listed(names)})" for sort, names in sorts.items() if names]
    if parts:
        raise UserError(f"{where}: tensors do not fit the network: {'; '.join(parts)}{remedy and f'. {remedy}'}")


def shape_of(value: Tensor | Any) -> Shape | None:
    """Shape of a tensor, None for anything else."""
    return tuple(value.shape) if hasattr(value, "shape") else None


def _shown(shape: Shape | None) -> str:
    return "no tensor" if shape is None else str(list(shape))


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
