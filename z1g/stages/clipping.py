"""How many Gaussians of the objects leave the ranges in which codes can represent them."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from z1g.core.files import write_json
from z1g.core.names import counted
from z1g.data.scenes import SceneStore
from z1g.report.clipping import FILE, summed, text
from z1g.representations import KINDS, Representation

log = logging.getLogger("z1g")
OBJECTS = 1000
"""Training objects that are counted, at equal distances in the list: reading all fits of a large set takes hours."""


def of_fit(splats: torch.Tensor) -> dict[str, dict[str, int]]:
    """Counts of one object's splatter images [6,14,S,S] by kind of representation, see `Representation.clipped`.

    Ranges are those of the kinds' defaults, since a fit serves all representations and knows the options of none.
    """
    counts = {kind.model_fields["kind"].default: kind.model_validate({}).clipped(splats[None]) for kind in KINDS}
    return {name: found for name, found in counts.items() if found}


def report(representation: Representation, scenes: SceneStore, ids: Sequence[str], folder: Path) -> None:
    """Count the Gaussians of training objects, write `clipping.json` and log it; nothing if no range clips."""
    chosen = ids[:: max(1, -(-len(ids) // OBJECTS))]
    if not representation.encodes_splats:
        return
    read = (scenes.splats(name) for name in chosen)
    counts = summed(representation.clipped(splats[None]) for splats in read if splats is not None)
    if not counts:
        return
    write_json(folder / FILE, {"objects": len(chosen), "counts": counts})
    log.info("%s", text(counted(len(chosen), "training object"), counts, "range of representation.mappings"))
