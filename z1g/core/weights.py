"""Strict loading of weights: no tensor may be missing, extra, of another shape or not finite."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from z1g.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_NAMES = 4
"""Number of tensors of each group that a message lists."""
Shape = tuple[int, ...]


def load_exactly(
    module: nn.Module,
    state: Mapping[str, Any],
    where: Path | str,
    only: Collection[str] | None = None,
    assign: bool = False,
    remedy: str = "",
) -> None:
    """Load a state dict with exactly the tensors that the module expects; on an error the module is unchanged.

    state: tensors, and extra state, by their names in `module.state_dict()`. where: source file, for the message.
    only: names that the state has; the module's other tensors keep their values; None: all names. assign: use the
    state's tensors themselves instead of copying their values, which a module on `meta` needs. remedy: what the user
    can do, the end of the message.

    Raises UserError naming the file and the tensors that are missing, extra, of another shape or kind, or not finite.
    """
    own = {name: value for name, value in module.state_dict().items() if only is None or name in only}
    expected = {name: shape_of(value) for name, value in own.items()}
    if unknown := sorted(set(only or ()) - expected.keys()):
        raise ValueError(f"{type(module).__name__} has no {', '.join(unknown)}")
    require_fit(expected, {name: shape_of(value) for name, value in state.items()}, where, remedy)
    _require_kinds(own, state, where)
    require_finite(state, where)
    module.load_state_dict(state, strict=only is None, assign=assign)


def require_finite(state: Mapping[str, Any], where: Path | str) -> None:
    """Raise UserError naming the tensors of a state dict that have NaN or infinite values."""
    tensors = {name: value for name, value in state.items() if shape_of(value) is not None and not value.is_meta}
    names = sorted(name for name, value in tensors.items() if not _is_finite(value))
    if names:
        raise UserError(
            f"{where}: {len(names)} of {len(tensors)} tensors have values that are not finite ({_joined(names)}); "
            "the file is damaged, or its training diverged"
        )


def _require_kinds(own: Mapping[str, Any], state: Mapping[str, Any], where: Path | str) -> None:
    """Raise UserError naming tensors of whole numbers in place of real ones, as int8 without scales, or the reverse."""
    tensors = {name: value for name, value in own.items() if shape_of(value) is not None}
    kinds = {
        name: f"{name} {_type_text(state[name])} instead of {_type_text(value)}"
        for name, value in tensors.items()
        if state[name].is_floating_point() != value.is_floating_point()
    }
    if kinds:
        listed = _joined([kinds[name] for name in sorted(kinds)])
        raise UserError(f"{where}: {len(kinds)} of {len(tensors)} tensors have another type ({listed}); it is damaged")


def _type_text(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite. NaN is the minimum and the maximum of values that include it.

    One pass without a copy, in a quarter of the time of `isfinite`.
    """
    if tensor.is_complex() or tensor.element_size() == 1:  # `aminmax` has no kernels for them
        return bool(tensor.isfinite().all())
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = tensor.aminmax()
    return bool(low.isfinite() and high.isfinite())


def require_fit(
    expected: Mapping[str, Shape | None], actual: Mapping[str, Shape | None], where: Path | str, remedy: str = ""
) -> None:
    """Raise UserError unless names and shapes are the same. A shape of None means that the value is not a tensor."""
    misshapen = {
        name: f"{_shape_text(actual[name])} instead of {_shape_text(expected[name])}"
        for name in expected.keys() & actual.keys()
        if expected[name] != actual[name]
    }
    refuse_misfit(expected.keys() - actual.keys(), actual.keys() - expected.keys(), misshapen, where, remedy)


def refuse_misfit(
    missing: Collection[str],
    extra: Collection[str],
    misshapen: Mapping[str, str],
    where: Path | str,
    remedy: str = "",
) -> None:
    """Raise UserError if any of them is not empty. misshapen: by name, a description of the wrong shape."""
    groups = {
        "missing": sorted(missing),
        "extra": sorted(extra),
        "of another shape": [f"{name} {misshapen[name]}".strip() for name in sorted(misshapen)],
    }
    parts = [f"{len(names)} {group} ({_joined(names)})" for group, names in groups.items() if names]
    if parts:
        raise UserError(f"{where}: tensors do not fit the network: {'; '.join(parts)}{remedy and f'. {remedy}'}")


def shape_of(value: Tensor | Any) -> Shape | None:
    """Shape of a tensor; None for other values."""
    return tuple(value.shape) if hasattr(value, "shape") else None


def _shape_text(shape: Shape | None) -> str:
    return "no tensor" if shape is None else str(list(shape))


def _joined(names: list[str]) -> str:
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
