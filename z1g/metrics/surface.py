"""Distances between the splats of an object and the surface of its source mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from z1g.metrics.base import ObjectMetric, Shape

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch

FARTHEST = 1.0
"""Chamfer distance of an object without a visible splat: the diameter of the normalized object."""


class _SurfaceMetric(ObjectMetric):
    """Base of the metrics of distances to the surface."""

    points: int = Field(
        20000, ge=100, le=10_000_000, description="points sampled from the mesh; at most as many splats are used"
    )
    min_opacity: float = Field(0.1, ge=0, lt=1, description="splats with a lower opacity are ignored")

    def nearest(self, shape: Shape) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Distances from splat centers to the surface and from surface points to splats; None if none is visible."""
        key = (self.points, self.min_opacity)
        if key not in shape.shared:
            shape.shared[key] = self._nearest(shape)
        distances: tuple[torch.Tensor, torch.Tensor] | None = shape.shared[key]
        return distances

    def _nearest(self, shape: Shape) -> tuple[torch.Tensor, torch.Tensor] | None:
        from scipy.spatial import cKDTree

        surface = shape.surface(self.points).double()
        splats = shape.points[shape.opacity >= self.min_opacity].detach().cpu().double()
        if not len(splats):
            return None
        if len(splats) > self.points:
            splats = splats[torch.randperm(len(splats), generator=torch.Generator().manual_seed(0))[: self.points]]
        to_surface, _ = cKDTree(surface.numpy()).query(splats.numpy())
        to_splats, _ = cKDTree(splats.numpy()).query(surface.numpy())
        return torch.from_numpy(to_surface), torch.from_numpy(to_splats)


class Chamfer(_SurfaceMetric):
    """Mean of both directed mean distances, not squared; 1 if no splat is visible."""

    kind: Literal["chamfer"] = "chamfer"
    label: ClassVar[str] = "Chamfer"
    unit: ClassVar[str] = "size"
    higher_is_better: ClassVar[bool] = False
    reference: ClassVar[str] = (
        "half the sum of mean distances splat → mesh and mesh → splat (Fan et al., CVPR 2017, unsquared), in units of "
        "the normalized object, whose sphere has diameter 1; the mesh's hidden inside counts, so `fitted` is the bound"
    )

    def compute(self, shape: Shape) -> float:
        distances = self.nearest(shape)
        return FARTHEST if distances is None else float(sum(distance.mean() for distance in distances)) / 2


class FScore(_SurfaceMetric):
    """Harmonic mean of precision (splats near the mesh) and recall (mesh near a splat)."""

    kind: Literal["f_score"] = "f_score"
    threshold: float = Field(0.02, gt=0, lt=1, description="largest distance that counts as near, normalized units")
    label: ClassVar[str] = "F-score"
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    reference: ClassVar[str] = "Knapitsch et al., SIGGRAPH 2017; near: 0.02 of the object's size by default"

    def compute(self, shape: Shape) -> float:
        distances = self.nearest(shape)
        if distances is None:
            return 0.0
        precision, recall = (float((distance < self.threshold).double().mean()) for distance in distances)
        return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
