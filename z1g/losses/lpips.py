"""Perceptual losses on renders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from z1g.core.needs import require_file
from z1g.core.slots import FileContent
from z1g.losses.base import Comparison, Loss
from z1g.losses.windows import windows

if TYPE_CHECKING:
    import torch

    from z1g.networks.perceptual import Frozen


class _Perceptual(Loss):
    views: int | None = Field(None, ge=1, le=10_000, description="number of renders per object to compare; null: all")
    resolution: int = Field(
        256, ge=64, le=4096, description="side in pixels to which renders are resized for the network"
    )
    antialias: bool = Field(True, description="resize with antialiasing; false: as in the original, pixels are skipped")
    crop: bool = Field(
        False,
        description="compare windows with a side of `resolution` instead of resized renders: details of a pixel count "
        "at the price of small images. In stage 1 at other places in each epoch; elsewhere the center",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="precision of the network's convolutions; auto: bf16 on a GPU, fp32 on a CPU"
    )

    def network(self) -> Frozen:
        """The network that computes the distance."""
        raise NotImplementedError

    def compute(self, pair: Comparison) -> torch.Tensor:
        from z1g.networks.perceptual import resized

        if pair.rgb is None or pair.rgb_true is None:
            raise ValueError(f"loss '{type(self).__name__}' needs renders")
        images, truth = pair.rgb[:, : self.views], pair.rgb_true[:, : self.views]
        if self.crop:
            images, truth = (windows(x, self.resolution, pair.epoch) for x in (images, truth))
        images, truth = (resized(x.flatten(0, 1), self.resolution, self.antialias) for x in (images, truth))
        half = self.precision == "bf16" or (self.precision == "auto" and images.is_cuda)
        distance: torch.Tensor = self.network()(images, truth, half=half, dropout=pair.perceptual_dropout)
        return distance.mean()


class StLpipsLoss(_Perceptual):
    """Shift-tolerant LPIPS."""

    kind: Literal["st_lpips"] = "st_lpips"
    net: Literal["alex", "vgg"] = Field("alex", description="trunk of the network")

    def network(self) -> Frozen:
        from z1g.networks.perceptual import st_lpips

        return st_lpips(self.net)


class LpipsLoss(_Perceptual):
    """LPIPS-VGG, the original's; needs torchvision's VGG16 weights as a file."""

    kind: Literal["lpips"] = "lpips"
    trunk: Annotated[str | None, FileContent()] = Field(
        None, description="path of torchvision's VGG16 state dict (vgg16-397923af.pth); identified by its content"
    )

    def check(self) -> None:
        if self.weight > 0:
            require_file("trunk", self.trunk, "give torchvision's vgg16-397923af.pth; kind st_lpips needs no file")

    def network(self) -> Frozen:
        from z1g.networks.perceptual import lpips

        return lpips(self.trunk)
