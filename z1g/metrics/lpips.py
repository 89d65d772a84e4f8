"""Learned perceptual distances."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from z1g.core.needs import require_file
from z1g.metrics.base import ImagePair, ViewMetric

if TYPE_CHECKING:
    import torch

    from z1g.networks.perceptual import Frozen


class StLpips(ViewMetric):
    """Shift-tolerant LPIPS with an AlexNet trunk. Values are not comparable with LPIPS."""

    kind: Literal["st_lpips"] = "st_lpips"
    label: ClassVar[str] = "ST-LPIPS"
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = False
    reference: ClassVar[str] = "Ghildyal & Liu, ECCV 2022; AlexNet; images under 64 px enlarged"

    def compute(self, images: ImagePair) -> torch.Tensor:
        from z1g.networks.perceptual import st_lpips

        return _distance(st_lpips("alex"), images, self.kind)


class Lpips(ViewMetric):
    """LPIPS-VGG; needs torchvision's VGG16 weights as a file."""

    kind: Literal["lpips"] = "lpips"
    trunk: str | None = Field(None, description="path of torchvision's VGG16 state dict (vgg16-397923af.pth)")
    label: ClassVar[str] = "LPIPS"
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = False
    reference: ClassVar[str] = "Zhang et al., CVPR 2018; VGG16"

    def check(self) -> None:
        remedy = "the metric is left empty without torchvision's vgg16-397923af.pth; kind st_lpips needs no file"
        require_file("trunk", self.trunk, remedy, fatal=False)

    def compute(self, images: ImagePair) -> torch.Tensor:
        from z1g.networks.perceptual import lpips

        return _distance(lpips(self.trunk), images, (self.kind, self.trunk))


def _distance(network: Frozen, images: ImagePair, key: Hashable) -> torch.Tensor:
    """Distances [V]. Features of the ground truth, half of the work, are computed once for pairs that share them."""
    from z1g.networks.perceptual import enlarged

    if key not in images.shared:
        images.shared[key] = network.features(enlarged(images.rgb_true))
    return network.between(network.features(enlarged(images.rgb)), images.shared[key])
