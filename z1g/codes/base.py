"""Where latent codes come from, as slots."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from z1g.codes.book import CodeBook
    from z1g.config.tree import Experiment
    from z1g.data.scenes import SceneStore
    from z1g.representations.mosaic.stage1 import Stage1


class CodeSource(Slot):
    """Gives each training object its code in stage 1."""

    kind: str

    def check(self) -> None:
        """Raise UserError where this source cannot work, before any job starts."""

    @property
    def trains_encoder(self) -> bool:
        """Whether stage 1 trains the image encoder, given that it may."""
        return False

    @property
    def needs_unet(self) -> bool:
        """Whether codes are predictions of the model's UNet."""
        return False

    def prepare(self, config: Experiment, stage1: Stage1, scenes: SceneStore, folder: Path) -> None:
        """Make what has to be there before training, in a folder that stays; every rank calls this."""
        return

    @abstractmethod
    def book(self, ids: list[str], shape: tuple[int, int, int], folder: Path = Path()) -> CodeBook:
        """The codes of the training objects `ids`; `shape` is C,h,w, `folder` what `prepare` got.

        Raises UserError where codes that were given do not fit.
        """
