"""Options of the fit."""

from typing import Annotated, Literal

from pydantic import Field

from z1g.core.slots import MAX_COUNT, MAX_SEED, OneOf, Runtime, Section
from z1g.data.stored_splats import Stored
from z1g.fitting.base import FitStart
from z1g.fitting.depth import DepthStart
from z1g.fitting.positions import Positions
from z1g.fitting.positions.free import FreePositions
from z1g.geometry.camera import LossViews
from z1g.losses import Loss
from z1g.losses.rendering import AlphaLoss, RgbLoss
from z1g.training.options import Decay
from z1g.training.schedules import Schedule
from z1g.training.schedules.cosine import Cosine


class AttributeRates(Section):
    """Adam's learning rate of each attribute's raw parameter."""

    position: float = Field(5e-4, ge=0, le=1000, description="`position_unit` per step, initially")
    position_unit: Literal["normalized", "pixel"] = Field(
        "normalized",
        description="normalized: normalized units; pixel: width of a splatter image's pixel at the "
        "object's center, so that one rate serves all sizes of splats",
    )
    opacity: float = Field(5e-2, ge=0, le=1000, description="logits")
    scale: float = Field(8e-2, ge=0, le=1000, description="inverse softplus of scale / 0.1")
    rotation: float = Field(
        1e-3, ge=0, le=1000, description="quaternion components; low, because stage 1 has to predict them"
    )
    rgb: float = Field(2e-2, ge=0, le=1000, description="inverse tanh")


class FitOptions(Section):
    """How splatter images are fitted to an object's renders."""

    start: Annotated[FitStart, OneOf()] = DepthStart()
    positions: Annotated[Positions, OneOf()] = FreePositions()
    rotation_norm: Literal["quaternion", "splats"] = Field(
        "quaternion",
        description="quaternion: each is divided by its norm; splats: as in the original, each component is divided by "
        "its norm over all Gaussians",
    )
    steps: int = Field(100, ge=0, le=MAX_COUNT, description="maximum number of optimizer steps")
    views_per_step: int = Field(
        8, ge=1, le=10_000, description="random views of each step, from the input and the free training views"
    )
    draws: Literal["uniform", "passes"] = Field(
        "uniform",
        description="how views are drawn. uniform: each step by itself, as in the original; passes: in passes of as "
        "many steps as there are views for, none twice",
    )
    loss_views: LossViews = Field(
        "train",
        description="views of a step. train: drawn from the input and the free training views; all: as in the "
        "original, the six inputs at every step and others drawn from all views, also those of validation and test",
    )
    rates: AttributeRates = AttributeRates()
    schedule: Annotated[Schedule, OneOf()] = Cosine(final_share=0.2)
    betas: tuple[Decay, Decay] = Field((0.8, 0.95), description="Adam's decay rates of the first and second moments")
    weight_decay: float = Field(0.0, ge=0, le=1000, description="decoupled weight decay of the raw parameters (AdamW)")
    clip_norm: float | None = Field(
        None, gt=0, le=1e9, description="maximum gradient norm of an object; null: no clipping"
    )
    losses: dict[str, Annotated[Loss, OneOf()]] = {"rgb": RgbLoss(), "alpha": AlphaLoss(weight=0.1)}
    stored: Stored = Field(
        "float32",
        description="form of the fits on disk. float16: half of the bytes; visible: float16, compressed, without the "
        "Gaussians that no rasterizer draws (opacity below 1/255), which are all alike when they are read",
    )
    evaluate_every: int = Field(25, ge=1, le=MAX_COUNT, description="steps between evaluations on the validation views")
    patience: int = Field(
        3, ge=1, le=MAX_COUNT, description="evaluations without a better PSNR before the fit of an object stops"
    )
    stop_above: float | None = Field(
        None,
        ge=-1000,
        le=1000,
        description="the fit of an object stops early only if its best PSNR is above this, dB; null: no condition",
    )
    keep: Literal["best", "last"] = Field("best", description="state to keep; last: as in the original")
    min_psnr: float = Field(
        22.0, ge=-1000, le=1000, description="objects below this PSNR on the test views are badly fitted, dB"
    )
    below_minimum: Literal["mark", "drop"] = Field(
        "mark", description="mark: keep badly fitted objects; drop: quarantine them, as in the original"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="random seed of views and backgrounds")
    batch_objects: Annotated[int, Runtime()] = Field(
        32, ge=1, le=1_000_000, description="objects fitted at once on a GPU; halved if memory runs out"
    )

    @property
    def at_once(self) -> int:
        """Number of objects fitted at once on a GPU with enough memory; 1 if the rate follows an object's own loss."""
        return 1 if self.schedule.follows_loss else self.batch_objects
