"""Published Zero123++ weights, by hub name or from a local folder in the same layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.needs import Missing, require_folder
from z1g.networks.weights.base import Model

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from z1g.networks.preprocessing import ImageProcessor
    from z1g.networks.reference_denoiser import ReferenceDenoiser


class Zero123Plus(Model):
    """SD VAE, SD 2.1 UNet with reference attention, CLIP vision encoder and the embedding of the empty prompt."""

    kind: Literal["zero123plus"] = "zero123plus"
    pretrained: str = Field(
        "sudo-ai/zero123plus-v1.1",
        min_length=1,
        description="hub name (sudo-ai/zero123plus-v1.1 or -v1.2), or a folder with the pipeline's subfolders",
    )
    condition: Literal["processors", "plain"] = Field(
        "processors",
        description="how the condition image becomes the inputs of the networks. processors: resized, cropped and "
        "normalized as feature_extractor_vae and feature_extractor_clip of the published pipeline say; plain: "
        "normalized to -1..1 at unet.condition_size, and for CLIP resized in floats",
    )

    def check(self) -> None:
        from z1g.networks.weights import layout as layout

        folder = Path(self.pretrained).expanduser()
        if not folder.is_dir():
            if layout.is_path(self.pretrained):
                require_folder("pretrained", str(folder), "give a folder with a Zero123++ pipeline, or its hub name")
            return
        processors = layout.PROCESSORS if self.condition == "processors" else ()
        absent = layout.missing_in_pipeline(folder, processors)
        if absent:
            raise Missing("pretrained", f"{self.pretrained} lacks {', '.join(absent)} of a Zero123++ pipeline")
        difference = layout.other_process(folder)
        if difference:
            raise Missing(
                "pretrained",
                f"{self.pretrained} {difference}, as scheduler/scheduler_config.json says; Zero123++ predicts "
                "v_prediction and has linear betas",
            )

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
        from z1g.networks.weights import published as zero123plus

        return zero123plus.autoencoder(self.pretrained)

    def vae_processor(self) -> ImageProcessor | None:
        from z1g.networks.weights import published as zero123plus

        return zero123plus.vae_processor(self.pretrained) if self.condition == "processors" else None

    def denoiser(self) -> ReferenceDenoiser:
        from z1g.networks.weights import published as zero123plus

        return zero123plus.denoiser(self.pretrained, self.condition == "processors")
