"""What stage 1 and stage 2 hand to each other, as slots. Nothing outside of this room knows the shape of a code."""

from z1g.representations.base import Representation
from z1g.representations.mosaic import Mosaic

KINDS: tuple[type[Representation], ...] = (Mosaic,)
"""What `kind:` of a Representation may name."""

__all__ = ["KINDS", "Mosaic", "Representation"]
