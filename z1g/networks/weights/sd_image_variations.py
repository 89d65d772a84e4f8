"""Published weights of Stable Diffusion Image Variations, by hub name or from a local folder in the same layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from z1g.core.errors import UserError
from z1g.networks.weights.base import DiffusionNetworks, WeightsProcess
from z1g.networks.weights.published_pipeline import PublishedPipeline

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import AutoencoderKL

    from z1g.networks.reference_denoiser import ReferenceDenoiser

PROCESS = WeightsProcess("epsilon", "scaled_linear")


class SdImageVariations(PublishedPipeline):
    """SD 1 VAE and UNet, which attends to the embedding of an image by CLIP's vision encoder; for `attributes`."""

    kind: Literal["sd_image_variations"] = "sd_image_variations"
    title: ClassVar[str] = "pipeline of image variations"
    scheduler: ClassVar[tuple[str, str]] = (PROCESS.prediction, PROCESS.betas)
    learned: ClassVar[str] = "image variations predict epsilon and have scaled_linear betas"
    pretrained: str = Field(
        "lambdalabs/sd-image-variations-diffusers",
        min_length=1,
        description="hub name, or a folder with vae, unet, image_encoder, feature_extractor and scheduler",
    )
    revision: str = Field(
        "v2.0", min_length=1, description="branch, tag or commit of a hub name; no effect on a folder"
    )

    def absent(self, folder: Path) -> Sequence[str]:
        from z1g.networks.weights import layout as layout

        return layout.missing_in_variations(folder)

    @property
    def process(self) -> WeightsProcess:
        return PROCESS

    @property
    def has_prompt(self) -> bool:
        return False

    def autoencoder(self) -> AutoencoderKL:
        from z1g.networks.weights import variations

        return variations.autoencoder(self.pretrained, self.revision)

    def diffusion(self) -> DiffusionNetworks:
        from z1g.networks.weights import variations

        return variations.diffusion(self.pretrained, self.revision)

    def denoiser(self) -> ReferenceDenoiser:
        raise UserError(f"model '{self.kind}' has no prompt, which a denoiser of Zero123++'s form needs")
