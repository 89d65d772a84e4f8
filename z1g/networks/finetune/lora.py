"""Low-rank adapters of the attention layers (Hu et al. 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.networks.finetune.base import Finetune

if TYPE_CHECKING:
    from z1g.networks.denoiser import Denoiser


class Lora(Finetune):
    """Low-rank adapters (Hu et al. 2021); all other weights are frozen, except those that the model did not have."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1, le=4096, description="rank of each adapter")
    alpha: float | None = Field(
        None, gt=0, le=1e6, description="adapters are scaled by alpha/rank; null: alpha is the rank"
    )
    targets: tuple[str, ...] = Field(
        ("to_q", "to_k", "to_v", "to_out.0"),
        min_length=1,
        description="name suffixes of the layers with an adapter",
    )

    def prepare(self, denoiser: Denoiser) -> None:
        from z1g.networks.finetune import adapters

        adapters.add(denoiser, self.rank, self.alpha or self.rank, self.targets)

    def finish(self, denoiser: Denoiser, folder: Path) -> None:
        from z1g.networks.finetune import adapters

        adapters.save(denoiser, folder / "lora")
        adapters.merge(denoiser)
