"""Options of the stages that combine several parts."""

from typing import Annotated, Literal

from pydantic import Field

from z1g.codes import CodeSource
from z1g.codes.encoder import EncoderCodes
from z1g.core.needs import require_package
from z1g.core.slots import OneOf, Runtime, Section
from z1g.losses import Loss
from z1g.losses.latent import LatentLoss
from z1g.losses.lpips import StLpipsLoss
from z1g.losses.rendering import AlphaLoss, RgbLoss
from z1g.losses.splat import SplatLoss
from z1g.metrics import Metric
from z1g.metrics.alpha_iou import AlphaIou
from z1g.metrics.depth import DepthError
from z1g.metrics.frechet import FdEffLite0
from z1g.metrics.lpips import StLpips
from z1g.metrics.psnr import Psnr
from z1g.metrics.ssim import Ssim
from z1g.metrics.surface import Chamfer, FScore
from z1g.networks.finetune import Finetune
from z1g.networks.finetune.full import Full
from z1g.networks.timesteps import Timesteps
from z1g.networks.timesteps.uniform import Uniform
from z1g.sampling.options import XFORMERS
from z1g.training.options import TrainOptions


class MixDiffusion(Section):
    """Now and then the decoder is fed a one-step prediction of the code instead of the code.

    The UNet is the model's as it arrives: with published weights a prediction of the code, with random ones a noised
    code, so that the decoder learns to bear noise.
    """

    interval: int | None = Field(None, ge=1, description="one in n is fed a prediction; 1: all, null: none")
    unit: Literal["samples", "passes"] = Field(
        "samples",
        description="one in n of what: samples, drawn at random; or passes over the data, beginning with the first, "
        "each fed predictions only (the original's rule)",
    )


class Augmentation(Section):
    """Stage 1 also sees its objects otherwise than they are, exactly and for nothing. It needs an encoder in training.

    Turned samples show the inputs in each other's places, recolored ones have red, green and blue exchanged.
    """

    turned: float = Field(0.0, ge=0, le=1, description="share of samples turned by a third or mirrored")
    recolored: float = Field(0.0, ge=0, le=1, description="share of samples with other colors")

    def __bool__(self) -> bool:
        return self.turned > 0 or self.recolored > 0


class AutodecoderOptions(Section):
    """Stage 1: the VAE decoder learns to turn codes into splatter images."""

    codes: Annotated[CodeSource, OneOf()] = EncoderCodes()
    mix_diffusion: MixDiffusion = MixDiffusion()
    losses: dict[str, Annotated[Loss, OneOf()]] = {
        "rgb": RgbLoss(),
        "alpha": AlphaLoss(),
        "perceptual": StLpipsLoss(),
        "splat": SplatLoss(),
    }
    views: int = Field(8, ge=1, description="free training views rendered for each object and step")
    render_inputs: bool = Field(False, description="render the six inputs too, besides the free views")
    augment: Augmentation = Augmentation()
    code_noise: float = Field(
        0.0,
        ge=0,
        description="most noise that training adds to codes, in standard deviations of each object's own code; samples "
        "get between none and this. Decoders then bear what stage 2 gets wrong",
    )
    random_background: bool = Field(True, description="a random color behind the renders of each step, else mid-gray")
    validation_background: float = Field(
        1.0, ge=0, le=1, description="gray behind the validation views; white as in the metrics, 0.5 is the original's"
    )
    perceptual_dropout: bool = Field(
        False, description="the original's bug: dropout in the heads of perceptual networks acts in training"
    )
    composite_twice: bool = Field(
        False,
        description="the original's bug: target images are put on mid-gray before they are put on the background, "
        "so their outlines are gray",
    )
    bf16: Annotated[Literal["weights", "autocast"], Runtime()] = Field(
        "weights",
        description="how the decoder's bf16 is done. weights: cast once a step, all but the last layers run in bf16; "
        "autocast: norms in fp32",
    )
    test_steps: int = Field(200, ge=1, description="steps of the search for a test object's code, decoder frozen")
    test_lr: float = Field(
        0.0,
        ge=0,
        description="an encoder's codes of test objects are bettered by that search on their training views, at this "
        "rate in standard deviations of the codes; 0: no search. Codes of other kinds have a rate of their own",
    )
    train: TrainOptions = TrainOptions()


class RenderedCodes(Section):
    """Stage 1's losses on the predicted code, decoded by the frozen decoder and rendered."""

    losses: dict[str, Annotated[Loss, OneOf()]] = {"rgb": RgbLoss(), "alpha": AlphaLoss()}
    views: int = Field(6, ge=1, description="free training views rendered for each object and step")
    below: int = Field(
        1000, ge=1, le=1000, description="only samples at smaller timesteps are decoded; 1000: all, the original's way"
    )


class Variants(Section):
    """Stage 2 also sees objects that do not exist: the training objects' fitted splats, stretched, turned, recolored.

    Their inputs and conditions are rendered once, and the encoder gives their codes.
    """

    count: int = Field(8, ge=1, description="variants of each training object")
    share: float = Field(0.7, gt=0, le=1, description="share of samples that are variants")
    stretch: float = Field(
        0.25, ge=0, le=1, description="each axis is scaled by up to 1 + this or its inverse, then all to the old size"
    )
    turn_deg: float = Field(10.0, ge=0, le=180, description="largest turn around the upright axis, degrees")
    mirror: bool = Field(True, description="every other variant has left and right exchanged")
    recolored: float = Field(0.5, ge=0, le=1, description="share of variants with red, green and blue exchanged")
    seed: int = Field(0, ge=0, description="seed of the variants")


class UNetOptions(Section):
    """Stage 2: the UNet learns to generate codes from an image."""

    finetune: Annotated[Finetune, OneOf()] = Full()
    timesteps: Annotated[Timesteps, OneOf()] = Uniform()
    losses: dict[str, Annotated[Loss, OneOf()]] = {"latent": LatentLoss()}
    rendered: RenderedCodes | None = None
    variants: Variants | None = None
    condition_size: int = Field(320, ge=16, description="side of the condition image")
    condition_dropout: float = Field(0.1, ge=0, lt=1, description="share of samples trained without condition, for CFG")
    normalize_codes: bool = Field(
        False, description="train on codes shifted and scaled to zero mean and unit variance; random encoders need it"
    )
    bf16: Annotated[Literal["weights", "autocast"], Runtime()] = Field(
        "weights",
        description="how bf16 is done. weights: cast once a step, the whole UNet runs in bf16; autocast: norms in fp32",
    )
    attention: Annotated[Literal["auto", "flash", "cudnn", "xformers"], Runtime()] = Field(
        "auto", description="attention kernels: torch's choice, or these wherever they can work; xformers: on a GPU"
    )
    train: TrainOptions = TrainOptions()

    def check(self) -> None:
        if self.attention == "xformers":
            require_package("attention", "xformers", XFORMERS)


class MetricsOptions(Section):
    """What is measured: of each test view, of each object's geometry, of all renders together."""

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


class JobResources(Section):
    """What one job asks of the machine or cluster."""

    threads: int = Field(1, ge=1, description="CPU cores")
    gpus: int = Field(0, ge=0, le=1, description="GPUs; chunks, not more GPUs, make this stage faster")
    memory_mb: int = Field(4000, ge=100, description="memory, MiB")
    minutes: int = Field(60, ge=1, description="time limit")
    partition: str | None = Field(None, description="SLURM partition; null: the profile's")
    account: str | None = Field(None, description="SLURM account; null: the profile's")


class TrainingResources(JobResources):
    """What a training job asks for. Its batch is divided over all processes; cores, GPUs and memory are each node's."""

    gpus: int = Field(0, ge=0, description="GPUs, each with a process of its own")
    nodes: int = Field(1, ge=1, description="SLURM nodes")


class Resources(Section):
    """Resources of each stage's jobs; never part of an identity."""

    ingest: JobResources = JobResources(threads=8, memory_mb=8000, minutes=240)
    fit: JobResources = JobResources(threads=4, gpus=1, memory_mb=16000, minutes=240)
    autodecoder: TrainingResources = TrainingResources(threads=8, gpus=1, memory_mb=64000, minutes=2880)
    codes: JobResources = JobResources(threads=4, gpus=1, memory_mb=32000, minutes=240)
    unet: TrainingResources = TrainingResources(threads=8, gpus=1, memory_mb=64000, minutes=2880)
    infer: JobResources = JobResources(threads=4, gpus=1, memory_mb=32000, minutes=120)
    metrics: JobResources = JobResources(threads=4, gpus=1, memory_mb=32000, minutes=120)
