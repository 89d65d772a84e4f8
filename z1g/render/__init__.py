"""Slot family of rasterizers of Gaussians, and what `from z1g import render` calls."""

import inspect
import sys
from types import ModuleType
from typing import Any

from z1g.render.auto import Auto
from z1g.render.base import Conventions, Rasterizer, RenderOutput
from z1g.render.cpu import Cpu
from z1g.render.diff_gaussian import DiffGaussian
from z1g.render.gsplat import Gsplat
from z1g.render.reference import Reference

KINDS: tuple[type[Rasterizer], ...] = (
    Auto,
    Cpu,
    DiffGaussian,
    Gsplat,
    Reference,
)
"""All kinds of Rasterizer."""

__all__ = ["KINDS", "Auto", "Conventions", "Cpu", "DiffGaussian", "Gsplat", "Rasterizer", "Reference", "RenderOutput"]


class _Render(ModuleType):
    """Makes this package a function, too: `z1g.render` is its name, and `z1g.render(splats)` draws splats."""

    @property
    def __signature__(self) -> inspect.Signature:
        """The arguments of the function, which notebooks and editors show."""
        from z1g.render.pictures import render

        return inspect.signature(render)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See `z1g.render.pictures.render`."""
        from z1g.render.pictures import render

        return render(*arguments, **options)


sys.modules[__name__].__class__ = _Render
