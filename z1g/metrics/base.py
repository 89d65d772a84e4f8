"""Slot family of metrics, each with its unit, direction, scope and source."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from z1g.core.slots import Slot

if TYPE_CHECKING:
    import torch

Scope = Literal["view", "object", "set"]
TAKEN = ("object", "split", "source", "view", "azimuth_deg", "images")
"""Columns that rows have beside their metrics: a metric of such a name would take the place of one."""


class NotMeasurable(Exception):
    """The metric has no value for one object; the message is a readable reason."""


@dataclass(frozen=True)
class ImagePair:
    """Renders of one object from V views and the ground truth, on a white background.

    rgb, rgb_true: [V,3,H,W] in 0..1; alpha, alpha_true: [V,1,H,W] in 0..1. `shared` caches what metrics compute of the
    ground truth, for pairs with the same ground truth and protocol.
    """

    rgb: torch.Tensor
    rgb_true: torch.Tensor
    alpha: torch.Tensor
    alpha_true: torch.Tensor
    shared: dict[Any, Any] = field(default_factory=dict, compare=False, kw_only=True)


@dataclass(frozen=True)
class DepthMaps:
    """Rendered and true planar depth of the V inputs for which the data source has depth.

    depth: [V,H,W], the blending-weighted sum of camera-space z; alpha: [V,H,W]; depth_true: [V,H,W], 0 on the
    background.
    """

    depth: torch.Tensor
    alpha: torch.Tensor
    depth_true: torch.Tensor


@dataclass(frozen=True)
class Shape:
    """One object's geometry in the view-1 frame, normalized units: the object fits the sphere of diameter 1.

    points: [N,3] centers of its Gaussians; opacity: [N]. `surface(n)` returns n points [n,3] sampled uniformly from the
    source mesh, `depth()` the depth maps; both raise NotMeasurable if the data source has none. `shared` caches
    intermediate results that several metrics use. normals: [N,3] at the points, unit, of either sign;
    `surface_normals(n)` returns those of the points of `surface(n)`; None if there are none.
    """

    points: torch.Tensor
    opacity: torch.Tensor
    surface: Callable[[int], torch.Tensor]
    depth: Callable[[], DepthMaps]
    shared: dict[Any, Any] = field(default_factory=dict, compare=False)
    normals: torch.Tensor | None = None
    surface_normals: Callable[[int], torch.Tensor] | None = None


class Metric(Slot):
    """Base of all metrics; a kind derives from one of the three classes below."""

    label: ClassVar[str]
    """Name in tables."""
    unit: ClassVar[str]
    """Unit, or an empty string."""
    higher_is_better: ClassVar[bool]
    reference: ClassVar[str]
    """Source of the definition."""
    scope: ClassVar[Scope]
    """What a value describes: a view, an object or a set of objects."""


class ViewMetric(Metric):
    """A metric with a value per view."""

    scope: ClassVar[Scope] = "view"

    @abstractmethod
    def compute(self, images: ImagePair) -> torch.Tensor:
        """One value per view: [V] float. Raises UserError if weights are missing."""

    def pooled(self, images: ImagePair) -> float:
        """One value for all views of an object together: the mean, unless the metric is no mean over pixels."""
        return float(self.compute(images).double().mean())


class ObjectMetric(Metric):
    """A metric with a value per object."""

    scope: ClassVar[Scope] = "object"

    @abstractmethod
    def compute(self, shape: Shape) -> float:
        """The object's value. Raises NotMeasurable if this object has none, UserError if no object can have one."""


class SetMetric(Metric):
    """A metric with a value per set of objects, from the features of all their images."""

    scope: ClassVar[Scope] = "set"

    @abstractmethod
    def features(self, rgb: torch.Tensor) -> torch.Tensor:
        """Features [V,F] of images [V,3,H,W] in 0..1 on white. Raises UserError if weights are missing."""

    @abstractmethod
    def distance(self, features: torch.Tensor, features_true: torch.Tensor) -> float:
        """The value of a set from the features [N,F] of all its renders and of the ground truth."""
