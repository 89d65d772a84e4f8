"""A vision transformer with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from z1g.networks.vision.base import Vision, VisionSize

if TYPE_CHECKING:
    from torch import nn


class Transformer(Vision):
    """CLIP's vision transformer of `model.vision_size` with random weights (Radford et al. 2021)."""

    kind: Literal["transformer"] = "transformer"

    def network(self, size: VisionSize, width: int) -> nn.Module:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        config = CLIPVisionConfig(
            hidden_size=size.width,
            intermediate_size=4 * size.width,
            projection_dim=width,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            image_size=size.image_size,
            patch_size=size.patch_size,
        )
        network: nn.Module = CLIPVisionModelWithProjection(config)
        return network
