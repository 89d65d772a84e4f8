"""Published weights of Stable Diffusion Image Variations, by hub name or from a local folder in the same layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.errors import UserError
from z1g.core.needs import Missing, require_folder
from z1g.networks.weights.base import DiffusionNetworks, Model, WeightsProcess

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from z1g.networks.reference_denoiser import ReferenceDenoiser

PROCESS = WeightsProcess("epsilon", "scaled_linear")


class SdImageVariations(Model):
    """SD 1 VAE and UNet, which attends to the embedding of an image by CLIP's vision encoder; for `attributes`."""

    kind: Literal["sd_image_variations"] = "sd_image_variations"
    pretrained: str = Field(
        "lambdalabs/sd-image-variations-diffusers",
        min_length=1,
        description="hub name, or a folder with vae, unet, image_encoder, feature_extractor and scheduler",
    )
    revision: str = Field(
        "v2.0", min_length=1, description="branch, tag or commit of a hub name; no effect on a folder"
    )

    def check(self) -> None:
        from z1g.networks.weights import layout as layout

        folder = Path(self.pretrained).expanduser()
        if not folder.is_dir():
            if layout.is_path(self.pretrained):
                require_folder(
                    "pretrained", str(folder), f"give a folder with a {layout.VARIATIONS_NAME}, or its hub name"
                )
            return
        if absent := layout.missing_in_variations(folder):
            raise Missing("pretrained", f"{self.pretrained} lacks {', '.join(absent)} of a {layout.VARIATIONS_NAME}")
        if difference := layout.other_process(folder, (PROCESS.prediction, PROCESS.betas)):
            raise Missing(
                "pretrained",
                f"{self.pretrained} {difference}, as scheduler/scheduler_config.json says; image variations predict "
                "epsilon and have scaled_linear betas",
            )

    @property
    def process(self) -> WeightsProcess:
        return PROCESS

    @property
    def has_prompt(self) -> bool:
        return False

    @property
    def pretrained_encoder(self) -> bool:
        return True

    @property
    def latent_channels(self) -> int:
        return 4

    @property
    def latent_factor(self) -> int:
        return 8

    def autoencoder(self) -> AutoencoderKL:
        from z1g.networks.weights import variations

        return variations.autoencoder(self.pretrained, self.revision)

    def diffusion(self) -> DiffusionNetworks:
        from z1g.networks.weights import variations

        return variations.diffusion(self.pretrained, self.revision)

    def denoiser(self) -> ReferenceDenoiser:
        raise UserError(f"model '{self.kind}' has no prompt, which a denoiser of Zero123++'s form needs")
