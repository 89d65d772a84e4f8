"""Types of what `z1g/__init__.py` imports on first use."""

from z1g.gaussians.splats import Splats as Splats
from z1g.inference.method import ImageToSplats as ImageToSplats
from z1g.render.pictures import render as render

__all__ = ["ImageToSplats", "Splats", "__version__", "render"]
__version__: str
