"""Options of the fit."""

from typing import Annotated

from pydantic import Field

from z1g.config.slot import OneOf, Section
from z1g.fitting import FitStart
from z1g.fitting.depth import DepthStart
from z1g.losses import Loss
from z1g.losses.rendering import AlphaLoss, RgbLoss


class AttributeRates(Section):
    """Adam's learning rate of each attribute's raw parameter."""

    position: float = Field(5e-4, ge=0, description="normalised units a step, at first")
    opacity: float = Field(5e-2, ge=0, description="logits")
    scale: float = Field(2e-2, ge=0, description="inverse softplus of scale / 0.1")
    rotation: float = Field(1e-3, ge=0, description="quaternion components; low, because stage 1 has to predict them")
    rgb: float = Field(2e-2, ge=0, description="inverse tanh")


class FitOptions(Section):
    """How splatter images are fitted to an object's renders."""

    start: Annotated[FitStart, OneOf()] = DepthStart()
    steps: int = Field(200, ge=0, description="most optimiser steps")
    views_per_step: int = Field(8, ge=1, description="views drawn for each step, inputs and free training views")
    rates: AttributeRates = AttributeRates()
    losses: dict[str, Annotated[Loss, OneOf()]] = {"rgb": RgbLoss(), "alpha": AlphaLoss()}
    evaluate_every: int = Field(25, ge=1, description="steps between looks at the validation views")
    patience: int = Field(3, ge=1, description="looks without a better PSNR before the fit stops; the best is kept")
    min_psnr: float = Field(22.0, description="dB on the validation views; an object below is kept and marked")
    seed: int = Field(0, ge=0, description="seed of the views drawn")
