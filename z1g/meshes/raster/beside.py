"""Images beside the meshes of games, and what their alpha means."""

from pathlib import Path

import numpy as np

from z1g.meshes.raster.images import load_image
from z1g.meshes.raster.scene import AlphaMode, Material, MeshError, Texture
from z1g.meshes.textures import places

CUT = 128
"""Texels with a smaller alpha are outside of a cut-out."""
CLEAR, SOLID = 26, 229
"""Alpha of a texel that is nearly invisible, and of one that is nearly opaque."""
GLASS = 0.05
"""An image with a larger fraction of texels in between is translucent, and no cut-out with soft edges."""
NO_IMAGE = 0.995
"""Alpha that leaves less than the rest visible is no cut-out: the channel has another use."""


def load_texture(path: Path, names: list[str]) -> Texture:
    """The first image of these names that exists. Raises MeshError if there is none or it cannot be read."""
    for name in names:
        for place in places(path.name, name):
            if (path.parent / place).is_file():
                return Texture(load_image(path.parent / place, name), name=place)
    raise MeshError(f"texture missing or unreadable: {names[0] or path.stem}")


def with_alpha(texture: Texture, factor: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)) -> Material:
    """A material of a texture whose alpha, if it has any, is a cut-out or glass."""
    mode = alpha_mode(texture)
    if mode == "opaque" and (texture.image[..., 3] < 255).any():
        image = texture.image.copy()
        image[..., 3] = 255
        texture = Texture(image, texture.wrap, texture.nearest, texture.name)
    return Material(factor, texture, "blend" if factor[3] < 1 else mode)


def alpha_mode(texture: Texture) -> AlphaMode:
    """What alpha is: of glass ("blend"), of a cut-out ("mask"), or absent or of another use ("opaque")."""
    alpha = texture.image[..., 3]
    if alpha.min() >= CUT or (alpha < CUT).mean() > NO_IMAGE:
        return "opaque"
    between = ((alpha > CLEAR) & (alpha < SOLID)).mean()
    return "blend" if between > GLASS else "mask"


def gray_or(color: tuple[float, ...], opacity: float) -> Material:
    """A material without an image, of a linear color."""
    red, green, blue = np.clip(np.nan_to_num(color), 0.0, 1.0).tolist()
    opacity = float(np.clip(np.nan_to_num(opacity, nan=1.0), 0.0, 1.0))
    return Material((red, green, blue, opacity), None, "blend" if opacity < 1 else "opaque")
