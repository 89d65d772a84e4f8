"""Six views tiled 3x2 into one latent image, as in the original."""

from z1g.representations.mosaic.decoder_options import DecoderOptions
from z1g.representations.mosaic.options import Mosaic

__all__ = ["DecoderOptions", "Mosaic"]
