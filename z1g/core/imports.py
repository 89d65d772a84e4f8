"""Import libraries in a fraction of the time: without the modules that a process never calls.

For processes that do one thing and end: what a library did not find while it was imported is missing to it for good.
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

_kept: list[bool] = []


@contextmanager
def kept() -> Iterator[None]:
    """Look for no garbage among what exists at the end of this block: now, later, or when the process ends.

    Libraries stay as long as the process, and consist of hundreds of thousands of objects. See `are_kept`.
    """
    _kept.append(True)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def are_kept() -> bool:
    """Whether libraries of this process were imported with `kept`. It is then to end without freeing them."""
    return bool(_kept)


@contextmanager
def missing(names: Sequence[str]) -> Iterator[None]:
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
def uncrowded(names: Sequence[str]) -> Iterator[None]:
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


@contextmanager
def postponed(names: Sequence[str]) -> Iterator[None]:
    """Let imports of these modules give proxies, which import them when something of them is first asked for.

    Modules that are imported already stay as they are.
    """
    proxies = {name: _proxy(name) for name in names if name not in sys.modules}
    sys.modules.update(proxies)
    try:
        yield
    finally:
        for name, proxy in proxies.items():
            if sys.modules.get(name) is proxy:
                del sys.modules[name]


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Let an attribute of a module have another value."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _proxy(name: str) -> types.ModuleType:
    module = types.ModuleType(name)

    def of_the_real_one(attribute: str) -> Any:
        # Asked by whoever looks through all modules, such as `inspect`, which must not import them.
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        if sys.modules.get(name) is module:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    module.__getattr__ = of_the_real_one  # type: ignore[method-assign]  # PEP 562
    return module
