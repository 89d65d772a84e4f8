"""Costs of results from job records: time, GPU hours, energy and network sizes."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from z1g.core.recorded import checked, damaged
from z1g.core.stages import STAGE_NAMES
from z1g.jobs.records import gpu_seconds
from z1g.report.collect import MetricInfo, Results

COSTS = {
    "seconds_per_object": MetricInfo(
        "sampling", "s/object", False, "wall time of the sampling jobs per object, including loading and writing images"
    ),
    "gpu_hours": MetricInfo("GPU time", "h", False, "wall time of each job times its number of GPUs, summed"),
    "gpu_kwh": MetricInfo("GPU energy", "kWh", False, "energy of the GPUs of each job, from the driver's counters"),
    "parameters_stage1": MetricInfo("stage 1", "parameters", False, "elements in the autodecoder's weight files"),
    "parameters_stage2": MetricInfo("stage 2", "parameters", False, "elements in the UNet's weight files"),
}
"""Unit, direction and definition of each cost. None in a `Cost` means unknown."""
JOULES_PER_KWH = 3.6e6
WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of an element, by the types of safetensors that weights have."""


@dataclass(frozen=True)
class StageCost:
    """Jobs of one stage folder: wall seconds, GPU seconds and joules of all attempts. None means not recorded."""

    jobs: int
    seconds: float
    gpu_seconds: float | None
    gpu_joules: float | None


@dataclass(frozen=True)
class Cost:
    """Costs of one ablation, keyed like COSTS, and the stages without job records."""

    values: dict[str, float | None]
    unrecorded: list[str] = field(default_factory=list)


def stage_cost(records: list[dict[str, Any]]) -> StageCost | None:
    """Sum over all attempts of all jobs of a stage; None if there are no records."""
    attempts = [attempt for record in records for attempt in record["attempts"]]
    if not attempts:
        return None
    gpus = [gpu_seconds(attempt) for attempt in attempts]
    wall = math.fsum(attempt["seconds"] for attempt in attempts)
    joules = _sum([attempt.get("gpu_joules") for attempt in attempts])
    return StageCost(len(records), wall, math.fsum(gpus), joules)


def _sum(values: list[float | None]) -> float | None:
    """Sum of the values, or None if any is None."""
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) if len(numbers) == len(values) else None


def cost(tree: Results, stages: Mapping[str, str], objects: int) -> Cost:
    """Total cost of a set of stage folders. `objects` is the number of sampled objects."""
    stage_costs = {stage: stage_cost(tree.jobs(stage, stages[stage])) for stage in STAGE_NAMES if stage in stages}
    recorded = [item for item in stage_costs.values() if item is not None]
    complete = bool(recorded) and len(recorded) == len(stage_costs)
    infer = stage_costs.get("infer")
    joules = _sum([item.gpu_joules for item in recorded])
    values = {
        "seconds_per_object": infer.seconds / objects if infer and objects else None,
        "gpu_hours": math.fsum(item.gpu_seconds or 0.0 for item in recorded) / 3600 if complete else None,
        "gpu_kwh": joules / JOULES_PER_KWH if complete and joules is not None else None,
        "parameters_stage1": _total(tree, stages, "autodecoder", "model"),
        "parameters_stage2": _total(tree, stages, "unet", "pipeline"),
    }
    return Cost(values, [stage for stage, item in stage_costs.items() if item is None])


def cost_text(value: float | None) -> str:
    """Format a cost: whole numbers with commas, others with three digits, `unknown` for None."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:.3g}"


def _total(tree: Results, stages: Mapping[str, str], stage: str, name: str) -> float | None:
    counts = parameters(tree.folder(stage, stages[stage]) / name) if stage in stages else {}
    return float(sum(counts.values())) if counts else None


def parameters(folder: Path) -> dict[str, int]:
    """Number of elements in each weight file under a folder, read from the headers. Files of codes are skipped."""
    files = sorted(file for file in folder.rglob("*.safetensors") if file.name != "codes.safetensors")
    return {str(file.relative_to(folder)): n for file in files if (n := _numbers(file))}


def _numbers(file: Path) -> int:
    """Number of elements in a safetensors file, 0 if the file is invalid.

    Only the header is read: it is consistent if each tensor fills its bytes and all of them fill the file. Raises
    UserError if the size of the file is not the recorded one.
    """
    try:
        with checked(file, content=False).open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, file.stat().st_size)))
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        fitting = all(
            math.prod(t["shape"]) * WIDTHS[t["dtype"]] == t["data_offsets"][1] - t["data_offsets"][0] for t in tensors
        )
        if not fitting or 8 + length + max(t["data_offsets"][1] for t in tensors) != file.stat().st_size:
            raise damaged(file, "its header does not describe its tensors")
        return sum(math.prod(tensor["shape"]) for tensor in tensors)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return 0
