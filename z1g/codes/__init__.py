"""Where latent codes come from, as slots."""

from abc import abstractmethod
from typing import TYPE_CHECKING

from z1g.config.slot import Slot

if TYPE_CHECKING:
    from z1g.codes._book import CodeBook


class CodeSource(Slot):
    """Gives each training object its code in stage 1."""

    kind: str

    def check(self) -> None:
        """Raise UserError where this source cannot work, before any job starts."""

    @property
    def trains_encoder(self) -> bool:
        """Whether stage 1 trains the picture encoder, given that it may."""
        return False

    @abstractmethod
    def book(self, ids: list[str], shape: tuple[int, int, int]) -> "CodeBook":
        """The codes of the training objects `ids`; `shape` is C,h,w."""
