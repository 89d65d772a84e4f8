"""Published Zero123++ weights, by hub name or from a local folder in the same layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from z1g.networks.weights.published_pipeline import PublishedPipeline

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import AutoencoderKL

    from z1g.networks.preprocessing import ImageProcessor
    from z1g.networks.reference_denoiser import ReferenceDenoiser


class Zero123Plus(PublishedPipeline):
    """SD VAE, SD 2.1 UNet with reference attention, CLIP vision encoder and the embedding of the empty prompt."""

    kind: Literal["zero123plus"] = "zero123plus"
    title: ClassVar[str] = "Zero123++ pipeline"
    scheduler: ClassVar[tuple[str, str]] = ("v_prediction", "linear")
    learned: ClassVar[str] = "Zero123++ predicts v_prediction and has linear betas"
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

    def absent(self, folder: Path) -> Sequence[str]:
        from z1g.networks.weights import layout as layout

        return layout.missing_in_pipeline(folder, layout.PROCESSORS if self.condition == "processors" else ())

    def autoencoder(self) -> AutoencoderKL:
        from z1g.networks.weights import published as zero123plus

        return zero123plus.autoencoder(self.pretrained)

    def vae_processor(self) -> ImageProcessor | None:
        from z1g.networks.weights import published as zero123plus

        return zero123plus.vae_processor(self.pretrained) if self.condition == "processors" else None

    def denoiser(self) -> ReferenceDenoiser:
        from z1g.networks.weights import published as zero123plus

        return zero123plus.denoiser(self.pretrained, self.condition == "processors")
