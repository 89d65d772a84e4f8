"""Sources of latent codes, as slots."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from z1g.codes.book import CodeBook
    from z1g.data.condition_form import ConditionForm
    from z1g.data.scenes import SceneStore
    from z1g.networks.denoiser import Denoiser
    from z1g.representations.codec import Codec


class CodeSource(Slot):
    """Source of the codes of training objects in stage 1."""

    kind: str

    @property
    def trains_encoder(self) -> bool:
        """Whether stage 1 trains a pretrained image encoder."""
        return False

    @property
    def needs_unet(self) -> bool:
        """Whether codes are predictions of the model's UNet."""
        return False

    def prepare(
        self, codec: Codec, denoiser: Callable[[], Denoiser], form: ConditionForm, scenes: SceneStore, folder: Path
    ) -> None:
        """Compute files needed for training, in a folder that is kept. Every rank calls this.

        codec: before training. denoiser: builds the model's denoiser before stage 2. form: of its condition
        images.
        """

    @abstractmethod
    def book(self, ids: list[str], shape: tuple[int, ...], folder: Path = Path()) -> CodeBook:
        """The codes, each of `shape`, of the training objects `ids`; `folder` is the argument of `prepare`.

        Raises UserError if given codes do not fit.
        """
