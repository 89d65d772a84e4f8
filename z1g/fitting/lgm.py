"""Initialization by LGM, as in the original. Needs LGM's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.needs import require_file
from z1g.fitting.base import FitStart

if TYPE_CHECKING:
    import torch

    from z1g.data.scenes import Scene


REMEDY = (
    "download LGM's model_fp16_fixrot.safetensors there, or use fit.start: {kind: visual_hull}, which needs no weights"
)


class LgmStart(FitStart):
    """Prediction of LGM from the six input views on white background. The original uses the variant `big`."""

    kind: Literal["lgm"] = "lgm"
    weights: str = Field(
        "pretrained/lgm/model_fp16_fixrot.safetensors",
        description="LGM's checkpoint, a .safetensors file as published by its authors, of any model size",
    )

    antialias: bool = Field(
        True, description="resize the views for LGM with antialiasing; false: as in the original, pixels are skipped"
    )
    quaternions: Literal["unit", "raw"] = Field(
        "unit",
        description="initial quaternions of the fit. unit: LGM's predictions, normalized; raw: as in the original, its "
        "outputs of any length, which matters with rotation_norm: splats",
    )

    def check(self) -> None:
        require_file("weights", self.weights, REMEDY)

    def splats(self, scene: Scene, views: Sequence[int], size: int) -> torch.Tensor:
        from z1g.fitting._lgm import predict

        return predict(scene, self.weights, size, self.antialias, self.unit_quaternions)

    @property
    def unit_quaternions(self) -> bool:
        return self.quaternions == "unit"
