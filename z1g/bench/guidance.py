"""Quality of a trained ablation's samples by number of steps and guidance, compared with baselines."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from z1g.bench.machine import device_name, guarded, synchronize, versions
from z1g.core.device import default_device
from z1g.core.errors import UserError
from z1g.core.progress import Meter
from z1g.data.condition_form import ConditionForm
from z1g.data.manifest import int_hash
from z1g.data.scenes import SceneStore
from z1g.inference.method import ImageToSplats
from z1g.plan.folder import StageFolder
from z1g.plan.records import read_plan
from z1g.sampling.options import InferOptions
from z1g.sampling.samplers import Sampler
from z1g.stages.autodecoder import held_out, training_scenes
from z1g.stages.measuring import Measure, Sources, render_pair

BASELINES = ("nearest", "mean_code", "autodecoder")


@dataclass
class Table:
    """Computes rows of the table from the trained method, test objects and metrics."""

    method: ImageToSplats
    infer: StageFolder
    trained: StageFolder
    scenes: SceneStore
    names: list[str]
    sources: Sources
    measure: Measure
    condition: ConditionForm
    batch: int

    def baseline(self, source: str) -> dict[str, Any]:
        """Mean view metrics of one of BASELINES."""
        return self._means([self.sources(source, self.scenes[name]) for name in self.names])

    def sampled(self, options: InferOptions) -> dict[str, Any]:
        """Mean view metrics of samples with these options, and seconds per object."""
        self.method.options = options
        splats: list[Tensor] = []
        device, began = default_device(), time.perf_counter()
        for first in range(0, len(self.names), self.batch):
            batch = self.names[first : first + self.batch]
            images = torch.stack([self.scenes[name].condition(*self.condition) for name in batch])
            splats += self.method(images, [int_hash(name) for name in batch])[1].cpu()
        synchronize(device)
        seconds = (time.perf_counter() - began) / len(self.names)
        return {**self._means(splats), "seconds_an_object": round(seconds, 4)}

    def _means(self, splats: list[Tensor]) -> dict[str, Any]:
        trained = self.trained
        views = list(trained.config.camera.test_ids)
        sums: dict[str, list[float]] = {}
        for name, images in zip(self.names, splats, strict=True):
            for metric, values in self.measure.views(
                render_pair(trained.config, self.scenes[name], images, views)
            ).items():
                finite = [value for value in values if value is not None]
                sums.setdefault(metric, []).extend([sum(finite) / len(finite)] if finite else [])
        return {metric: round(sum(values) / len(values), 4) for metric, values in sums.items() if values}


def measure(
    run: Path, steps: Sequence[int], guidances: Sequence[float], sampler: Sampler | None, objects: int, batch: int
) -> dict[str, Any]:  # fmt: skip
    """Evaluate each number of steps with each guidance on the first `objects` (0: all) test objects of an ablation.

    `run` is results/ablations/<name>. If `sampler` is None, the ablation's sampler is used. Raises UserError if the
    ablation is not trained.
    """
    table = _table(run, objects, batch)
    base, device = table.infer.config.infer, default_device()
    chosen = {} if sampler is None else {"sampler": sampler}
    figures: dict[str, Any] = {
        "ablation": run.name,
        "objects": len(table.names),
        "sampler": (sampler or base.sampler).model_dump(mode="json"),
        "device": device_name(device.type),
        "versions": versions(),
    }
    work: dict[str, Callable[[], dict[str, Any]]] = {name: partial(table.baseline, name) for name in BASELINES}
    for count in steps:
        for guidance in guidances:
            options = base.model_copy(update={"steps": count, "guidance": guidance, **chosen})
            work[f"{count} steps, guidance {guidance:g}"] = partial(table.sampled, options)
    rows = []
    with Meter("guidance", len(work)) as meter:
        for name, run_row in work.items():
            rows.append(guarded(name, run_row, device))
            meter.advance()
    return {**figures, "rows": rows, "missing": table.measure.missing}


def _table(run: Path, objects: int, batch: int) -> Table:
    plan = run / "plan.json"
    if not plan.is_file():
        raise UserError(f"{run}: no plan.json; give results/ablations/<name>")
    stages = read_plan(run)["stages"]
    infer, metrics = (StageFolder.open(run.parent.parent / name / stages[name]) for name in ("infer", "metrics"))
    if not (infer.upstream_path("unet") / "pipeline").is_dir():
        raise UserError(f"{run} is not trained yet: {infer.upstream_path('unet')}/pipeline does not exist")
    method, trained = ImageToSplats.from_stage(infer), infer.upstream_folder("autodecoder")
    scenes, train_ids = training_scenes(trained)
    names = held_out(trained, scenes)
    if not names:
        raise UserError(f"{run}: no test object; raise data.split.test_fraction")
    sources = Sources(metrics, trained, scenes, train_ids)
    form = infer.upstream_folder("unet").config.unet.condition_form
    viewed = Measure(metrics.config.metrics.metrics)
    return Table(method, infer, trained, scenes, names[: objects or None], sources, viewed, form, batch)
