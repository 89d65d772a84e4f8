"""Estimated cost of a run: GPU and CPU hours, disk space and files of each stage, from measured figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from z1g.core.errors import UserError
from z1g.geometry.camera import INPUT_VIEWS
from z1g.meshes.renderers import Raster, Renderer
from z1g.networks.weights.zero123plus import Zero123Plus
from z1g.plan.cost import memory
from z1g.sources.meshes import Meshes

if TYPE_CHECKING:
    from z1g.config.sections import UNetOptions
    from z1g.config.tree import Experiment

MEASURED = Path(__file__).parent / "measured.yaml"
GB, HOUR_S, FLOAT_BYTES = 1e9, 3600, 4
SPLAT_CHANNELS = 14
REFERENCE_STEPS, REFERENCE_VIEWS, REFERENCE_SIZE, REFERENCE_SPLATS = 100, 8, 256, 128
"""Settings of the fit whose speed was measured."""
ADAM_COPIES, CHECKPOINTS = 3, 2
"""Copies of the parameters in a checkpoint (weights and two moments), and number of checkpoints kept."""
MEMORY = (
    "GPU memory of training, GB (10⁹ bytes, the peak of torch's allocations, without the training objects that "
    "train.cache keeps there):"
)
PASSES = 3
"""Forward passes that take the time of a training step."""
LOGS = 2
"""A job's log and benchmark."""


@dataclass(frozen=True)
class Cost:
    """Cost of a stage: jobs, GPU and CPU hours (None if a figure is missing), bytes on disk, number of files."""

    stage: str
    jobs: int
    gpu_hours: float | None
    cpu_hours: float | None
    disk: float
    files: int


@cache
def measured() -> Mapping[str, float]:
    """Measured figures by name; NaN if not measured yet."""
    entries = yaml.safe_load(MEASURED.read_text(encoding="utf-8"))
    return {name: math.nan if entry["value"] is None else float(entry["value"]) for name, entry in entries.items()}


def costs(experiment: Experiment, n: int) -> Iterator[Cost]:
    """Cost of every stage of one ablation with `n` meshes, in the order of the chain.

    Raises UserError if the data are not meshes or the sizes of the networks are unknown.
    """
    data, values, pixels = experiment.data, measured(), 6 * experiment.splat.size**2
    if not isinstance(data, Meshes) or not isinstance(experiment.model, Zero123Plus):
        raise UserError("a cost sheet is for meshes and model: {kind: zero123plus}, as in scale=full")
    chunks = -(-n // data.chunk_size_for(n))
    n_test = math.ceil(n * data.split.test_fraction)
    n_sampled = n_test + min(experiment.infer.train_objects, n - n_test)

    yield Cost("ingest", chunks, 0.0, n * _ingest_s(experiment, values) / HOUR_S, n * _ingest_bytes(experiment, values),
               chunks * (3 + LOGS))  # fmt: skip
    fit = n * _fit_s(experiment, values) / HOUR_S
    splats = pixels * SPLAT_CHANNELS * FLOAT_BYTES
    yield Cost("fit", chunks, fit, fit * experiment.resources.fit.threads, n * splats, chunks * (3 + LOGS))

    decoder = values["vae_decoder_parameters"] * ADAM_COPIES * CHECKPOINTS + values["vae_parameters"]
    yield _job("autodecoder", _samples(experiment.autodecoder.train) / values["autodecoder_samples_a_gpu_s"],
               decoder * FLOAT_BYTES, 4 + CHECKPOINTS + LOGS)  # fmt: skip
    shape = experiment.representation.code_shape(experiment.model, experiment.splat.size)
    code = math.prod(shape) * FLOAT_BYTES
    yield _job("codes", n / values["codes_objects_a_gpu_s"], n * code, 1 + LOGS)
    pipeline = sum(values[name] for name in ("vae_parameters", "unet_parameters", "other_parameters"))
    unet = values["unet_parameters"] * ADAM_COPIES * CHECKPOINTS + pipeline
    yield _job("unet", _unet_samples(experiment.unet) / values["unet_samples_a_gpu_s"], unet * FLOAT_BYTES,
               12 + CHECKPOINTS + LOGS)  # fmt: skip

    jobs = max(1, -(-n_sampled // experiment.infer.chunk_size))
    steps_an_object = 1 if experiment.unet.objective == "regression" else experiment.infer.steps
    steps = n_sampled * steps_an_object / values["infer_object_steps_a_gpu_s"]
    sampled = n_sampled * (splats + code + pixels * values["ply_bytes_a_splat"])
    yield _job("infer", steps, sampled, 3 * n_sampled + jobs * (1 + LOGS), jobs)
    yield _job("metrics", n_sampled * _metrics_s(experiment, values), 0.0, 7 * n_sampled + 2 + LOGS)


def _ingest_s(experiment: Experiment, values: Mapping[str, float]) -> float:
    """Core-seconds per object: Cycles' samples or the rasterizer's pixels, depth, and the rest."""
    renderer: Renderer = experiment.data.renderer  # type: ignore[attr-defined]  # `costs` has checked that these are meshes
    pixels = _side(experiment) ** 2
    if isinstance(renderer, Raster):
        views = experiment.camera.n_views + len(INPUT_VIEWS)
        return values["ingest_core_s_an_object"] + float(views * pixels * values["ingest_core_s_a_raster_pixel"])
    samples = renderer.samples  # type: ignore[attr-defined]
    rendering = experiment.camera.n_views * pixels * samples * values["ingest_core_s_a_sample"]
    depth = len(INPUT_VIEWS) * pixels * values["ingest_core_s_a_depth_pixel"]
    return values["ingest_core_s_an_object"] + float(rendering) + depth


def _ingest_bytes(experiment: Experiment, values: Mapping[str, float]) -> float:
    """Bytes of an object's images and depth."""
    images = experiment.camera.n_views * values["image_bytes_a_pixel"]
    return _side(experiment) ** 2 * (images + len(INPUT_VIEWS) * FLOAT_BYTES)


def _side(experiment: Experiment) -> int:
    side: int = experiment.data.renderer.resolution  # type: ignore[attr-defined]
    return side


def _metrics_s(experiment: Experiment, values: Mapping[str, float]) -> float:
    """GPU seconds per object: its shapes, and its test views in proportion to their pixels."""
    pixels = experiment.camera.test_views * _side(experiment) ** 2
    return values["metrics_s_an_object"] + float(pixels) * values["metrics_s_a_view_pixel"]


def _fit_s(experiment: Experiment, values: Mapping[str, float]) -> float:
    """GPU seconds per object, in proportion to steps, views and splats; pixels affect only the rasterizer."""
    fit = experiment.fit

    def raster_ms(side: int) -> float:
        return values["fit_raster_ms_fixed"] + values["fit_raster_ms_a_pixel"] * side**2

    share = values["fit_raster_share"]
    larger = share * raster_ms(_side(experiment)) / raster_ms(REFERENCE_SIZE) + 1 - share
    work = fit.steps / REFERENCE_STEPS * fit.views_per_step / REFERENCE_VIEWS
    return work * (experiment.splat.size / REFERENCE_SPLATS) ** 2 * larger / values["fit_objects_a_gpu_s"]


def _samples(options: Any) -> float:
    return float(options.steps * options.batch_size)


def _unet_samples(options: UNetOptions) -> float:
    """Samples of stage 2. Distilled ones count by their passes, of which a backward pass takes two."""
    distill = options.distill
    if distill is None:
        return _samples(options.train)
    passes = distill.teacher_steps * (2 if distill.guidance > 1 else 1) + PASSES * distill.steps
    return _samples(options.train) + _samples(distill.train) * passes / PASSES


def _job(stage: str, gpu_s: float, disk: float, files: int, jobs: int = 1) -> Cost:
    """Cost of a stage that uses one CPU core besides its GPU."""
    hours = None if math.isnan(gpu_s) else gpu_s / HOUR_S
    return Cost(stage, jobs, hours, hours, disk, files)


def sheet(experiment: Experiment, sizes: Sequence[int]) -> str:
    """A Markdown table for each number of objects, and one of GPU memory.

    Of networks whose speed was not measured, there is only the latter.
    """
    head = "| stage | jobs | GPU hours | CPU core hours | disk, GB | files | GPU memory, GB |"
    head += "\n" + "|---" * (head.count("|") - 1) + "|"
    parts = []
    try:
        for n in sizes:
            rows = list(costs(experiment, n))
            lines = [_line(row.stage, [row], memory.cell(experiment, row.stage)) for row in rows]
            parts.append("\n".join([f"{n:,} objects:\n\n{head}", *lines, _line("together", rows)]))
    except UserError as error:
        parts = [f"no hours and disk space: {error}"]
    return "\n\n".join([*parts, f"{MEMORY}\n\n{memory.table(experiment)}"])


def _line(name: str, rows: Sequence[Cost], memory_cell: str = "") -> str:
    cells = [
        f"{sum(row.jobs for row in rows):,}",
        _hours([row.gpu_hours for row in rows]),
        _hours([row.cpu_hours for row in rows]),
        f"{sum(row.disk for row in rows) / GB:,.1f}",
        f"{sum(row.files for row in rows):,}",
        memory_cell,
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _hours(values: Sequence[float | None]) -> str:
    available = [value for value in values if value is not None]
    if not available:
        return "not measured"
    return f"{sum(available):,.1f}" + ("" if len(available) == len(values) else " and what is not measured")
