"""What stage 1 and stage 2 exchange, as slots. No code outside this package depends on the shape of a code."""

from z1g.representations.attributes import Attributes
from z1g.representations.base import Representation
from z1g.representations.joint import Joint
from z1g.representations.mosaic import Mosaic

KINDS: tuple[type[Representation], ...] = (Attributes, Joint, Mosaic)
"""Kinds of `Representation`."""

__all__ = ["KINDS", "Attributes", "Joint", "Mosaic", "Representation"]
