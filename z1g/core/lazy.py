"""Modules that are imported on first use, so that reading a configuration never imports torch.

Files that define a slot (an options class next to its implementation) are imported whenever a configuration is read.
They use::

    if TYPE_CHECKING:
        import torch
    else:
        from z1g.core.lazy import torch
"""

import importlib
from typing import Any


class LazyModule:
    """Proxy of a module; the first attribute access imports it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


torch: Any = LazyModule("torch")
functional: Any = LazyModule("torch.nn.functional")
diffusers: Any = LazyModule("diffusers")
