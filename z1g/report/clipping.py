"""How many Gaussians leave the ranges of a representation, which stage `autodecoder` counts."""

from __future__ import annotations

from pathlib import Path

from z1g.core.files import read_json
from z1g.core.recorded import checked

FILE = "clipping.json"
"""In the folder `model` of stage `autodecoder`."""
DRAWN = "drawn"


def text(objects: int, counts: dict[str, int]) -> str:
    """A sentence. counts: those of `Codec.clipped`, summed over objects."""
    shares = {name: n / max(counts[DRAWN], 1) for name, n in counts.items() if name != DRAWN}
    parts = ", ".join(f"{name} {100 * share:.2g} %" for name, share in shares.items())
    return (
        f"Of the Gaussians of {objects} training objects that are drawn ({counts[DRAWN]}), those that leave a range of "
        f"representation.mappings and are clipped: {parts}."
    )


def read(stage: Path) -> str | None:
    """The sentence of a trained stage 1; None if nothing was counted. Raises UserError if the file is damaged."""
    file = stage / "model" / FILE
    if not file.is_file():
        return None
    stored = read_json(checked(file))
    return text(int(stored["objects"]), {str(name): int(n) for name, n in stored["counts"].items()})
