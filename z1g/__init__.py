"""Zero-1-to-G: image to Gaussian splats with a 2D latent diffusion model.

`ImageToSplats`, `Splats` and `render` are imported on first use, so that `import z1g` imports nothing else; their types
are in `__init__.pyi`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["ImageToSplats", "Splats", "__version__", "render"]

_MODULES = {"ImageToSplats": "z1g.inference.method", "Splats": "z1g.gaussians.splats"}


def __getattr__(name: str) -> Any:
    if name == "render":
        return importlib.import_module("z1g.render")
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
