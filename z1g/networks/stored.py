"""Strict loading of diffusers and transformers networks from disk.

Both libraries initialize missing tensors and ignore unexpected ones, at most with a warning.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from safetensors import SafetensorError, safe_open
from torch import nn

from z1g.core.errors import UserError
from z1g.core.files import read_json, write_text
from z1g.core.weights import load_exactly, refuse_misfit, require_finite, require_fit
from z1g.networks import int8

UNREADABLE = (
    OSError, ValueError, RuntimeError, TypeError, AttributeError, LookupError, ArithmeticError, SafetensorError,
)  # fmt: skip
"""Exceptions of the libraries for missing, truncated or unsupported files, and for configurations with odd values."""
DERIVED = "position_ids"
"""Old CLIP files store these indices; new versions compute them."""


def read_network(cls: Any, folder: Path, remedy: str = "") -> Any:
    """Load a network that `save_pretrained` wrote into a folder, or the same one with weights in int8.

    Raises UserError naming the tensors that are missing, extra, of another shape or not finite, or the reason for a
    failed read, and `remedy`, what the user can do.
    """
    require_configuration(folder, remedy)
    network = _read_directly(cls, folder, remedy)
    if network is not None:
        return network
    try:
        network, info = load(cls, str(folder), {"local_files_only": True, "use_safetensors": True}, remedy)
    except UNREADABLE as error:
        end = remedy and f". {remedy}"
        raise UserError(f"{folder} cannot be read as {cls.__name__}: {first_line(error)}{end}") from error
    require_all(info, folder, remedy)
    require_finite(network.state_dict(), folder)
    return network


def require_configuration(folder: Path, remedy: str = "") -> None:
    """Raise UserError if the configuration of a network is there, but is no JSON object.

    diffusers would take other values for the name of a network, and look for that on the hub.
    """
    file = folder / "config.json"
    if not file.is_file():
        return
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {first_line(error)}{remedy and f'. {remedy}'}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} is not a JSON object{remedy and f'. {remedy}'}")


def _read_directly(cls: Any, folder: Path, remedy: str) -> Any:
    """The network, in a tenth of the libraries' time; None if only they can read the files or say what is wrong."""
    files = sorted(folder.glob(f"*{int8.SUFFIX}"))
    if len(files) != 1 or not (folder / "config.json").is_file():
        return None
    try:
        state = int8.load_restored(files[0])
        network = _empty(cls, folder)
    except UNREADABLE:
        return None
    fits = {name: tuple(value.shape) for name, value in network.state_dict().items()} == {
        name: tuple(value.shape) for name, value in state.items()
    }
    same_type = all(value.dtype == torch.float32 for value in state.values() if value.is_floating_point())
    if not (fits and same_type) and not int8.is_quantized(files[0]):
        return None
    load_exactly(network, state, folder, assign=True, remedy=remedy)
    return network.eval()


def _empty(cls: Any, folder: Path) -> Any:
    """The network that a folder's configuration describes, with weights that are to be replaced."""
    if _of_transformers(cls):
        # Its buffers are not in the file, so they are computed. Its weights are drawn at random, which nobody notices.
        with torch.random.fork_rng(devices=[]):
            return cls(cls.config_class.from_pretrained(str(folder), local_files_only=True))
    with torch.device("meta"):
        return cls.from_config(cls.load_config(folder))


def hush_saving() -> None:
    """Let transformers save networks without a progress bar, as diffusers does."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def forget_origin(folder: Path) -> None:
    """Remove from the configuration of a saved network where it was loaded from: equal networks have equal files."""
    file = folder / "config.json"
    config = read_json(file)
    if config.pop("_name_or_path", None) is not None:
        # The libraries sort keys, too.
        write_text(file, json.dumps(config, indent=2, sort_keys=True) + "\n")


def load(cls: Any, source: str, options: dict[str, Any], remedy: str = "") -> tuple[nn.Module, dict[str, Any]]:
    """Load a network from a folder or hub name; also returns the library's loading info, see `require_all`.

    Raises UserError if shapes differ, and the library's exceptions if the files cannot be read.
    """
    if _of_transformers(cls):
        from transformers.utils import logging

        # Networks load in milliseconds.
        logging.disable_progress_bar()
        # By default its error names no tensor.
        options = {**options, "ignore_mismatched_sizes": True}
    try:
        loaded: tuple[nn.Module, dict[str, Any]] = cls.from_pretrained(source, output_loading_info=True, **options)
    except ValueError:
        # diffusers stops at the first tensor of another shape.
        folder = Path(source, options.get("subfolder", ""))
        if options.get("use_safetensors") and (folder / "config.json").is_file():
            require_files_fit(cls, folder, remedy)
        raise
    return loaded


def require_all(info: dict[str, Any], where: Path | str, remedy: str = "") -> None:
    """Raise UserError if a library's loading info lists tensors that are missing, extra or of another shape."""
    misshapen = dict(_mismatch(item) for item in info["mismatched_keys"])
    refuse_misfit(
        set(_own(info["missing_keys"])) - misshapen.keys(), _own(info["unexpected_keys"]), misshapen, where, remedy
    )


def require_files_fit(cls: Any, folder: Path, remedy: str = "") -> None:
    """Raise UserError unless the safetensors of a folder fit the network that its config describes."""
    if _of_transformers(cls):
        # Only transformers knows the names under which its older versions stored tensors.
        read_network(cls, folder, remedy)
        return
    network = _empty(cls, folder)
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    require_fit(expected, {name: shapes[name] for name in _own(shapes)}, folder, remedy)


def first_line(error: Exception) -> str:
    """The first line of a library's message."""
    return str(error).strip().split("\n")[0]


def _of_transformers(cls: Any) -> bool:
    """Whether a network is one of transformers and not of diffusers; transformers takes seconds to import."""
    return not issubclass(cls, ModelMixin)


def _own(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.endswith(DERIVED)]


def _mismatch(item: Any) -> tuple[str, str]:
    """Name and shape text of a mismatched tensor; the libraries return a tuple of name and shapes, or a name."""
    if isinstance(item, str):
        return item, ""
    name, *shapes = item
    return name, " instead of ".join(str(list(shape)) for shape in shapes)
