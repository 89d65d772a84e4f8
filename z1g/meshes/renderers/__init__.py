"""Renderers of meshes, a family of slots. A new kind is a new file with a command that speaks the protocol of
`z1g/meshes/blender/render_views.py`.
"""

from z1g.meshes.renderers.base import Renderer
from z1g.meshes.renderers.blender import Blender
from z1g.meshes.renderers.raster import Raster

KINDS: tuple[type[Renderer], ...] = (
    Blender,
    Raster,
)
"""Values of `kind:` of a Renderer."""

__all__ = ["KINDS", "Blender", "Raster", "Renderer"]
