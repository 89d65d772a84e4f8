"""What results cost, from the records that jobs leave: time, GPU hours, energy, sizes of networks."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from z1g.core.stages import STAGE_NAMES
from z1g.report.collect import MetricInfo, Results

COSTS = {
    "seconds_per_object": MetricInfo(
        "sampling", "s/object", False, "wall time of the sampling jobs, loading and images included, per object"
    ),
    "gpu_hours": MetricInfo("GPU time", "h", False, "wall time of all jobs times the GPUs that each held"),
    "gpu_kwh": MetricInfo("GPU energy", "kWh", False, "the driver's energy counters of the GPUs that each job held"),
    "parameters_stage1": MetricInfo("stage 1", "parameters", False, "numbers in the autodecoder's weight files"),
    "parameters_stage2": MetricInfo("stage 2", "parameters", False, "numbers in the UNet's weight files"),
}
"""Unit, direction and definition of each; None in a `Cost` means that it is unknown."""
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Spent:
    """Jobs of one stage folder: attempts' wall seconds, GPU seconds and joules; None where a job did not say."""

    jobs: int
    seconds: float
    gpu_seconds: float | None
    gpu_joules: float | None


@dataclass(frozen=True)
class Cost:
    """Costs of one ablation by the names of COSTS, and the stages that left no record of theirs."""

    values: dict[str, float | None]
    unrecorded: list[str] = field(default_factory=list)


def spent(records: list[dict[str, Any]]) -> Spent | None:
    """Sum over all attempts at all jobs of a stage; None where no job left a record."""
    attempts = [attempt for record in records for attempt in record["attempts"]]
    if not attempts:
        return None
    gpus = [attempt["seconds"] * len(attempt["gpus"]) * attempt["nodes"] for attempt in attempts]
    wall = math.fsum(attempt["seconds"] for attempt in attempts)
    joules = _sum([attempt.get("gpu_joules") for attempt in attempts])
    return Spent(len(records), wall, math.fsum(gpus), joules)


def _sum(values: list[float | None]) -> float | None:
    """Of what is all known, else None."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None


def cost(tree: Results, stages: Mapping[str, str], objects: int) -> Cost:
    """What a set of stage folders cost; `objects` is how many were sampled."""
    found = {stage: spent(tree.jobs(stage, stages[stage])) for stage in STAGE_NAMES if stage in stages}
    known = [one for one in found.values() if one is not None]
    whole = bool(known) and len(known) == len(found)
    infer = found.get("infer")
    joules = _sum([one.gpu_joules for one in known])
    values = {
        "seconds_per_object": infer.seconds / objects if infer and objects else None,
        "gpu_hours": math.fsum(one.gpu_seconds or 0.0 for one in known) / 3600 if whole else None,
        "gpu_kwh": joules / JOULES_PER_KWH if whole and joules is not None else None,
        "parameters_stage1": _total(tree, stages, "autodecoder", "model"),
        "parameters_stage2": _total(tree, stages, "unet", "pipeline"),
    }
    return Cost(values, [stage for stage, one in found.items() if one is None])


def cost_text(value: float | None) -> str:
    """Whole numbers with commas, others with three digits; `unknown` where nobody measured."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:.3g}"


def _total(tree: Results, stages: Mapping[str, str], stage: str, name: str) -> float | None:
    counts = parameters(tree.folder(stage, stages[stage]) / name) if stage in stages else {}
    return float(sum(counts.values())) if counts else None


def parameters(folder: Path) -> dict[str, int]:
    """Numbers in each weight file below a folder, from the files' headers; codes are no parameters."""
    files = sorted(file for file in folder.rglob("*.safetensors") if file.name != "codes.safetensors")
    return {str(file.relative_to(folder)): n for file in files if (n := _numbers(file))}


def _numbers(file: Path) -> int:
    """Elements of all tensors of a safetensors file; 0 where it is none."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, file.stat().st_size)))
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return 0
