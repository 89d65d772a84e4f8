"""Slot family of the weights that stage 2 trains."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from pathlib import Path

    from z1g.networks.denoiser import Denoiser


class Finetune(Slot):
    """Weights of the denoiser that are trained."""

    @abstractmethod
    def prepare(self, denoiser: Denoiser) -> None:
        """Set `requires_grad` of the parameters and add adapters if needed; called before the optimizer is created."""

    @abstractmethod
    def finish(self, denoiser: Denoiser, folder: Path) -> None:
        """Restore plain networks after training, and write additional files into the folder."""
