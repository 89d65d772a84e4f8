"""All weights of the UNet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from z1g.networks.finetune.base import Finetune

if TYPE_CHECKING:
    from z1g.networks.denoiser import Denoiser


class Full(Finetune):
    """The whole UNet; for random networks also the prompt and the image encoder."""

    kind: Literal["full"] = "full"

    def prepare(self, denoiser: Denoiser) -> None:
        denoiser.unet.requires_grad_(True)

    def finish(self, denoiser: Denoiser, folder: Path) -> None:
        pass
