"""Keys that separate the random draws of one sample (`z1g.core.seeding`)."""

VIEWS = 1
POSTERIOR = 2
TIMESTEP = 3
NOISE = 4
CONDITION_NOISE = 5
CONDITION_DROPOUT = 6
MIX = 20
TURN = 21
COLOR = 22
VARIANT = 23
CODE_NOISE = 24
CODE_NOISE_LEVEL = 25
PART = 26
CASCADE = 27
MIXED = 28
JITTER = 100
"""The first of as many as a code has parts."""
DISTILLED = 1000
"""The first of as many as a distilled network has steps."""
