"""The stages of the DAG in order, for the command line, the plan, the workflow and the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class StageInfo:
    """Properties of a stage that are the same in every configuration."""

    name: str
    """Name of its verb, of its module in `z1g/stages/`, of its results folder and of its rule in `workflow/rules/`."""
    help: str
    upstream: tuple[str, ...] = ()
    """All stages that it depends on, directly or indirectly, in order."""
    chunked: Literal["objects", "evaluated"] | None = None
    """Objects that are divided among its jobs: all, those that are sampled and measured, or None (a single job)."""
    last: str = ""
    """The output that each of its jobs writes last; `{chunk}` is the number of the chunk."""
    trains: bool = False
    """Whether its job trains: in several processes, with checkpoints and a `history.jsonl`."""


CHAIN = (
    StageInfo("ingest", "render a chunk of objects", chunked="objects", last="chunk-{chunk}.jsonl"),
    StageInfo(
        "fit",
        "fit splatter images to a chunk of objects",
        ("ingest",),
        chunked="objects",
        last="chunk-{chunk}.safetensors",
    ),
    StageInfo("autodecoder", "stage 1: train the decoder", ("ingest", "fit"), last="model", trains=True),
    StageInfo("codes", "write the code of every object", ("ingest", "fit", "autodecoder"), last="codes.safetensors"),
    StageInfo(
        "unet", "stage 2: train the UNet", ("ingest", "fit", "autodecoder", "codes"), last="pipeline", trains=True
    ),
    StageInfo(
        "infer",
        "sample a chunk of objects",
        ("ingest", "fit", "autodecoder", "codes", "unet"),
        chunked="evaluated",
        last="chunk-{chunk}",
    ),
    StageInfo(
        "metrics",
        "measure an ablation and its baselines",
        ("ingest", "fit", "autodecoder", "codes", "unet", "infer"),
        last="metrics.jsonl",
    ),
)
STAGE_NAMES = tuple(stage.name for stage in CHAIN)
CHUNKED = tuple(stage.name for stage in CHAIN if stage.chunked)
CHUNKED_BY_OBJECTS = tuple(stage.name for stage in CHAIN if stage.chunked == "objects")
TRAINED = tuple(stage.name for stage in CHAIN if stage.trains)
