"""Names of benchmark variants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from z1g.core.errors import UserError

ATTENTION = ("cudnn", "flash", "flash4", "xformers")
"""Flags that choose attention kernels."""
COUNT = "[1-9][0-9]{0,3}"


@dataclass(frozen=True)
class Variant:
    """A variant such as `b16+cudnn+micro8`: batch size, flags and size of micro-batches."""

    name: str
    batch: int
    on: frozenset[str]
    micro: int | None

    @classmethod
    def parse(cls, name: str, flags: Sequence[str]) -> Variant:
        """Parse a variant's name. Raises UserError if it is invalid or has a flag that is not in `flags`."""
        words = name.split("+")
        micro = [word for word in words[1:] if re.fullmatch(f"micro{COUNT}", word)]
        rest = [word for word in words[1:] if word not in micro]
        if set(rest) - set(flags) or len(micro) > 1 or not re.fullmatch(f"b{COUNT}", words[0]):
            raise UserError(
                f"--variants {name[:80]!r}: a variant is b<objects>, then +micro<objects> or any of "
                f"+{', +'.join(flags)}; objects are 1 to 9999"
            )
        return cls(name, int(words[0][1:]), frozenset(rest), int(micro[0][5:]) if micro else None)

    @property
    def attention(self) -> str:
        """Attention kernels, or `auto` if the name has none."""
        return next((name for name in ATTENTION if name in self.on), "auto")
