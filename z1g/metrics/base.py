"""Metrics as slots: each knows its unit, its direction, what it is a number of, and where its definition comes from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from z1g.core.slots import Slot

if TYPE_CHECKING:
    import torch

Scope = Literal["view", "object", "set"]


class NotMeasurable(Exception):
    """One object has no value, with a reason that a person understands; others may have one."""


@dataclass(frozen=True)
class ImagePair:
    """Renders of one object from V views beside the truth, on a white background.

    rgb, rgb_true: [V,3,H,W] in 0..1; alpha, alpha_true: [V,1,H,W] in 0..1.
    """

    rgb: torch.Tensor
    rgb_true: torch.Tensor
    alpha: torch.Tensor
    alpha_true: torch.Tensor


@dataclass(frozen=True)
class DepthMaps:
    """Planar depth of the V inputs that a data source has depth of, rendered beside the truth.

    depth: [V,H,W], the blending-weighted sum of camera-space z; alpha: [V,H,W]; depth_true: [V,H,W], 0 where there is
    nothing.
    """

    depth: torch.Tensor
    alpha: torch.Tensor
    depth_true: torch.Tensor


@dataclass(frozen=True)
class Shape:
    """One object's geometry in the view-1 frame, normalized units: the object lies in the sphere of diameter 1.

    points: [N,3] centers of its Gaussians; opacity: [N]. `surface(n)` gives n points [n,3] drawn evenly from the source
    mesh, `depth()` the depth maps; both raise NotMeasurable where the data source has none. `shared` keeps what several
    metrics need of it.
    """

    points: torch.Tensor
    opacity: torch.Tensor
    surface: Callable[[int], torch.Tensor]
    depth: Callable[[], DepthMaps]
    shared: dict[Any, Any] = field(default_factory=dict, compare=False)


class Metric(Slot):
    """Base of all metrics; a kind derives from one of the three classes below."""

    label: ClassVar[str]
    """How tables name it."""
    unit: ClassVar[str]
    """Unit, empty where there is none."""
    higher_is_better: ClassVar[bool]
    reference: ClassVar[str]
    """Where the definition comes from."""
    scope: ClassVar[Scope]
    """What it is a number of."""


class ViewMetric(Metric):
    """A number per view."""

    scope: ClassVar[Scope] = "view"

    @abstractmethod
    def compute(self, images: ImagePair) -> torch.Tensor:
        """One value a view: [V] float. Raises UserError where weights are missing."""


class ObjectMetric(Metric):
    """A number per object."""

    scope: ClassVar[Scope] = "object"

    @abstractmethod
    def compute(self, shape: Shape) -> float:
        """The object's value. Raises NotMeasurable where it has none, UserError where none of them can have one."""


class SetMetric(Metric):
    """A number per set of objects, from features of all their images."""

    scope: ClassVar[Scope] = "set"

    @abstractmethod
    def features(self, rgb: torch.Tensor) -> torch.Tensor:
        """Features [V,F] of images [V,3,H,W] in 0..1 on white. Raises UserError where weights are missing."""

    @abstractmethod
    def distance(self, features: torch.Tensor, features_true: torch.Tensor) -> float:
        """The value of a set from the features [N,F] of all its renders and of the truth."""
