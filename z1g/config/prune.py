"""Options of pruning: which runs of a study are trained to their end."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from z1g.core.slots import Section
from z1g.training.rungs import FIGURES, rung_name

Rung = Annotated[float, Field(ge=0.001, le=1)]


class Prune(Section):
    """Synchronous successive halving (Jamieson & Talwalkar 2016): at each rung only the best arms go on.

    A rung waits for all arms that are left, so that what is kept does not depend on the order of jobs.
    """

    rungs: tuple[Rung, ...] = Field(
        (0.1, 0.3, 1.0), min_length=2, description="fractions of the training steps, the last one is 1"
    )
    keep: float = Field(0.34, gt=0, lt=1, description="share of arms that a rung keeps, rounded down; at least one arm")
    by: Literal["validation_psnr", "held_out_psnr"] = Field(
        "validation_psnr",
        description="what arms are compared by, a mean over their seeds and folds. validation_psnr: views of training "
        "objects that neither training nor tables use; held_out_psnr: stage 1 only, the objects that tables measure",
    )
    stage: Literal["autodecoder", "unet"] = Field("unet", description="the training that rungs are fractions of")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if any(first >= second for first, second in zip(self.rungs, self.rungs[1:], strict=False)):
            raise ValueError(f"rungs must increase, got {', '.join(map(rung_name, self.rungs))}")
        if self.rungs[-1] != 1:
            raise ValueError(f"the last rung is the end of training, 1, got {rung_name(self.rungs[-1])}")
        if coarse := [rung for rung in self.rungs if float(rung_name(rung)) != rung]:
            raise ValueError(f"rungs have at most six digits, got {coarse[0]}")
        if self.by not in FIGURES_OF[self.stage]:
            raise ValueError(
                f"{self.by} is not measured in stage {self.stage}; it has {', '.join(FIGURES_OF[self.stage])}"
            )
        return self

    @property
    def decisions(self) -> tuple[float, ...]:
        """The rungs at which arms are pruned: all but the end."""
        return self.rungs[:-1]


FIGURES_OF = {"autodecoder": tuple(FIGURES), "unet": ("validation_psnr",)}
"""Figures that each stage measures at a rung."""
