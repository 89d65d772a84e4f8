"""GPU memory of training: measured peaks, what they say of other batches, and what fits into a GPU.

A peak is the sum of what does not depend on the objects at once (weights, their bfloat16 copy, gradients, Adam's
moments, an average of the weights) and of activations, which grow by the same amount with each object. `z1g bench
memory` measures peaks of several batches; the bytes of moments and average are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from z1g.core.files import read_json
from z1g.core.stages import TRAINED
from z1g.networks.finetune import Finetune, Full, Lora
from z1g.plan.cost.sizes import key_of
from z1g.plan.identity import digest
from z1g.training.remedies import remedies

if TYPE_CHECKING:
    from z1g.config.tree import Experiment
    from z1g.training.options import TrainOptions

FILE = Path(__file__).with_name("memory.json")
GB = 1e9
MOMENT_BYTES = {"float32": 8.0, "bfloat16": 4.0, "int8": 2 + 8 / 256}
"""Bytes of Adam's moments for a trained weight, by `train.optimizer.state`."""
AVERAGE_BYTES = GRADIENT_BYTES = 4.0


UNTRAINED: dict[str, Callable[[Experiment], int | None]] = {
    "fit": lambda experiment: experiment.fit.at_once,
    "codes": lambda _: None,
    "infer": lambda experiment: experiment.infer.batch_size,
    "metrics": lambda _: None,
}
"""Objects at once of stages that train no networks and are measured; None: what else `key_of` has determines them."""
ADAPTERS = digest(Lora().model_dump(mode="json"))
"""Adapters as they are by default, as rows name them."""


@dataclass(frozen=True)
class Peak:
    """A measured peak, in GB (10⁹ bytes) that torch has allocated. `key`: of what was trained, see `key_of`.

    objects: at once. whole: the batch at once, so that gradients are not kept while activations are. trained: weights.
    """

    stage: str
    key: str
    about: str
    finetune: str
    objects: int
    whole: bool
    recompute: bool
    state: str
    ema: bool
    trained: int
    gb: float
    device: str

    def without_moments(self) -> float:
        """The peak without Adam's moments and without an average."""
        return self.gb - fixed(self.trained, self.state, ema=self.ema)


@dataclass(frozen=True)
class Way:
    """A way to train: objects at once, whether these are the whole batch of a GPU, and recomputed activations."""

    objects: int
    whole: bool
    recompute: bool

    def __str__(self) -> str:
        return f"{self.objects} at once" + (", recomputed" if self.recompute else "")


@cache
def measured() -> tuple[Peak, ...]:
    """All measured peaks."""
    return rows_of(FILE)


def rows_of(file: Path) -> tuple[Peak, ...]:
    """The peaks of a file. Raises OSError, ValueError, KeyError or TypeError if it has other things."""
    return tuple(Peak(**row) for row in read_json(file)["rows"])


def fixed(trained: int, state: str, *, ema: bool) -> float:
    """GB of Adam's moments and of an average for so many trained weights."""
    return trained * (MOMENT_BYTES[state] + AVERAGE_BYTES * ema) / GB


def finetune_of(experiment: Experiment, stage: str) -> str:
    """The weights that a stage trains, as rows name them; `full` for stages that train none."""
    if stage != "unet":
        return "full"
    return name_of(experiment.unet.finetune)


def name_of(finetune: Finetune) -> str:
    """`full`, or the digest of the options of adapters."""
    return "full" if isinstance(finetune, Full) else digest(finetune.model_dump(mode="json"))


def objects_of(experiment: Experiment, stage: str) -> int:
    """Objects of a step on each GPU."""
    resources = getattr(experiment.resources, stage)
    processes: int = max(1, resources.gpus * resources.nodes)
    return max(1, _train(experiment, stage).batch_size // processes)


def state_of(experiment: Experiment, stage: str) -> str:
    """The form of Adam's moments of a stage."""
    return _train(experiment, stage).optimizer.state


def configured(experiment: Experiment, stage: str) -> Way:
    """How a stage trains with its options, if there is enough memory."""
    options, objects = _train(experiment, stage), objects_of(experiment, stage)
    at_once = min(options.micro_batch or objects, objects)
    return Way(at_once, at_once == objects, options.speed.recompute)


def ways(experiment: Experiment, stage: str) -> Iterator[Way]:
    """The ways in which a stage tries to train, each with less memory than the one before, see `FittedPasses`."""
    way, objects = configured(experiment, stage), objects_of(experiment, stage)
    yield way
    at_once = way.objects
    while at_once > 1:
        at_once = (at_once + 1) // 2
        yield Way(at_once, at_once == objects, way.recompute)
    if not way.recompute:
        yield Way(1, objects == 1, True)


def estimate(
    experiment: Experiment, stage: str, way: Way, state: str | None = None, finetune: str | None = None,
    among: Sequence[Peak] | None = None,
) -> float | None:  # fmt: skip
    """GB of a GPU that a way to train takes at its peak, with Adam's `state` and `finetune` or those of the options.

    From peaks of the same networks and sizes: measured there, or on the line through two numbers of objects. None if
    there are too few. With several GPUs, gradients are there twice. among: peaks; None: those that come with the
    package.
    """
    key, options = key_of(experiment, stage), _train(experiment, stage)
    finetune = finetune or finetune_of(experiment, stage)
    peaks = [p for p in among or measured() if (p.stage, p.key, p.finetune) == (stage, key, finetune)]
    peaks = [p for p in peaks if (p.whole, p.recompute) == (way.whole, way.recompute)]
    base = _on_the_line([(p.objects, p.without_moments()) for p in peaks], way.objects)
    if base is None:
        return None
    trained, resources = peaks[0].trained, getattr(experiment.resources, stage)
    together = trained * GRADIENT_BYTES / GB if resources.gpus * resources.nodes > 1 else 0.0
    return base + together + fixed(trained, state or options.optimizer.state, ema=options.ema is not None)


def _on_the_line(points: Sequence[tuple[int, float]], x: int) -> float | None:
    """The value at x: the largest that is known, or that of the line through the points nearest to x, or None."""
    by_x: dict[int, float] = {}
    for at, value in points:
        by_x[at] = max(value, by_x.get(at, value))
    if x in by_x:
        return by_x[x]
    nearest = sorted(by_x, key=lambda at: abs(at - x))[:2]
    if len(nearest) < 2:
        return None
    a, b = nearest
    return by_x[a] + (by_x[b] - by_x[a]) * (x - a) / (b - a)


def fitting(experiment: Experiment, stage: str, gb: float) -> tuple[Way, float] | None:
    """The first way that takes at most so many GB, and what it takes. None if none does, or if it is not known."""
    for way in ways(experiment, stage):
        needed = estimate(experiment, stage, way)
        if needed is not None and needed <= gb:
            return way, needed
    return None


def cell(experiment: Experiment, stage: str) -> str:
    """GPU memory of a stage for a table: as configured, or as training fits it into `gpu_memory_gb`."""
    if not getattr(experiment.resources, stage).gpus:
        return "none"
    if stage not in TRAINED:
        peak = of_untrained(experiment, stage)
        return "not measured" if peak is None else f"{peak.gb:.1f} ({peak.objects} at once)"
    way, limit = configured(experiment, stage), _limit(experiment, stage)
    needed = estimate(experiment, stage, way)
    if limit is not None and (needed is None or needed > limit):
        found = fitting(experiment, stage, limit)
        if found is not None:
            way, needed = found
        elif _least(experiment, stage) is not None:
            return f"more than {limit}"
    return "not measured" if needed is None else f"{needed:.1f} ({way})"


def of_untrained(experiment: Experiment, stage: str) -> Peak | None:
    """The peak of a stage that trains no networks, with as many objects at once as configured; None if not measured."""
    if stage not in UNTRAINED:
        return None
    key, objects = key_of(experiment, stage), UNTRAINED[stage](experiment)
    peaks = [p for p in measured() if (p.stage, p.key) == (stage, key) and objects in (None, p.objects)]
    return max(peaks, key=lambda peak: peak.gb, default=None)


def table(experiment: Experiment) -> str:
    """A Markdown table of what each training stage takes in ways that take less and less."""
    head = "| stage | as configured | 1 at once | 1, recomputed | also state int8 | also adapters | measured on |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for stage in TRAINED:
        one = [Way(1, objects_of(experiment, stage) == 1, recompute) for recompute in (False, True)]
        figures = [estimate(experiment, stage, way) for way in (configured(experiment, stage), *one)]
        figures.append(estimate(experiment, stage, one[1], "int8"))
        cells = [cell_of(figure) for figure in figures]
        cells.append(cell_of(estimate(experiment, stage, one[1], "int8", ADAPTERS)) if stage == "unet" else "")
        keys = {p.device for p in measured() if (p.stage, p.key) == (stage, key_of(experiment, stage))}
        lines.append(f"| {stage} | {' | '.join(cells)} | {', '.join(sorted(keys))} |")
    return "\n".join(lines) + "\n"


def cell_of(gb: float | None) -> str:
    """A figure of a table."""
    return "not measured" if gb is None else f"{gb:.1f}"


def problem(experiment: Experiment, stage: str) -> str | None:
    """Why a stage cannot train in its `gpu_memory_gb`, as far as it was measured; None if it can or is not known."""
    limit, least = _limit(experiment, stage), _least(experiment, stage)
    if limit is None or least is None or fitting(experiment, stage, limit) is not None:
        return None
    options = _train(experiment, stage)
    adapters = stage == "unet" and isinstance(experiment.unet.finetune, Full) and experiment.model.pretrained_encoder
    text = remedies(stage, state=options.optimizer.state, average=options.ema is not None, adapters=adapters)
    return (
        f"{limit} GB are too little: with one object at once and recomputed activations, training takes {least:.1f} "
        f"GB, as measured. {text}"
    )


def _least(experiment: Experiment, stage: str) -> float | None:
    """GB of the way that takes least, None if they are not known."""
    last = list(ways(experiment, stage))[-1]
    return estimate(experiment, stage, last)


def _limit(experiment: Experiment, stage: str) -> int | None:
    limit: int | None = getattr(experiment.resources, stage).gpu_memory_gb
    return limit


def _train(experiment: Experiment, stage: str) -> TrainOptions:
    options: TrainOptions = getattr(experiment, stage).train
    return options
