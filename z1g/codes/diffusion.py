"""Codes that the diffusion UNet predicts from each object's condition image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.codes.base import CodeSource
from z1g.core.slots import MAX_SEED

if TYPE_CHECKING:
    from z1g.codes.book import CodeBook
    from z1g.data.condition_form import ConditionForm
    from z1g.data.scenes import SceneStore
    from z1g.networks.denoiser import Denoiser
    from z1g.representations.codec import Codec

FOLDER = "predicted"


class DiffusionCodes(CodeSource):
    """Codes that the UNet predicts from condition images, to train the decoder on the errors of stage 2.

    The UNet has the model's initial weights, so that published weights are needed for meaningful codes; for the codes
    of a UNet trained by z1g use `cache`. The codes of all objects are predicted once, before training.
    """

    kind: Literal["diffusion"] = "diffusion"
    timestep: int | None = Field(
        None,
        ge=0,
        lt=1000,
        description="timestep of a one-step prediction from the encoder's noised code; null: a full sample",
    )
    steps: int = Field(75, ge=1, le=1000, description="DDPM steps of a full sample")
    guidance: float = Field(
        4.0, ge=1, le=1000, description="scale of classifier-free guidance of a full sample; 1 disables it"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="random seed of the noise, combined with the object's id")

    @property
    def needs_unet(self) -> bool:
        return True

    def prepare(
        self, codec: Codec, denoiser: Callable[[], Denoiser], form: ConditionForm, scenes: SceneStore, folder: Path
    ) -> None:
        from z1g.codes.predictions import Prediction, predict_all

        how = Prediction(self.timestep, self.steps, self.guidance, self.seed, form)
        predict_all(how, codec, denoiser, scenes, folder / FOLDER)

    def book(self, ids: list[str], shape: tuple[int, ...], folder: Path = Path()) -> CodeBook:
        from z1g.codes.book import FixedBook
        from z1g.codes.predictions import predicted

        return FixedBook(ids, shape, predicted(folder / FOLDER), str(folder / FOLDER))
