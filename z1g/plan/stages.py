"""The stages of the DAG: the configuration that each stage reads, and its version."""

from collections.abc import Callable
from dataclasses import dataclass

from z1g.config.tree import Experiment
from z1g.core.stages import CHAIN
from z1g.sources.original import Original


@dataclass(frozen=True)
class StageSpec:
    """Specification of a stage. Increase `version` whenever its code changes results."""

    name: str
    version: int
    reads: Callable[[Experiment], tuple[str, ...]]
    """Key paths of the slice; a leading `!` excludes a path."""
    upstream: tuple[str, ...]


_STAGE_2_OF_MODELS = ("unet_size", "vision", "vision_size", "prompt_tokens", "train_vision")
"""Options of models that are of stage 2 only."""
_CODES_READS = ("autodecoder.test_steps", "autodecoder.test_lr")


def _autodecoder_reads(experiment: Experiment) -> tuple[str, ...]:
    shared = (
        "data.split",
        "data.max_quarantined",
        "data.category_power",
        "camera",
        "splat",
        "render",
        "representation",
        "autodecoder",
        *(f"!{name}" for name in _CODES_READS),
    )
    options = experiment.autodecoder
    if options.mix_diffusion.interval is not None or options.codes.needs_unet:
        return (*shared, "model", "unet.condition_size", "unet.condition_resize")
    return (*shared, *(f"!{name}" for name in _of_stage_2(experiment)), "model",
            *(f"!model.{name}" for name in _STAGE_2_OF_MODELS))  # fmt: skip


def _of_stage_2(experiment: Experiment) -> tuple[str, ...]:
    """Options of the representation that only stage 2 reads."""
    return tuple(f"representation.{name}" for name in experiment.representation.of_stage_2)


_INGEST_READS = ("data", "camera", *(f"!data.{name}" for name in (
    "split", "max_quarantined", "category_power", "paths", "chunk_size", "splats", "rotations"
)))  # fmt: skip
"""Excludes how objects are found and grouped: the manifest's digest identifies the objects."""


def _fit_reads(experiment: Experiment) -> tuple[str, ...]:
    has_splats = isinstance(experiment.data, Original) and experiment.data.splats is not None
    return ("camera", "splat", "render", "fit", *(("data.splats", "data.rotations") if has_splats else ()))


_SPECS: dict[str, tuple[int, Callable[[Experiment], tuple[str, ...]]]] = {
    "ingest": (2, lambda _: _INGEST_READS),
    "fit": (2, _fit_reads),
    "autodecoder": (2, _autodecoder_reads),
    "codes": (1, lambda _: _CODES_READS),
    "unet": (2, lambda experiment: ("model", "unet", *_of_stage_2(experiment))),
    "infer": (3, lambda _: ("infer",)),
    "metrics": (2, lambda _: ("metrics",)),
}
"""Version and slice of each stage."""
STAGES = {stage.name: StageSpec(stage.name, *_SPECS[stage.name], stage.upstream) for stage in CHAIN}
