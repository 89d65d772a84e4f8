"""Similarity of CLIP image embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from z1g.core.needs import require_folder
from z1g.metrics.base import ImagePair, ViewMetric

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:
    from z1g.core.lazy import functional


class ClipSimilarity(ViewMetric):
    """Cosine similarity of the embeddings of a render and of the true image from the same view."""

    kind: Literal["clip"] = "clip"
    weights: str | None = Field(None, description="folder of a CLIP model saved by transformers, as safetensors")
    label: ClassVar[str] = "CLIP similarity"
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    reference: ClassVar[str] = "Radford et al., ICML 2021; cosine of the projected embeddings of render and truth"

    def check(self) -> None:
        remedy = "the metric is left empty without a CLIP model's config.json and model.safetensors"
        require_folder("weights", self.weights, remedy, fatal=False)

    def compute(self, images: ImagePair) -> torch.Tensor:
        from z1g.networks.image_features import clip_vision

        network = clip_vision(self.weights)
        return functional.cosine_similarity(network(images.rgb), network(images.rgb_true), dim=-1).float()
