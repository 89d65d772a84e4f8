"""Slot family of protocols: how images are made, chosen and averaged before a metric is a number in a table."""

from z1g.metrics.protocols.base import Protocol
from z1g.metrics.protocols.custom import Custom
from z1g.metrics.protocols.lgm import Lgm
from z1g.metrics.protocols.own import Own
from z1g.metrics.protocols.zero_1_to_g import Zero1ToG

KINDS: tuple[type[Protocol], ...] = (Custom, Lgm, Own, Zero1ToG)
"""All kinds of Protocol."""

__all__ = ["KINDS", "Custom", "Lgm", "Own", "Protocol", "Zero1ToG"]
