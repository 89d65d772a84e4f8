"""Five color images of each view: position, opacity, scale, rotation and color."""

from z1g.representations.attributes.denoiser_options import AttributeDenoiserOptions
from z1g.representations.attributes.mappings import Mappings
from z1g.representations.attributes.options import Attributes

__all__ = ["AttributeDenoiserOptions", "Attributes", "Mappings"]
