"""Options of the stages that combine several parts."""

import json
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from z1g.codes import CodeSource
from z1g.codes.encoder import EncoderCodes
from z1g.core.needs import require_attention
from z1g.core.slots import MAX_COUNT, MAX_SEED, OneOf, Runtime, Section
from z1g.data.condition_form import LARGEST, SMALLEST, ConditionForm, Resize
from z1g.geometry.camera import INPUT_VIEWS, LossViews
from z1g.losses import Loss
from z1g.losses.adversarial import Adversarial
from z1g.losses.latent import LatentLoss
from z1g.losses.lpips import StLpipsLoss
from z1g.losses.rendering import AlphaLoss, RgbLoss
from z1g.losses.splat import SplatLoss
from z1g.metrics import Metric
from z1g.metrics.alpha_iou import AlphaIou
from z1g.metrics.base import TAKEN
from z1g.metrics.depth import DepthError
from z1g.metrics.frechet import FdEffLite0
from z1g.metrics.lpips import StLpips
from z1g.metrics.protocols import Protocol
from z1g.metrics.protocols.base import SEPARATOR
from z1g.metrics.protocols.own import Own
from z1g.metrics.psnr import Psnr
from z1g.metrics.ssim import Ssim
from z1g.metrics.surface import Chamfer, FScore
from z1g.networks.finetune import Finetune
from z1g.networks.finetune.full import Full
from z1g.networks.process import TRAINED_WITH, Objective
from z1g.networks.timesteps import Timesteps
from z1g.networks.timesteps.uniform import Uniform
from z1g.sampling.options import KERNELS, AttentionKernels
from z1g.training.options import TrainOptions

TIMESTEPS: int = TRAINED_WITH["num_train_timesteps"]


class MixDiffusion(Section):
    """Replaces the codes of some samples with one-step predictions of the UNet.

    The UNet has the model's initial weights. Published weights predict the code; random weights give a noised code,
    which trains the decoder on noisy inputs.
    """

    interval: int | None = Field(None, ge=1, le=MAX_COUNT, description="one in n uses predictions; 1: all, null: none")
    unit: Literal["samples", "passes"] = Field(
        "samples",
        description="unit of `interval`. samples: drawn at random; passes: passes over the data, starting with the "
        "first, that use predictions for all samples (as in the original)",
    )
    timesteps: Annotated[Timesteps, OneOf()] = Uniform()


class Augmentation(Section):
    """Augments the objects of stage 1 by symmetries of the input cameras and of the colors. Needs a trained encoder.

    Turned samples permute the input views, recolored samples permute the color channels. Both are exact and need no
    rendering.
    """

    turned: float = Field(0.0, ge=0, le=1, description="fraction of samples rotated by a third of a turn or mirrored")
    recolored: float = Field(0.0, ge=0, le=1, description="fraction of samples with permuted color channels")

    def __bool__(self) -> bool:
        return self.turned > 0 or self.recolored > 0


class AutodecoderOptions(Section):
    """Stage 1: trains the VAE decoder to map codes to splatter images."""

    codes: Annotated[CodeSource, OneOf()] = EncoderCodes()
    mix_diffusion: MixDiffusion = MixDiffusion()
    losses: dict[str, Annotated[Loss, OneOf()]] = {
        "rgb": RgbLoss(),
        "alpha": AlphaLoss(),
        "perceptual": StLpipsLoss(),
        "splat": SplatLoss(),
    }
    adversarial: Adversarial | None = None
    views: int = Field(8, ge=1, le=10_000, description="free training views rendered per object and step")
    loss_views: LossViews = Field(
        "train",
        description="views that losses compare, also rendered losses of stage 2. train: the free training views; all: "
        "as in the original, all views of an object, with the condition, inputs, and those of validation and test, "
        "which tables measure",
    )
    render_inputs: bool = Field(False, description="also render the six input views")
    augment: Augmentation = Augmentation()
    code_noise: float = Field(
        0.0,
        ge=0,
        le=100,
        description="maximum noise added to codes in training, in standard deviations of each object's code; the level "
        "of each sample is uniform between 0 and this. Makes the decoder robust to errors of stage 2",
    )
    random_background: bool = Field(True, description="random background color for each sample; false: mid-gray")
    validation_background: float = Field(
        1.0,
        ge=0,
        le=1,
        description="gray level behind validation views; 1: white, as in the metrics; the original: 0.5",
    )
    perceptual_dropout: bool = Field(
        False, description="the original's bug: dropout in the heads of perceptual networks is active in training"
    )
    composite_twice: bool = Field(
        False,
        description="the original's bug: target images are composited on mid-gray before they are composited on the "
        "background, which leaves gray outlines",
    )
    bf16: Annotated[Literal["weights", "autocast"], Runtime()] = Field(
        "weights",
        description="how the decoder uses bf16. weights: cast once per step, all but the last layers run in bf16; "
        "autocast: norms in fp32",
    )
    test_steps: int = Field(
        200, ge=1, le=MAX_COUNT, description="steps that optimize the code of a test object; the decoder is frozen"
    )
    test_lr: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="learning rate that refines the encoder's codes of test objects on their training views, in "
        "standard deviations of the codes; 0: no refinement. Other kinds of codes have their own learning rate",
    )
    train: TrainOptions = TrainOptions()

    @model_validator(mode="after")
    def _judged_views_are_rendered(self) -> Self:
        judged = None if self.adversarial is None else self.adversarial.views
        rendered = self.views + self.render_inputs * len(INPUT_VIEWS)
        if (judged or 0) > rendered:
            raise ValueError(f"adversarial.views {judged} is more than the {rendered} views that are rendered")
        return self


class RenderedCodes(Section):
    """Stage 1's losses on renders of the predicted code, decoded by the frozen decoder."""

    losses: dict[str, Annotated[Loss, OneOf()]] = {"rgb": RgbLoss(), "alpha": AlphaLoss()}
    views: int = Field(6, ge=1, le=10_000, description="free training views rendered per object and step")
    below: int = Field(
        1000, ge=1, le=1000, description="decode only samples at smaller timesteps; 1000: all, as in the original"
    )


class Variants(Section):
    """Adds synthetic objects to stage 2: fitted splats of the training objects, stretched, turned and recolored.

    Their input views and conditions are rendered once, the conditions from elevations of their own; their codes are
    those of the encoder. An encoder that sees splats allows only variants whose splatter images are known without a
    fit: other colors and conditions, and `symmetries`.
    """

    count: int = Field(8, ge=1, le=10_000, description="variants per training object")
    share: float = Field(0.7, gt=0, le=1, description="fraction of samples that are variants")
    stretch: float = Field(
        0.25, ge=0, le=1, description="scale each axis by up to 1 + this or its inverse, then restore the object's size"
    )
    turn_deg: float = Field(10.0, ge=0, le=180, description="maximum rotation around the up axis, degrees")
    mirror: bool = Field(True, description="mirror every other variant left to right")
    symmetries: bool = Field(
        False,
        description="turn and mirror variants, one after the other, by the symmetries of the input cameras, so that "
        "conditions show an object from all around; six for Zero123++'s layouts",
    )
    recolored: float = Field(0.5, ge=0, le=1, description="fraction of variants with permuted color channels")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="random seed of the variants")

    @property
    def moves(self) -> bool:
        """Whether variants are moved by other maps than symmetries of the input cameras."""
        return self.stretch > 0 or self.turn_deg > 0 or self.mirror


class DistillationTraining(TrainOptions):
    """Budget, batch and logging of a distillation. A step is several times as long as one of the teacher's training."""

    steps: int = Field(1000, ge=1, le=MAX_COUNT, description="optimizer steps")
    batch_size: int = Field(
        64, ge=1, le=1_000_000, description="objects per step, over all ranks; the UNet sees each at all of its steps"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: that of `unet.train`, no other")
    ema: float | None = Field(
        0.99, gt=0, lt=1, description="decay of the exponential moving average of the weights; null: none"
    )
    checkpoint_every: Annotated[int, Runtime()] = Field(
        250, ge=1, le=MAX_COUNT, description="steps between checkpoints"
    )
    validate_every: int = Field(250, ge=1, le=MAX_COUNT, description="steps between validations")


class Distillation(Section):
    """Distills stage 2's UNet to a few steps without guidance: a second training, of a copy of the UNet.

    The UNet after `unet.train`, the teacher, goes from noise to codes by DDIM, in many steps with guidance; the copy
    learns to take equal parts of these ways in one step each, by `unet.losses`. It is sampled by `infer.sampler` ddim
    in `steps` steps with guidance 1. With a trained model and `unet.train.steps: 0`, the model itself is the teacher.
    """

    steps: int = Field(4, ge=1, le=50, description="steps in which the UNet is sampled afterwards; a divisor of 1000")
    guidance: float = Field(
        2.0, ge=1, le=1000, description="scale of classifier-free guidance of the teacher; 1: none, in half the time"
    )
    teacher_steps: int = Field(12, ge=1, le=1000, description="steps of the teacher; a multiple of `steps`")
    mixed: float = Field(
        0.0,
        ge=0,
        le=1,
        description="fraction of samples whose condition is between those of two objects (latents and embeddings, or "
        "images, in random shares), which the teacher has not learned by heart",
    )
    train: DistillationTraining = DistillationTraining()

    def problem(self, train: TrainOptions) -> str | None:
        """What of the section cannot be, None if nothing is; begins with the key. train: options of the teacher's."""
        if TIMESTEPS % self.steps:
            return f"steps {self.steps} does not divide {TIMESTEPS}, the timesteps: use 1, 2, 4, 5 or 8"
        if self.teacher_steps % self.steps:
            return f"teacher_steps {self.teacher_steps} is not a multiple of steps, {self.steps}"
        if self.teacher_steps == self.steps and self.guidance == 1:
            return f"teacher_steps {self.teacher_steps} without guidance leaves nothing to learn: raise one of them"
        if self.train.precision not in ("auto", train.precision):
            return f"train.precision '{self.train.precision}' is not that of unet.train, '{train.precision}'"
        return None


class UNetOptions(Section):
    """Stage 2: trains the UNet to generate codes from an image."""

    objective: Objective = Field(
        "diffusion",
        description="what the UNet learns. diffusion: to denoise codes; regression: to give the code in one pass, a "
        "baseline without randomness: `timesteps`, `condition_dropout` and the options of sampling have no effect",
    )
    finetune: Annotated[Finetune, OneOf()] = Full()
    timesteps: Annotated[Timesteps, OneOf()] = Uniform()
    losses: dict[str, Annotated[Loss, OneOf()]] = {"latent": LatentLoss()}
    rendered: RenderedCodes | None = None
    variants: Variants | None = None
    distill: Distillation | None = None
    condition_size: int = Field(
        320,
        ge=SMALLEST,
        le=LARGEST,
        description="side of the condition image, pixels; the processors of published weights resize it further",
    )
    condition_resize: Resize = Field(
        "bilinear",
        description="how images are resized to the condition. bilinear: in floats, antialiased; bicubic: as in the "
        "original, by Pillow in 8-bit RGBA, composited on gray 127 and cut to bytes",
    )
    condition_dropout: float = Field(
        0.1, ge=0, lt=1, description="fraction of samples trained without condition, for classifier-free guidance"
    )
    init_seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="random seed of the initial weights; null: that of the model. Needs a model with random weights",
    )
    normalize_codes: bool = Field(
        False,
        description="normalize codes to zero mean and unit variance over the training objects; needed with random "
        "encoders. false: by the statistics of a trained model, which few objects cannot estimate, or else not at all",
    )
    bf16: Annotated[Literal["weights", "autocast"], Runtime()] = Field(
        "weights",
        description="how the UNet uses bf16. weights: cast once per step, all layers in bf16; autocast: norms in fp32",
    )
    attention: AttentionKernels = Field("auto", description=KERNELS)
    train: TrainOptions = TrainOptions()

    def check(self) -> None:
        require_attention(self.attention)

    @property
    def condition_form(self) -> ConditionForm:
        """Form of condition images."""
        return ConditionForm(self.condition_size, self.condition_resize)


class MetricsOptions(Section):
    """Metrics of test views, of the geometry of objects, and of all renders together."""

    metrics: dict[str, Annotated[Metric, OneOf()]] = Field(
        {
            "psnr": Psnr(),
            "ssim": Ssim(),
            "st_lpips": StLpips(),
            "alpha_iou": AlphaIou(),
            "depth_error": DepthError(),
            "chamfer": Chamfer(),
            "f_score": FScore(),
            "fd_efflite0": FdEffLite0(),
        },
        min_length=1,
    )
    protocol: Annotated[Protocol, OneOf()] = Field(
        Own(), description="views, images and means behind figures; those of another one have columns of their own"
    )

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        for name in self.metrics:
            if name in TAKEN:
                raise ValueError(f"metrics.{name} needs another name: rows have a column of their own called {name}")
            if SEPARATOR in name:
                raise ValueError(f'metrics.{name} needs another name: "{SEPARATOR}" begins the name of a protocol')
        return self


def _slurm_name(name: str) -> str:
    """A word, as it becomes part of a command. Raises ValueError."""
    if not re.fullmatch(r"\w[\w.,:@+/-]*", name, re.ASCII):
        raise ValueError(f"expected a name of letters, digits and _.,:@+/-, got {json.dumps(name)[:80]}")
    return name


SlurmName = Annotated[str, AfterValidator(_slurm_name)]


class JobResources(Section):
    """Resources that one job requests."""

    threads: int = Field(1, ge=1, le=4096, description="CPU cores")
    gpus: int = Field(0, ge=0, le=1, description="GPUs; more chunks, not more GPUs, speed up this stage")
    memory_mb: int = Field(4000, ge=100, le=MAX_COUNT, description="memory, MiB")
    minutes: int = Field(60, ge=1, le=1_000_000, description="time limit, minutes")
    partition: SlurmName | None = Field(None, description="SLURM partition; null: that of the profile")
    account: SlurmName | None = Field(None, description="SLURM account; null: that of the profile")
    qos: SlurmName | None = Field(None, description="SLURM quality of service; null: that of the profile")


class TrainingResources(JobResources):
    """Resources of a training job. The batch is divided over all processes; cores, GPUs and memory are per node."""

    gpus: int = Field(0, ge=0, le=1024, description="GPUs, one process each")
    nodes: int = Field(1, ge=1, le=10_000, description="SLURM nodes")
    gpu_memory_gb: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="memory that training may use of each GPU, GB; it then has fewer objects at once, or recomputes "
        "activations, as when a GPU is full; null: all",
    )


class Resources(Section):
    """Resources of each stage's jobs; not part of identities."""

    ingest: JobResources = JobResources(threads=8, memory_mb=8000, minutes=240)
    fit: JobResources = JobResources(threads=4, gpus=1, memory_mb=16000, minutes=240)
    autodecoder: TrainingResources = TrainingResources(threads=8, gpus=1, memory_mb=64000, minutes=2880)
    codes: JobResources = JobResources(threads=4, gpus=1, memory_mb=32000, minutes=240)
    unet: TrainingResources = TrainingResources(threads=8, gpus=1, memory_mb=64000, minutes=2880)
    infer: JobResources = JobResources(threads=4, gpus=1, memory_mb=32000, minutes=120)
    metrics: JobResources = JobResources(threads=4, gpus=1, memory_mb=32000, minutes=120)
