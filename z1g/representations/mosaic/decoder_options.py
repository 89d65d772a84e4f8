"""Options of the splatter decoder."""

from typing import Annotated, Literal

from pydantic import Field

from z1g.core.slots import OneOf, Section
from z1g.representations.mosaic.path import DecoderPath
from z1g.representations.mosaic.path.resized import LastLayer


class DecoderOptions(Section):
    """How the decoder gets from the latent grid to splatter images."""

    path: Annotated[DecoderPath, OneOf()] = LastLayer()
    mode: Literal["all", "fixed_rgb"] = Field(
        "all",
        description="what is trained. all: the whole VAE decoder; fixed_rgb: only the geometry head and the bias of "
        "scales, while the decoder's own image, frozen, is the splats' color; needs published weights",
    )
    head: Literal["geometry", "random"] = Field(
        "geometry",
        description="start of the geometry channels. geometry: positions are offsets from each pixel's ray at the "
        "camera distance, scales start at half a pixel, quaternions at identity; random: as the layers initialize "
        "(the original's)",
    )
    rotation_norm: Literal["gaussian", "rows"] = Field(
        "gaussian",
        description="what quaternions are divided by: their own norm, or (the bug of the original) that over all rows",
    )
