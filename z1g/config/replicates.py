"""Replicates of a run: what a seed is, and which options follow it.

Replicate k is the run with k added to every random seed of the replicated stages. Replicate 0 is the run itself, so it
shares the results of a run without replicates, and replicate k of two runs has the same seeds in both.

Replicated are the stage at which replicates start and all that train or sample after it. By default they start at
stage 1. Weights that are drawn at random are drawn anew, and sampling has other noise, since both are part of what
chance decides. The data are not: views and fitted splats stay as they are unless replicates start at `ingest` or `fit`,
and only `folds` vary the split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from z1g.core.slots import MAX_SEED, Section

Start = Literal["ingest", "fit", "autodecoder", "unet", "infer"]
STARTS: tuple[Start, ...] = get_args(Start)
"""Stages that draw at random, in order."""
DEFAULT_START: Start = "autodecoder"
MAX_REPLICATES = 1000
SECTIONS: dict[Start, tuple[str, ...]] = {
    "ingest": ("camera",),
    "fit": ("fit",),
    "autodecoder": ("autodecoder", "model"),
    "unet": ("unet",),
    "infer": ("infer",),
}
"""Parts of the configuration that have the random seeds of a stage."""
SEED_NAMES = ("seed", "init_seed")
EXPECTED = (
    "expected a number of replicates, a list of their numbers, or {stage: either}, the stage being one of "
    f"{', '.join(STARTS)}"
)
KeyPath = tuple[str, ...]


class Replicates(Section):
    """Numbers of the replicates, and the stage at which they start to differ.

    Reads `3` for 0, 1, 2; `[0, 1, 2]`; and `{unet: 3}` or `{unet: [0, 1, 2]}` for replicates that start at stage 2.
    """

    numbers: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...]
    start: Start = DEFAULT_START

    @property
    def replicated(self) -> tuple[Start, ...]:
        """The stages whose random seeds follow the replicate."""
        return STARTS[STARTS.index(self.start) :]

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        start, numbers = next(iter(given.items())) if _names_a_stage(given) else (DEFAULT_START, given)
        if _is_whole(numbers) and 1 <= numbers <= MAX_REPLICATES:
            numbers = list(range(numbers))
        valid = isinstance(numbers, list) and numbers and all(_is_whole(n) and 0 <= n <= MAX_SEED for n in numbers)
        if not valid:
            raise ValueError(f"{EXPECTED}, got {json.dumps(given, default=str)[:80]}")
        if len(set(numbers)) < len(numbers) or len(numbers) > MAX_REPLICATES:
            raise ValueError(f"expected up to {MAX_REPLICATES} different numbers, got {json.dumps(numbers)[:80]}")
        return {"numbers": tuple(numbers), "start": start}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        numbers = [
            {"type": "integer", "minimum": 1, "maximum": MAX_REPLICATES},
            {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True},
        ]
        stages = {"type": "object", "properties": {start: {"anyOf": numbers} for start in STARTS}}
        return {"anyOf": [*numbers, {**stages, "additionalProperties": False, "minProperties": 1, "maxProperties": 1}]}


def seed_paths(values: dict[str, Any], replicated: tuple[Start, ...]) -> dict[KeyPath, int]:
    """Key paths and values of the random seeds that follow a replicate, in a complete configuration as plain values.

    If stage 1 is not replicated, random initial weights of stage 2 are drawn with a seed of their own.
    """
    found: dict[KeyPath, int] = {}
    for start in replicated:
        for section in SECTIONS[start]:
            found.update(_seeds(values[section], (section,)))
    initial = values["model"].get("init_seed")
    if "unet" in replicated and "autodecoder" not in replicated and initial is not None:
        found.setdefault(("unet", "init_seed"), initial)
    return found


def _seeds(values: Any, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(values, dict):
        for name, value in values.items():
            if name in SEED_NAMES and _is_whole(value):
                yield (*path, name), value
            else:
                yield from _seeds(value, (*path, name))


def _names_a_stage(given: Any) -> bool:
    return isinstance(given, dict) and len(given) == 1 and next(iter(given)) in STARTS


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
