"""What one process of a row measures, and the networks and sizes of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from z1g.bench.autodecoder import resolution
from z1g.bench.diffusion_size import SIZES, Size
from z1g.bench.made_up import Sizes, experiment
from z1g.config.resolve import resolve
from z1g.config.sections import UNetOptions
from z1g.config.yaml_file import read_yaml
from z1g.core.errors import UserError
from z1g.networks.weights.scratch import Scratch

if TYPE_CHECKING:
    from z1g.config.tree import Experiment

TRAINED = ("autodecoder", "unet")
"""Stages whose processes train one model together."""
CHUNKED = ("fit", "infer")
"""Stages whose processes work on chunks of objects, each on its own."""
STAGES = (*TRAINED, *CHUNKED)
STAGE_1 = {
    "full": Sizes(),
    "tiny": Sizes(views=2, image=32, splats=16, inputs=16, channels=(8, 8), layers=1, perceptual=64),
}
BATCHES = {
    "full": {"autodecoder": 8, "unet": 24, "fit": 32, "infer": 16},
    "tiny": {"autodecoder": 2, "unet": 4, "fit": 2, "infer": 2},
}
"""Objects of a GPU by size and stage; `unet` has a multiple of eight, for strong scaling."""
FIT_STEPS = {"full": None, "tiny": 4}
"""Steps of a fit; None: those of the configuration."""


@dataclass(frozen=True)
class Job:
    """Work of one process: `repeats` timed windows of `steps` steps (sampling steps for `infer`), with `batch` objects.

    base: the YAML file of a scale whose sizes, losses and options are used instead of those of `size`.
    batch: objects of this process.
    """

    stage: str
    size: str
    base: str | None
    batch: int
    steps: int
    repeats: int

    @cached_property
    def config(self) -> Experiment:
        """Configuration of stage 1 and of the fit. Raises UserError if it has no random initialization."""
        if self.base is None:
            return experiment(STAGE_1[self.size])
        config = resolve([read_yaml(Path(self.base))])
        if not isinstance(config.model, Scratch):
            raise UserError(f"{self.base}: benchmarks need networks with random weights, model: {{kind: scratch}}")
        return config

    @property
    def image(self) -> int:
        """Width of a rendered image in pixels."""
        return STAGE_1[self.size].image if self.base is None else resolution(self.config)

    @property
    def diffusion(self) -> Size:
        """Networks of stage 2."""
        if self.base is None:
            return SIZES[self.size]
        model, representation = self.config.model, self.config.representation
        assert isinstance(model, Scratch)
        return Size(model, representation, self.config.unet.condition_size, self.config.splat.size)

    @property
    def unet(self) -> UNetOptions:
        """Options of stage 2."""
        if self.base is not None:
            return self.config.unet
        return UNetOptions(attention="cudnn" if self.size == "full" else "auto")


def default_batch(stage: str, size: str, base: str | None) -> int:
    """Objects of a GPU: those of the benchmarks of one GPU, or of the scale's configuration."""
    if base is None:
        return BATCHES[size][stage]
    config = Job(stage, size, base, 0, 0, 0).config
    return {
        "autodecoder": config.autodecoder.train.batch_size,
        "unet": config.unet.train.batch_size,
        "fit": config.fit.batch_objects,
        "infer": config.infer.batch_size,
    }[stage]
