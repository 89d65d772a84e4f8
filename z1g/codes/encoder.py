"""Codes from the image encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.codes.base import CodeSource

if TYPE_CHECKING:
    from z1g.codes.book import CodeBook


class EncoderCodes(CodeSource):
    """The VAE encoder's latent of the six input views."""

    kind: Literal["encoder"] = "encoder"
    train: bool = Field(False, description="train the encoder with the decoder; a random encoder is always trained")
    sample: bool = Field(True, description="sample the posterior in training; false: use its mean")

    @property
    def trains_encoder(self) -> bool:
        return self.train

    def book(self, ids: list[str], shape: tuple[int, ...], folder: Path = Path()) -> CodeBook:
        from z1g.codes.book import EncodedBook

        return EncodedBook(self.sample)
