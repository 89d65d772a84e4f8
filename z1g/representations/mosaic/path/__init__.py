"""Decoder paths, from the latent grid to the splats' resolution, as slots."""

from z1g.representations.mosaic.path.base import DecoderPath
from z1g.representations.mosaic.path.downsampled import AveragePool, ConvAveragePool, DownsampleConv
from z1g.representations.mosaic.path.plain import Plain
from z1g.representations.mosaic.path.resized import InterpolateDownsample, InterpolateUpsample, LastLayer

KINDS: tuple[type[DecoderPath], ...] = (
    AveragePool,
    ConvAveragePool,
    DownsampleConv,
    Plain,
    LastLayer,
    InterpolateDownsample,
    InterpolateUpsample,
)
"""Kinds of `DecoderPath`."""

__all__ = [
    "KINDS",
    "AveragePool",
    "ConvAveragePool",
    "DecoderPath",
    "DownsampleConv",
    "InterpolateDownsample",
    "InterpolateUpsample",
    "LastLayer",
    "Plain",
]
