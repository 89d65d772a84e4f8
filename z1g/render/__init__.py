"""Slot family of rasterizers of Gaussians."""

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
