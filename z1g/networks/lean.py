"""Import the networks that sampling needs without what their libraries import besides.

diffusers imports transformers, peft, scipy, torch's compiler and, in two of its packages, hundreds of networks: most of
the time of a process that samples one photograph. All of these are optional, so that it does without them when they
cannot be imported.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

UNUSED = ("accelerate", "peft", "scipy", "sklearn", "torch._dynamo", "torchvision", "transformers")
"""Optional packages and modules that sampling never calls."""
CROWDED = (
    "diffusers.hooks",
    "diffusers.models.autoencoders",
    "diffusers.models.transformers",
    "diffusers.models.unets",
)
"""Packages that import all of their modules."""
NEEDED = (
    "diffusers.models.transformers.transformer_2d",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.schedulers.scheduling_utils",
)


_lean: list[bool] = []


def is_lean() -> bool:
    """Whether `import_networks` was in time, so that this process is to import no more than it needs."""
    return bool(_lean)


def import_networks() -> None:
    """Import diffusers' networks in a fraction of the time, if nothing has imported them yet.

    Only for a process that samples and ends: afterwards diffusers takes the unused packages for missing ones.
    """
    if "diffusers" in sys.modules:
        return
    _lean.append(True)
    with _kept(), _missing(UNUSED), _uncrowded(CROWDED), patch("torch.compiler.disable", _as_it_is):
        for name in NEEDED:
            importlib.import_module(name)


def _as_it_is(function: Any = None, **_: Any) -> Any:
    """In place of a decorator of torch's compiler, which is not used and would be imported."""
    return _as_it_is if function is None else function


@contextmanager
def _kept() -> Iterator[None]:
    """Look for no garbage among what exists at the end of this block: now, later, or when the process ends.

    Libraries stay as long as the process, and consist of hundreds of thousands of objects.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _missing(names: Sequence[str]) -> Iterator[None]:
    """Let imports of these modules fail, also of those that are imported already: numba imports scipy, for example."""
    imported = {name: sys.modules[name] for name in names if name in sys.modules}
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]  # None: see the import system's reference
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(imported)


@contextmanager
def _uncrowded(names: Sequence[str]) -> Iterator[None]:
    """Let modules of these packages be imported without running the packages' `__init__`."""
    for name in names:
        package = types.ModuleType(name)
        parent = importlib.util.find_spec(name.rpartition(".")[0])
        assert parent is not None
        assert parent.submodule_search_locations is not None
        package.__path__ = [f"{folder}/{name.rpartition('.')[2]}" for folder in parent.submodule_search_locations]
        sys.modules[name] = package
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
