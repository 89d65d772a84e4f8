"""Ways of doing the same, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from z1g.core.errors import UserError


@dataclass(frozen=True)
class Variant:
    """One way of doing it, written like `b16+cudnn+micro8`: objects at once, and what is on."""

    name: str
    batch: int
    on: frozenset[str]
    micro: int | None

    @classmethod
    def parse(cls, name: str, known: Sequence[str]) -> Variant:
        """Raises UserError where a word is not known."""
        words = name.split("+")
        micro = [word for word in words[1:] if word.startswith("micro") and word[5:].isdigit()]
        rest = [word for word in words[1:] if word not in micro]
        if set(rest) - set(known) or words[0][:1] != "b" or not words[0][1:].isdigit():
            raise UserError(f"{name}: a variant reads b<objects>, then +micro<objects> or any of +{', +'.join(known)}")
        return cls(name, int(words[0][1:]), frozenset(rest), int(micro[0][5:]) if micro else None)

    @property
    def attention(self) -> str:
        """Kernels it names."""
        return next((name for name in ("cudnn", "flash", "xformers") if name in self.on), "auto")
