"""Distances between the splats of an object and the surface of its source mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from z1g.metrics.alignment import aligned
from z1g.metrics.base import NotMeasurable, ObjectMetric, Shape

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch

FARTHEST = 1.0
"""Chamfer distance of an object without a visible splat: the diameter of the normalized object."""


@dataclass(frozen=True)
class _Pairs:
    """Nearest neighbors of S splats and P points of the surface.

    to_surface [S], to_splats [P]: distances. at_surface [S], at_splats [P]: indices of the neighbors. splats [S]:
    indices of the splats in the shape. rotation: [3,3] of a registration, or None.
    """

    to_surface: torch.Tensor
    to_splats: torch.Tensor
    at_surface: torch.Tensor
    at_splats: torch.Tensor
    splats: torch.Tensor
    rotation: torch.Tensor | None


class _SurfaceMetric(ObjectMetric):
    """Base of the metrics of distances to the surface."""

    points: int = Field(
        20000, ge=100, le=10_000_000, description="points sampled from the mesh; at most as many splats are used"
    )
    min_opacity: float = Field(0.1, ge=0, lt=1, description="splats with a lower opacity are ignored")
    registered: ClassVar[bool] = False
    """Whether the splats are first placed on the surface by a similarity."""

    def nearest(self, shape: Shape) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Distances from splat centers to the surface and from surface points to splats; None if none is visible."""
        pairs = self.pairs(shape)
        return None if pairs is None else (pairs.to_surface, pairs.to_splats)

    def pairs(self, shape: Shape) -> _Pairs | None:
        """The nearest neighbors in both directions; None if no splat is visible."""
        key = (self.points, self.min_opacity, self.registered)
        if key not in shape.shared:
            shape.shared[key] = self._pairs(shape)
        pairs: _Pairs | None = shape.shared[key]
        return pairs

    def _pairs(self, shape: Shape) -> _Pairs | None:
        from scipy.spatial import cKDTree

        surface = shape.surface(self.points).double().numpy()
        visible = (shape.opacity >= self.min_opacity).detach().cpu().nonzero()[:, 0]
        if not len(visible):
            return None
        if len(visible) > self.points:
            generator = torch.Generator().manual_seed(0)
            visible = visible[torch.randperm(len(visible), generator=generator)[: self.points]]
        splats, rotation = shape.points.detach().cpu()[visible].double().numpy(), None
        if self.registered:
            found = aligned(splats, surface)
            splats, rotation = found.of(splats), torch.from_numpy(found.rotation)
        threads = torch.get_num_threads()
        to_surface, at_surface = cKDTree(surface).query(splats, workers=threads)
        to_splats, at_splats = cKDTree(splats).query(surface, workers=threads)
        distances, indices = (to_surface, to_splats), (at_surface, at_splats)
        forward, backward, at, back = (torch.from_numpy(x) for x in (*distances, *indices))
        return _Pairs(forward, backward, at, back, visible, rotation)


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


class NormalConsistency(_SurfaceMetric):
    """Mean |cosine| of normals at nearest neighbors, in both directions: 0.5 by chance, 0 if no splat is visible."""

    kind: Literal["normal_consistency"] = "normal_consistency"
    label: ClassVar[str] = "normal consistency"
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    reference: ClassVar[str] = (
        "Mescheder et al., CVPR 2019: mean of |n·n'| at nearest neighbors, splats → mesh and mesh → splats; the normal "
        "of a Gaussian is its shortest axis"
    )

    def compute(self, shape: Shape) -> float:
        if shape.normals is None or shape.surface_normals is None:
            raise NotMeasurable("its source has no normals")
        pairs = self.pairs(shape)
        if pairs is None:
            return 0.0
        own, true = shape.normals.detach().cpu()[pairs.splats].double(), shape.surface_normals(self.points).double()
        if pairs.rotation is not None:
            own = own @ pairs.rotation.T
        forward = (own * true[pairs.at_surface]).sum(dim=1).abs().mean()
        backward = (true * own[pairs.at_splats]).sum(dim=1).abs().mean()
        return float(forward + backward) / 2


AFTER = " after a similarity (scale, rotation, offset) found by iterative closest points (Umeyama, PAMI 1991)"


class RegisteredChamfer(Chamfer):
    """Chamfer distance once the splats are placed on the mesh by a similarity: shape without scale and pose."""

    kind: Literal["chamfer_registered"] = "chamfer_registered"  # type: ignore[assignment]
    label: ClassVar[str] = "Chamfer (registered)"
    reference: ClassVar[str] = Chamfer.reference + AFTER
    registered: ClassVar[bool] = True


class RegisteredFScore(FScore):
    """F-score once the splats are placed on the mesh by a similarity."""

    kind: Literal["f_score_registered"] = "f_score_registered"  # type: ignore[assignment]
    label: ClassVar[str] = "F-score (registered)"
    reference: ClassVar[str] = FScore.reference + AFTER
    registered: ClassVar[bool] = True


class RegisteredNormalConsistency(NormalConsistency):
    """Normal consistency once the splats are placed on the mesh by a similarity."""

    kind: Literal["normal_consistency_registered"] = "normal_consistency_registered"  # type: ignore[assignment]
    label: ClassVar[str] = "normal consistency (registered)"
    reference: ClassVar[str] = NormalConsistency.reference + AFTER
    registered: ClassVar[bool] = True
