"""Networks of diffusers and transformers from disk, each with exactly its weights.

Both libraries initialize what a file lacks and drop what they do not know, with a warning at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from z1g.core.errors import UserError
from z1g.core.weights import refuse_misfit, require_fit

UNREADABLE = (OSError, ValueError, RuntimeError, SafetensorError)
"""What the libraries raise on folders that are missing, cut short or foreign."""
DERIVED = "position_ids"
"""Old versions of CLIP stored these counters; new ones make them."""


def read_network(cls: Any, folder: Path, remedy: str = "") -> Any:
    """A network that `save_pretrained` wrote into a folder.

    Raises UserError naming the tensors that are missing, extra or of another shape, or why nothing can be read.
    """
    try:
        network, info = load(cls, str(folder), {"local_files_only": True, "use_safetensors": True})
    except UNREADABLE as error:
        raise UserError(f"{folder} cannot be read as {cls.__name__}: {first_line(error)}") from error
    require_all(info, folder, remedy)
    return network


def load(cls: Any, source: str, options: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """A network from a folder or hub name, and what the library says of its tensors, see `require_all`.

    Raises UserError where shapes differ, and whatever the library raises where nothing can be read.
    """
    if issubclass(cls, PreTrainedModel):
        # It would name no tensor.
        options = {**options, "ignore_mismatched_sizes": True}
    try:
        loaded: tuple[nn.Module, dict[str, Any]] = cls.from_pretrained(source, output_loading_info=True, **options)
    except ValueError:
        # diffusers stops at the first tensor of another shape.
        folder = Path(source, options.get("subfolder", ""))
        if options.get("use_safetensors") and (folder / "config.json").is_file():
            require_files_fit(cls, folder)
        raise
    return loaded


def require_all(info: dict[str, Any], where: Path | str, remedy: str = "") -> None:
    """Raise UserError where a library's loading info tells of tensors that are missing, extra or misshapen."""
    misshapen = dict(_mismatch(item) for item in info["mismatched_keys"])
    refuse_misfit(
        set(_own(info["missing_keys"])) - misshapen.keys(), _own(info["unexpected_keys"]), misshapen, where, remedy
    )


def require_files_fit(cls: Any, folder: Path, remedy: str = "") -> None:
    """Raise UserError where the safetensors in a folder are not those of the network that its config describes."""
    if issubclass(cls, PreTrainedModel):
        # Only transformers knows by which names its older versions stored tensors.
        read_network(cls, folder, remedy)
        return
    with torch.device("meta"):
        network = cls.from_config(cls.load_config(folder))
    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            found |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    require_fit(expected, {name: found[name] for name in _own(found)}, folder, remedy)


def first_line(error: Exception) -> str:
    """The beginning of a library's message."""
    return str(error).strip().split("\n")[0]


def _own(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.endswith(DERIVED)]


def _mismatch(item: Any) -> tuple[str, str]:
    """Name and words of a tensor of another shape; the libraries give a tuple of name and shapes, or a name."""
    if isinstance(item, str):
        return item, ""
    name, *shapes = item
    return name, " instead of ".join(str(list(shape)) for shape in shapes)
