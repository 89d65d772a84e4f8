"""Options of the training loop, shared by both stages."""

from typing import Annotated, Literal

from pydantic import Field

from z1g.core.slots import OneOf, Runtime, Section
from z1g.training.schedules import Schedule
from z1g.training.schedules.cosine import Cosine


class OptimiserOptions(Section):
    """AdamW."""

    lr: float = Field(1e-4, gt=0, description="highest learning rate")
    weight_decay: float = Field(0.05, ge=0, description="decoupled weight decay")
    betas: tuple[float, float] = Field((0.9, 0.95), description="decay of the first and second moments")
    clip_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")


class SpeedOptions(Section):
    """What makes the same training faster or smaller; results differ by rounding only."""

    fused: bool = Field(
        True,
        description="on a GPU: norms, activations, biases and additions in kernels of Triton, a pass over memory each, "
        "with images in memory pixel by pixel",
    )
    replay: bool = Field(
        True,
        description="on a GPU: stage 2's passes recorded once as a CUDA graph and replayed, as launching their kernels "
        "takes longer than they do; without effect beside micro_batch, recompute or rendering losses",
    )
    recompute: bool = Field(
        False, description="keep no activations inside residual blocks: a third more work, a fraction of the memory"
    )


class TrainOptions(Section):
    """Budget, batch and bookkeeping of one training run. The budget is counted in steps."""

    steps: int = Field(100_000, ge=1, description="optimizer steps")
    batch_size: int = Field(8, ge=1, description="objects a step, over all ranks")
    optimizer: OptimiserOptions = OptimiserOptions()
    schedule: Annotated[Schedule, OneOf()] = Cosine()
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on a GPU, fp32 on a CPU")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of an average of the weights; null: none")
    keep: Literal["last", "best"] = Field(
        "last",
        description="the weights that training ends with; best: those of the validation with the highest "
        "validation_psnr, a mean over views that neither training nor the tables use",
    )
    seed: int = Field(42, ge=0, description="seed of every draw")
    log_every: int = Field(50, ge=1, description="steps between logged means; what a plateau schedule counts")
    speed: Annotated[SpeedOptions, Runtime()] = SpeedOptions()
    cache: Annotated[Literal["auto", "device", "host", "none"], Runtime()] = Field(
        "auto",
        description="where stage 1 keeps the training objects' images and splats: on the GPU, in memory, or nowhere; "
        "auto: the first of these with room for them",
    )
    micro_batch: Annotated[int | None, Runtime()] = Field(
        None, ge=1, description="objects a forward pass; null: the whole batch of a rank at once"
    )
    workers: Annotated[int, Runtime()] = Field(0, ge=0, description="data loading processes where nothing is cached")
    checkpoint_every: Annotated[int, Runtime()] = Field(500, ge=1, description="steps between checkpoints")
    validate_every: int = Field(1000, ge=1, description="steps between validations, of which `keep: best` keeps one")
