"""Options of the splatter decoder."""

from typing import Literal

from pydantic import Field

from z1g.config.slot import Section


class DecoderOptions(Section):
    """How the decoder gets from the latent grid to splatter images."""

    path: Literal["plain", "last_layer"] = Field(
        "last_layer",
        description="plain: the decoder's own resolution is that of the splats; "
        "last_layer: nearest resize to the splats' resolution before the last norm",
    )
    head: Literal["geometry", "random"] = Field(
        "geometry",
        description="start of the geometry channels. geometry: positions are offsets from each pixel's ray at the "
        "camera distance, quaternions start at identity; random: as the layers initialise (the seed's)",
    )
    rotation_norm: Literal["gaussian", "rows"] = Field(
        "gaussian",
        description="what quaternions are divided by: their own norm, or (the seed's bug) the norm over all sheet rows",
    )
