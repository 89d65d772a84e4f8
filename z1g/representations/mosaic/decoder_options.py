"""Options of the splatter decoder."""

from typing import Annotated, Literal

from pydantic import Field

from z1g.core.slots import OneOf, Section
from z1g.representations.mosaic.path import DecoderPath
from z1g.representations.mosaic.path.resized import LastLayer


class DecoderOptions(Section):
    """The splatter decoder, from the latent grid to splatter images."""

    path: Annotated[DecoderPath, OneOf()] = LastLayer()
    mode: Literal["all", "fixed_rgb"] = Field(
        "all",
        description="trained weights. all: the whole VAE decoder; fixed_rgb: only the geometry head and scale bias, "
        "with the image of the frozen VAE decoder as the splats' color; needs published weights",
    )
    head: Literal["geometry", "random"] = Field(
        "geometry",
        description="initial geometry channels. geometry: positions are offsets from each pixel's ray at the camera "
        "distance, scales start at half a pixel, quaternions at the identity; random: PyTorch's default "
        "initialization (as in the original)",
    )
    rotation_norm: Literal["gaussian", "rows"] = Field(
        "gaussian",
        description="norm that divides quaternions; gaussian: their own; rows: over all rows (the original's bug)",
    )
