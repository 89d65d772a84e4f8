"""Codes that the diffusion UNet predicts from each object's condition image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.codes.base import CodeSource

if TYPE_CHECKING:
    from z1g.codes.book import CodeBook
    from z1g.data.scenes import SceneStore
    from z1g.networks.denoiser import Denoiser
    from z1g.representations.codec import Codec

FOLDER = "predicted"


class DiffusionCodes(CodeSource):
    """The decoder learns to bear what the UNet makes of an image. The UNet is the model's as it arrives, so published
    weights are needed for codes that mean something; codes of a UNet trained here are a file, see `cache`.

    Predicted once, before training, for all objects.
    """

    kind: Literal["diffusion"] = "diffusion"
    timestep: int | None = Field(
        None,
        ge=0,
        lt=1000,
        description="one step: what the UNet makes of the encoder's code noised to this timestep; null: a full sample",
    )
    steps: int = Field(75, ge=1, le=1000, description="steps of DDPM for a full sample")
    guidance: float = Field(4.0, ge=1, description="classifier-free guidance of a full sample; 1 switches it off")
    seed: int = Field(0, ge=0, description="seed of the noise, combined with the object's id")

    @property
    def needs_unet(self) -> bool:
        return True

    def prepare(
        self, codec: Codec, denoiser: Callable[[], Denoiser], condition_size: int, scenes: SceneStore, folder: Path
    ) -> None:
        from z1g.codes.predictions import Prediction, predict_all

        how = Prediction(self.timestep, self.steps, self.guidance, self.seed, condition_size)
        predict_all(how, codec, denoiser, scenes, folder / FOLDER)

    def book(self, ids: list[str], shape: tuple[int, ...], folder: Path = Path()) -> CodeBook:
        from z1g.codes.book import FixedBook
        from z1g.codes.predictions import predicted

        return FixedBook(ids, shape, predicted(folder / FOLDER), str(folder / FOLDER))
