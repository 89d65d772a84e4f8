"""Measures the GPU memory of stages, and of training in ways that take less and less of it, for `z1g plan --cost`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from z1g.bench.machine import device_name, guarded, versions
from z1g.bench.made_up_training import Make, changed, making, training, with_random_weights
from z1g.bench.untrained import objects_at_once, work
from z1g.core.device import default_device
from z1g.core.errors import UserError
from z1g.core.files import write_json
from z1g.core.stages import TRAINED
from z1g.networks.finetune import Lora
from z1g.networks.weights.published_pipeline import PublishedPipeline
from z1g.plan.cost import memory
from z1g.plan.cost.memory import GB, Peak, Way
from z1g.plan.cost.sizes import key_of
from z1g.sampling.inferred.diffusion import SampledCodes
from z1g.training.passes import WARM_UP

if TYPE_CHECKING:
    from z1g.config.tree import Experiment

STEPS = WARM_UP + 2
"""Enough for a CUDA graph, and for moments, which the first step makes."""


@dataclass(frozen=True)
class Case:
    """A way to train a stage, with Adam's moments in a form, and adapters or all weights."""

    way: Way
    state: str
    adapters: bool = False

    def __str__(self) -> str:
        return f"{self.way}{' (all)' * self.way.whole}, {self.state}{', adapters' * self.adapters}"


def measure(
    named: Sequence[tuple[str, Experiment]], stages: Sequence[str], seconds: float, out: Path | None
) -> dict[str, Any]:
    """Peaks of the stages of configurations by name, each in several ways; what does not fit is left out, with reasons.

    No measurement starts after `seconds`. out: file with all known rows and the new ones, written after each; rows that
    it has already are known, too, so that several scales come together in one file. Raises UserError without a GPU, and
    if the file has other things.
    """
    device, began = gpu(), time.perf_counter()
    known = {_what(peak): peak for peak in (*memory.measured(), *_earlier(out))}
    figures: dict[str, Any] = {"device": device_name(device.type), "versions": versions(), "rows": [], "left_out": []}
    networks: dict[tuple[str, str], Make] = {}
    for name, experiment, stage, case in _planned(named, stages):
        title = f"{name}, {stage}, {case}"
        if time.perf_counter() - began > seconds:
            figures["left_out"].append(f"{title}: no time left; raise --seconds")
            continue
        if stage in TRAINED:
            if (name, stage) not in networks:
                networks = {(name, stage): making(with_random_weights(experiment), stage)}
            work = partial(_trained, name, experiment, stage, case, networks[name, stage], device)
        else:
            work = partial(_untrained, name, experiment, stage, case, device)
        row = guarded(title, work, device)
        if "error" in row:
            figures["left_out"].append(f"{title}: {row['error']}")
            continue
        peak = Peak(**{field: row[field] for field in Peak.__dataclass_fields__})
        figures["rows"].append(row | {"computed_gb": _computed(experiment, case, peak, known.values())})
        known[_what(peak)] = peak
        if out is not None:
            write_json(out, {"rows": [asdict(peak) for peak in known.values()]})
    return figures


def _planned(
    named: Sequence[tuple[str, Experiment]], stages: Sequence[str]
) -> Iterator[tuple[str, Experiment, str, Case]]:  # fmt: skip
    """What is measured; once, if configurations agree in it."""
    seen: set[tuple[Any, ...]] = set()
    for name, experiment in named:
        for stage in stages:
            if not has_work(experiment, stage):
                continue
            for case in cases(experiment, stage):
                what = stage, key_of(experiment, stage), memory.finetune_of(experiment, stage), case
                if what not in seen:
                    seen.add(what)
                    yield name, experiment, stage, case


def _computed(experiment: Experiment, case: Case, peak: Peak, known: Iterable[Peak]) -> float | None:
    """What rows with other moments say of a row: how far computed bytes are right. None if there are none."""
    others = [other for other in known if other.state != peak.state]
    if peak.stage not in TRAINED or not others:
        return None
    said = memory.estimate(experiment, peak.stage, case.way, peak.state, peak.finetune, others)
    return None if said is None else round(said, 3)


def gpu() -> torch.device:
    """The GPU. Raises UserError without one."""
    device = default_device()
    if device.type != "cuda":
        raise UserError("there is no GPU here, whose memory is measured; run this on the machine that trains")
    return device


def allocated(device: torch.device) -> tuple[int, int]:
    """Most bytes that tensors took and that were reserved for them, since the last `clean`."""
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)


def has_work(experiment: Experiment, stage: str) -> bool:
    """Whether a stage works as measured here.

    Not so stage 1 of a stock decoder, which trains nothing, stage 2 with a distillation, which trains twice, and
    samples that are refined, which run the decoder backward.
    """
    if stage == "infer":
        return type(experiment.infer.codes) is SampledCodes
    if stage == "codes":
        # Codes of a UNet are read from its stage, and cached ones from a file.
        return experiment.autodecoder.codes.kind in ("encoder", "optimized")
    if stage == "unet":
        return experiment.unet.distill is None
    return stage != "autodecoder" or getattr(experiment.representation, "decoder", None) != "stock"


def cases(experiment: Experiment, stage: str) -> Iterator[Case]:
    """What is measured: as configured, and of training what other numbers of objects and the remedies need."""
    if stage in memory.UNTRAINED:
        yield Case(Way(objects_at_once(experiment, stage), True, False), "float32")
        return
    way, state = memory.configured(experiment, stage), memory.state_of(experiment, stage)
    objects = memory.objects_of(experiment, stage)
    yield Case(way, state)
    numbers = [n for n in sorted({1, 2, 4, objects // 2}) if 0 < n < objects]
    recomputed = [Way(n, objects == n, True) for n in (numbers[:2] or [1])]
    for other in [*(Way(n, False, False) for n in numbers), *recomputed]:
        if other != way:
            yield Case(other, state)
    if way.whole and objects > 1 and not way.recompute:
        yield Case(Way(objects // 2, True, False), state)
    if state != "int8":
        yield Case(recomputed[0], "int8")
    published = isinstance(experiment.model, PublishedPipeline)
    if stage == "unet" and published and not isinstance(experiment.unet.finetune, Lora):
        for other in dict.fromkeys([way, Way(1, objects == 1, False), recomputed[0]]):
            yield Case(other, state, adapters=True)


def _trained(
    name: str, experiment: Experiment, stage: str, case: Case, make: Make, device: torch.device
) -> dict[str, Any]:
    """The row of a case. Raises MemoryError if training had to change the way."""
    way = case.way
    options = getattr(experiment, stage).train
    train = options.model_copy(
        update={
            "batch_size": way.objects if way.whole else 2 * way.objects,
            "micro_batch": None if way.whole else way.objects,
            "optimizer": options.optimizer.model_copy(update={"state": case.state}),
            "speed": options.speed.model_copy(update={"recompute": way.recompute}),
        }
    )
    finetune = {"finetune": Lora()} if case.adapters else {}
    config = changed(with_random_weights(experiment), stage, train, **finetune)
    with training(config, stage, make, STEPS) as (trainer, batches):
        for step, batch in enumerate(batches):
            trainer._step(step, batch)
        if (trainer.passes.micro_batch, trainer.fitted.recomputes) != (train.micro_batch, way.recompute):
            raise MemoryError("training had to do with fewer objects at once; use a GPU with more memory")
        trained = sum(p.numel() for p in trainer.trained)
    return _row(name, experiment, stage, case, device, trained, ema=train.ema is not None)


def _untrained(name: str, experiment: Experiment, stage: str, case: Case, device: torch.device) -> dict[str, Any]:
    """The row of a stage that trains no networks."""
    work(with_random_weights(experiment), stage, case.way.objects, STEPS, device)
    return _row(name, experiment, stage, case, device)


def _row(
    name: str, experiment: Experiment, stage: str, case: Case, device: torch.device, trained: int = 0, *,
    ema: bool = False,
) -> dict[str, Any]:  # fmt: skip
    (tensors, reserved), way = allocated(device), case.way
    peak = Peak(
        stage=stage, key=key_of(experiment, stage), about=name,
        finetune=memory.ADAPTERS if case.adapters else memory.finetune_of(experiment, stage), objects=way.objects,
        whole=way.whole, recompute=way.recompute, state=case.state, ema=ema, trained=trained,
        gb=round(tensors / GB, 3), device=device_name(device.type),
    )  # fmt: skip
    return {**asdict(peak), "reserved_gb": round(reserved / GB, 3)}


def _earlier(out: Path | None) -> tuple[Peak, ...]:
    """Rows of a file that `measure` wrote; none if there is no such file. Raises UserError if it has other things."""
    if out is None or not out.exists():
        return ()
    try:
        return memory.rows_of(out)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{out} has no rows of z1g bench memory: {error}; name another file with --out") from error


def _what(peak: Peak) -> tuple[Any, ...]:
    """What a row is of; a later measurement replaces it."""
    return peak.stage, peak.key, peak.finetune, peak.objects, peak.whole, peak.recompute, peak.state, peak.ema


def markdown(figures: dict[str, Any]) -> str:
    """Rows as a table, then what was left out."""
    head = (
        "| configuration | stage | objects at once | recomputed | moments | trained, 10⁶ | GB | reserved | computed |"
    )
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for row in figures["rows"]:
        moments = row["state"] + (" of adapters" if row["finetune"] != "full" else "")
        cells = [
            row["about"],
            row["stage"],
            f"{row['objects']}{' (all)' * row['whole']}",
            "yes" if row["recompute"] else "no",
        ]
        cells += [moments, f"{row['trained'] / 1e6:.1f}", f"{row['gb']:.2f}", f"{row['reserved_gb']:.2f}"]
        cells.append("" if row["computed_gb"] is None else f"{row['computed_gb']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"{figures['device']}", "", *lines, "", *figures["left_out"]]) + "\n"
