"""Which weights stage 2 trains, as slots."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from pathlib import Path

    from z1g.networks.denoiser import Denoiser


class Finetune(Slot):
    """What of the denoiser learns."""

    @abstractmethod
    def prepare(self, denoiser: Denoiser) -> None:
        """Set which parameters learn, adding some where this way needs them; before there is an optimizer."""

    @abstractmethod
    def finish(self, denoiser: Denoiser, folder: Path) -> None:
        """After training: leave plain networks, and write into the folder what this way has besides them."""
