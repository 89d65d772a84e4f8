"""Slot family of metrics, each with its unit, direction, scope and source."""

from z1g.metrics.alpha_iou import AlphaIou
from z1g.metrics.base import (
    DepthMaps,
    ImagePair,
    Metric,
    NotMeasurable,
    ObjectMetric,
    Scope,
    SetMetric,
    Shape,
    ViewMetric,
)
from z1g.metrics.clip import ClipSimilarity
from z1g.metrics.depth import DepthError
from z1g.metrics.frechet import FdEffLite0
from z1g.metrics.lpips import Lpips, StLpips
from z1g.metrics.psnr import Psnr
from z1g.metrics.ssim import Ssim
from z1g.metrics.surface import (
    Chamfer,
    FScore,
    NormalConsistency,
    RegisteredChamfer,
    RegisteredFScore,
    RegisteredNormalConsistency,
)

KINDS: tuple[type[Metric], ...] = (
    AlphaIou,
    ClipSimilarity,
    DepthError,
    FdEffLite0,
    StLpips,
    Lpips,
    Psnr,
    Ssim,
    Chamfer,
    FScore,
    NormalConsistency,
    RegisteredChamfer,
    RegisteredFScore,
    RegisteredNormalConsistency,
)
"""All kinds of Metric."""

__all__ = [
    "KINDS",
    "AlphaIou",
    "Chamfer",
    "ClipSimilarity",
    "DepthError",
    "DepthMaps",
    "FScore",
    "FdEffLite0",
    "ImagePair",
    "Lpips",
    "Metric",
    "NormalConsistency",
    "NotMeasurable",
    "ObjectMetric",
    "Psnr",
    "RegisteredChamfer",
    "RegisteredFScore",
    "RegisteredNormalConsistency",
    "Scope",
    "SetMetric",
    "Shape",
    "Ssim",
    "StLpips",
    "ViewMetric",
]
