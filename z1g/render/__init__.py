"""Splat rasterizers behind one contract."""

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
"""What `kind:` of a Rasterizer may name."""

__all__ = ["KINDS", "Auto", "Conventions", "Cpu", "DiffGaussian", "Gsplat", "Rasterizer", "Reference", "RenderOutput"]
