"""Header of an ablation file and of a set: what is said about runs, beside the options that the runs have.

`HEADER_KEYS` are all keys of an ablation file that are not options of the experiment; each is a field of `Header`, and
so has a type, a description and an entry in the editors' schema. A set's `_set.yaml` has the fields of `SetFile`.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from z1g.config.peers import PeerName, PeerOptions
from z1g.config.prune import Prune
from z1g.config.replicates import Replicates
from z1g.config.sweep import Sweep
from z1g.core.slots import Section


def _tag(text: str) -> str:
    """A word by which runs are found. Raises ValueError."""
    if not re.fullmatch(r"\w[\w.:/+-]{0,63}", text, re.ASCII):
        raise ValueError(f"expected a word of letters, digits and _.:/+-, got {json.dumps(text)[:80]}")
    return text


Tag = Annotated[str, AfterValidator(_tag)]


class SetHeader(Section):
    """What `_set.yaml` says about all ablations of its folder; what an ablation's file says itself comes first."""

    description: str = Field("", description="what differs from the base, and why")
    base: str | None = Field(
        None,
        description="scale or ablation, or run of an ablation, whose options are inherited; null: the scale in use",
    )
    seeds: Replicates | None = Field(
        None,
        description="replicates: their number, a list of their numbers, or {stage: either} for those that start at a "
        "stage. Number k is added to all random seeds of training and sampling",
    )
    folds: int | None = Field(
        None, ge=2, le=1000, description="cross-validation: one run per fold, each with other test objects"
    )
    prune: Prune | None = Field(
        None,
        description="successive halving: only the best runs are trained to their end. Of a file, the points of its "
        "sweep compete; of a set, all its ablations",
    )
    priority: int = Field(0, ge=-1_000_000, le=1_000_000, description="jobs of a higher priority are started first")
    tags: tuple[Tag, ...] = Field((), description="words by which runs are found; those of the set are added")
    notes: str = Field("", description="remarks, shown with the results")
    x: str | None = Field(
        None, description="horizontal axis of learning curves: a label, or the key path that is varied"
    )


class SetFile(SetHeader):
    """All that a `_set.yaml` may say: what its ablations take from it, and what the set has beside them."""

    peers: dict[PeerName, PeerOptions] = Field(
        {}, description="other systems by name, whose outputs are measured with those of the set's first ablation"
    )


class Header(SetHeader):
    """What an ablation file says about its runs."""

    sweep: Sweep | None = Field(None, description="points: one run for each combination of values")


HEADER_KEYS = tuple(Header.model_fields)


def header_values(values: dict[str, Any]) -> dict[str, Any]:
    """The header of a file's values; a key without a value counts as absent."""
    return {key: value for key, value in values.items() if key in HEADER_KEYS and value is not None}


def option_values(values: dict[str, Any]) -> dict[str, Any]:
    """The options of the experiment in a file's values."""
    return {key: value for key, value in values.items() if key not in HEADER_KEYS}
