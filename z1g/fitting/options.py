"""Options of the fit."""

from typing import Annotated, Literal

from pydantic import Field

from z1g.core.slots import OneOf, Runtime, Section
from z1g.fitting.base import FitStart
from z1g.fitting.depth import DepthStart
from z1g.fitting.positions import Positions
from z1g.fitting.positions.free import FreePositions
from z1g.losses import Loss
from z1g.losses.rendering import AlphaLoss, RgbLoss
from z1g.training.schedules import Schedule
from z1g.training.schedules.cosine import Cosine


class AttributeRates(Section):
    """Adam's learning rate of each attribute's raw parameter."""

    position: float = Field(5e-4, ge=0, description="normalized units a step, at first")
    opacity: float = Field(5e-2, ge=0, description="logits")
    scale: float = Field(8e-2, ge=0, description="inverse softplus of scale / 0.1")
    rotation: float = Field(1e-3, ge=0, description="quaternion components; low, because stage 1 has to predict them")
    rgb: float = Field(2e-2, ge=0, description="inverse tanh")


class FitOptions(Section):
    """How splatter images are fitted to an object's renders."""

    start: Annotated[FitStart, OneOf()] = DepthStart()
    positions: Annotated[Positions, OneOf()] = FreePositions()
    rotation_norm: Literal["quaternion", "splats"] = Field(
        "quaternion", description="splats: the original's quirk, each component divided by its norm over all Gaussians"
    )
    steps: int = Field(100, ge=0, description="most optimizer steps")
    views_per_step: int = Field(8, ge=1, description="views drawn for each step, inputs and free training views")
    rates: AttributeRates = AttributeRates()
    schedule: Annotated[Schedule, OneOf()] = Cosine(final_share=0.2)
    betas: tuple[float, float] = Field((0.8, 0.95), description="decay of Adam's first and second moments")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay of the raw parameters (AdamW)")
    clip_norm: float | None = Field(None, gt=0, description="an object's gradient is scaled down to this norm")
    losses: dict[str, Annotated[Loss, OneOf()]] = {"rgb": RgbLoss(), "alpha": AlphaLoss(weight=0.1)}
    evaluate_every: int = Field(25, ge=1, description="steps between looks at the validation views")
    patience: int = Field(3, ge=1, description="looks without a better PSNR before the fit of an object stops")
    stop_above: float | None = Field(
        None, description="dB; the fit of an object stops early only when its best PSNR is above; null: always"
    )
    keep: Literal["best", "last"] = Field("best", description="state that is kept; last: the original's way")
    min_psnr: float = Field(22.0, description="dB on the test views; what is below counts as badly fitted")
    below_minimum: Literal["mark", "drop"] = Field(
        "mark", description="mark keeps badly fitted objects; drop, the original's way, quarantines them"
    )
    seed: int = Field(0, ge=0, description="seed of the views drawn")
    batch_objects: Annotated[int, Runtime()] = Field(
        32, ge=1, description="objects fitted at once on a GPU; halved where memory runs out"
    )
