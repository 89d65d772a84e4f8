"""How many Gaussians of the training objects leave the ranges in which a representation's codes can represent them."""

import logging
from collections.abc import Sequence
from pathlib import Path

from z1g.core.files import write_json
from z1g.data.scenes import SceneStore
from z1g.report.clipping import FILE, text
from z1g.representations.codec import Codec

log = logging.getLogger("z1g")
OBJECTS = 1000
"""Objects that are counted, at equal distances in the list: reading the fits of all of a large set takes hours."""


def report(codec: Codec, scenes: SceneStore, ids: Sequence[str], folder: Path) -> None:
    """Count the Gaussians of objects, write `clipping.json` and log it; nothing if the codec clips nothing."""
    counts: dict[str, int] = {}
    chosen = ids[:: max(1, -(-len(ids) // OBJECTS))]
    for name in chosen:
        splats = scenes.splats(name) if codec.uses_splats else None
        for key, value in ({} if splats is None else codec.clipped(splats[None])).items():
            counts[key] = counts.get(key, 0) + value
    if not counts:
        return
    write_json(folder / FILE, {"objects": len(chosen), "counts": counts})
    log.info("%s", text(len(chosen), counts))
