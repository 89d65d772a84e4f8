"""Options of the training loop, shared by both stages."""

from typing import Annotated, Literal

from pydantic import Field

from z1g.core.slots import MAX_COUNT, MAX_SEED, OneOf, Runtime, Section
from z1g.training.schedules import Schedule
from z1g.training.schedules.cosine import Cosine

Decay = Annotated[float, Field(ge=0, lt=1)]
"""Adam's decay rate of a moment."""


class OptimizerOptions(Section):
    """AdamW."""

    lr: float = Field(1e-4, gt=0, le=1000, description="maximum learning rate")
    weight_decay: float = Field(0.05, ge=0, le=1000, description="decoupled weight decay")
    betas: tuple[Decay, Decay] = Field((0.9, 0.95), description="decay rates of the first and second moments")
    clip_norm: float = Field(
        1.0, gt=0, le=1e9, description="maximum norm of the gradient; larger gradients are scaled down"
    )
    state: Literal["float32", "bfloat16", "int8"] = Field(
        "float32",
        description="form of Adam's two moments, 8, 4 or 2 bytes for each trained weight. bfloat16: rounded "
        "stochastically; int8: quantized in blocks (Dettmers et al. 2022)",
    )


class SpeedOptions(Section):
    """Options that reduce the time or memory of training; results differ by rounding only."""

    fused: bool = Field(
        True,
        description="on a GPU: fused Triton kernels for norms, activations, biases and additions, with images in "
        "channels_last memory format",
    )
    replay: bool = Field(
        True,
        description="on a GPU: capture stage 2's forward and backward passes in a CUDA graph and replay it; no effect "
        "with micro_batch, recompute or rendering losses",
    )
    recompute: bool = Field(
        False,
        description="recompute activations of residual blocks in the backward pass: a third more work, less memory",
    )


class TrainOptions(Section):
    """Budget, batch and logging of one training run. The budget is counted in steps."""

    steps: int = Field(
        100_000, ge=0, le=MAX_COUNT, description="optimizer steps; 0 leaves the initial weights as they are"
    )
    batch_size: int = Field(8, ge=1, le=1_000_000, description="objects per step, over all ranks")
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: Annotated[Schedule, OneOf()] = Cosine()
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on a GPU, fp32 on a CPU")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of the exponential moving average of the weights; null: none"
    )
    keep: Literal["last", "best"] = Field(
        "last",
        description="weights to keep at the end; best: those of the validation with the highest validation_psnr, a "
        "mean over views that neither training nor the tables use",
    )
    seed: int = Field(42, ge=0, le=MAX_SEED, description="random seed of sampling and noise")
    log_every: int = Field(
        50, ge=1, le=MAX_COUNT, description="steps between logged means; the interval of plateau schedules"
    )
    speed: Annotated[SpeedOptions, Runtime()] = SpeedOptions()
    cache: Annotated[Literal["auto", "device", "host", "none"], Runtime()] = Field(
        "auto",
        description="where stage 1, and stage 2 with `rendered`, cache images and splats of the training objects: on "
        "the GPU, in host memory, or nowhere; auto: the first of these with enough free memory",
    )
    micro_batch: Annotated[int | None, Runtime()] = Field(
        None, ge=1, le=1_000_000, description="objects per forward pass; null: the whole batch of a rank"
    )
    workers: Annotated[int, Runtime()] = Field(
        0, ge=0, le=4096, description="data loading processes if nothing is cached"
    )
    checkpoint_every: Annotated[int, Runtime()] = Field(
        500, ge=1, le=MAX_COUNT, description="steps between checkpoints"
    )
    validate_every: int = Field(
        1000, ge=1, le=MAX_COUNT, description="steps between validations, from which `keep: best` selects"
    )
