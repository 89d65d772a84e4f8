"""Codes optimized per object along with the decoder (an autodecoder: DeepSDF, Park et al. 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.codes.base import CodeSource
from z1g.core.slots import MAX_SEED

if TYPE_CHECKING:
    from z1g.codes.book import CodeBook


class OptimizedCodes(CodeSource):
    """Each object's code is a parameter with its own Adam state."""

    kind: Literal["optimized"] = "optimized"
    lr: float = Field(1e-2, gt=0, le=1000, description="learning rate of the codes")
    start: Literal["encoder", "uniform"] = Field(
        "encoder", description="initial value: a sample of the encoder's posterior, or uniform in ±1e-4"
    )
    reset_optimizer: bool = Field(False, description="the original's bug: reset Adam's moments at every step")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="random seed of uniform initial values")

    def book(self, ids: list[str], shape: tuple[int, ...], folder: Path = Path()) -> CodeBook:
        from z1g.codes.book import OptimizedBook

        return OptimizedBook(len(ids), shape, self.lr, self.start, self.reset_optimizer, self.seed)
