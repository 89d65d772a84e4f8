"""The sources of the corpus by name."""

from z1g.corpus.folders import FlightGear, MegaGlest, UfoAi
from z1g.corpus.furniture import Furniture
from z1g.corpus.source import Source
from z1g.corpus.zero_ad import ZeroAd

SOURCES: dict[str, type[Source]] = {kind.name: kind for kind in (ZeroAd, FlightGear, Furniture, MegaGlest, UfoAi)}
