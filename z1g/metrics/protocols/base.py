"""Slot family of protocols: how images are made, chosen and averaged before a metric is a number in a table.

Figures of different protocols are never in one column: a metric's name ends with its protocol, unless that is ours.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from z1g.core.slots import Slot
from z1g.metrics.base import ImagePair

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:
    from z1g.core.lazy import functional, torch

Background = Literal["white", "gray", "black"]
Pooling = Literal["views", "object"]
VALUES: dict[str, float] = {"white": 1.0, "gray": 0.5, "black": 0.0}
UNKNOWN = "unknown"
SEPARATOR = "@"


@dataclass(frozen=True)
class Choices:
    """What a protocol does with test images on white.

    views: number of test views, the first ones; None: all. resolution: side of the images that are compared, pixels;
    None: that of the renders. pooling: `views` is a number for each view, then their mean; `object` is one number for
    all pixels of an object's views, which differs for PSNR because that is no mean.
    """

    views: int | None = None
    resolution: int | None = None
    background: Background = "white"
    pooling: Pooling = "views"


class Protocol(Slot):
    """Base of all protocols. What its authors do not say is UNKNOWN in its `facts`."""

    facts: ClassVar[dict[str, str]]
    """What is known of each part of the protocol, with its source: views, cameras, resolution, background,
    normalization, metrics, objects."""

    @property
    @abstractmethod
    def choices(self) -> Choices:
        """What it does with the images."""

    @property
    def key(self) -> str:
        """What follows the name of a metric, empty for ours. Equal for equal protocols only."""
        made = self.choices
        parts = [str(self.kind)]  # type: ignore[attr-defined]
        parts += [f"{made.views}views"] if made.views is not None else []
        parts += [f"{made.resolution}px"] if made.resolution is not None else []
        parts += [made.background] if made.background != "white" else []
        parts += ["pooled"] if made.pooling != "views" else []
        return ".".join(parts)

    def column(self, metric: str) -> str:
        """Name of a metric in rows and tables."""
        return f"{metric}{SEPARATOR}{self.key}" if self.key else metric

    def label(self, label: str) -> str:
        """Label of a metric in tables."""
        return f"{label} ({self.key})" if self.key else label

    def prepared(self, images: ImagePair) -> ImagePair:
        """The images that the metrics see, of images on white. Raises ValueError if there are too few views."""
        n = self.choices.views
        if n is not None and n > len(images.rgb):
            raise ValueError(f"protocol {self.key} needs {n} test views; there are {len(images.rgb)}")
        parts = images.rgb, images.rgb_true, images.alpha, images.alpha_true
        chosen = ImagePair(*(part[:n] for part in parts), shared=images.shared)
        return self._resized(self._on_background(chosen))

    def _on_background(self, images: ImagePair) -> ImagePair:
        darker = 1 - VALUES[self.choices.background]
        if not darker:
            return images
        rgb, rgb_true = images.rgb - darker * (1 - images.alpha), images.rgb_true - darker * (1 - images.alpha_true)
        return replace(images, rgb=rgb.clamp(0, 1), rgb_true=rgb_true.clamp(0, 1))

    def _resized(self, images: ImagePair) -> ImagePair:
        side = self.choices.resolution
        if side is None or side == images.rgb.shape[-1]:
            return images
        size = (side, side)

        def small(x: torch.Tensor) -> torch.Tensor:
            return functional.interpolate(x, size, mode="bilinear", antialias=True).clamp(0, 1)

        parts = images.rgb, images.rgb_true, images.alpha, images.alpha_true
        return ImagePair(*(small(part) for part in parts), shared=images.shared)
