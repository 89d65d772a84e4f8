"""Regularizers of the fit, which make splatter images easier for stage 1 to learn as images."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.slots import Section
from z1g.gaussians.channels import CHANNELS, MIN_ALPHA, split
from z1g.losses.base import Comparison, InputMaps, Loss

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch


class SplatterLoss(Loss):
    """Base of terms of splatter images and their input maps, without ground truth."""

    def compute(self, pair: Comparison) -> torch.Tensor:
        if pair.splats is None or pair.inputs is None:
            raise ValueError(f"loss '{type(self).__name__}' needs splatter images and their inputs")
        return self.of(split(pair.splats, dim=2), pair.inputs)

    @abstractmethod
    def of(self, splats: dict[str, torch.Tensor], inputs: InputMaps) -> torch.Tensor:
        """The term, a scalar, from attributes [B,6,C,S,S]."""


class Roughness(Section):
    """Weights of the absolute differences of each attribute."""

    position: float = Field(0.0, ge=0, le=1e6, description="distance along the pixel's ray, normalized units")
    opacity: float = Field(1.0, ge=0, le=1e6, description="opacity")
    scale: float = Field(1.0, ge=0, le=1e6, description="natural logarithm of scale")
    rotation: float = Field(1.0, ge=0, le=1e6, description="quaternion components with aligned signs")
    rgb: float = Field(0.0, ge=0, le=1e6, description="color")


class SmoothLoss(SplatterLoss):
    """Total variation: mean absolute difference between neighboring pixels that both cover the object."""

    kind: Literal["smooth"] = "smooth"
    weights: Roughness = Roughness()

    def of(self, splats: dict[str, torch.Tensor], inputs: InputMaps) -> torch.Tensor:
        weights = self.weights.model_dump()
        values = {**splats, "scale": splats["scale"].clamp(min=1e-6).log()}
        values["position"] = _depth(splats["position"], inputs)
        drawn = splats["opacity"].detach() > MIN_ALPHA
        total = torch.zeros((), device=drawn.device)
        for dim in (3, 4):
            both = _after(drawn, dim) & _before(drawn, dim)
            pairs = both.sum().clamp(min=1)
            for name in CHANNELS:
                if weights[name] == 0:
                    continue
                first, second = _before(values[name], dim), _after(values[name], dim)
                if name == "rotation":
                    second = torch.where((first * second).sum(dim=2, keepdim=True) < 0, -second, second)
                total = total + weights[name] * ((first - second).abs().mean(dim=2, keepdim=True) * both).sum() / pairs
        return total / 2


class RayLoss(SplatterLoss):
    """Mean squared distance of visible Gaussians from their pixel's ray, in pixel widths at their depth."""

    kind: Literal["ray"] = "ray"

    def of(self, splats: dict[str, torch.Tensor], inputs: InputMaps) -> torch.Tensor:
        drawn = splats["opacity"].detach() > MIN_ALPHA
        offset = splats["position"] - inputs.origins
        length = inputs.directions.norm(dim=2, keepdim=True)
        aside = torch.cross(offset, inputs.directions, dim=2).square().sum(dim=2, keepdim=True) / length.square()
        pixel = (_depth(splats["position"], inputs).detach().abs() / inputs.focal).clamp(min=1e-6)
        term: torch.Tensor = (aside / pixel.square() * drawn).sum() / drawn.sum().clamp(min=1)
        return term


class BackgroundLoss(SplatterLoss):
    """Mean opacity of pixels on the input's background, whose splats only serve other views."""

    kind: Literal["background"] = "background"

    def of(self, splats: dict[str, torch.Tensor], inputs: InputMaps) -> torch.Tensor:
        empty = inputs.alpha <= 0
        return (splats["opacity"] * empty).sum() / empty.sum().clamp(min=1)


def _depth(position: torch.Tensor, inputs: InputMaps) -> torch.Tensor:
    """Distance [B,6,1,S,S] along the ray, in lengths of its direction."""
    offset = position - inputs.origins
    return (offset * inputs.directions).sum(2, keepdim=True) / inputs.directions.square().sum(2, keepdim=True)


def _before(x: torch.Tensor, dim: int) -> torch.Tensor:
    return x.narrow(dim, 0, x.shape[dim] - 1)


def _after(x: torch.Tensor, dim: int) -> torch.Tensor:
    return x.narrow(dim, 1, x.shape[dim] - 1)
