"""Error of rendered depth."""

from typing import ClassVar, Literal

from pydantic import Field

from z1g.metrics.base import NotMeasurable, ObjectMetric, Shape


class DepthError(ObjectMetric):
    """Mean absolute difference of planar depth from the six inputs, where both the render and the truth are covered."""

    kind: Literal["depth_error"] = "depth_error"
    threshold: float = Field(0.5, gt=0, lt=1, description="least alpha of a covered pixel of the render")
    label: ClassVar[str] = "depth error"
    unit: ClassVar[str] = "size"
    higher_is_better: ClassVar[bool] = False
    reference: ClassVar[str] = (
        "mean |rendered depth / alpha − depth of the mesh| from the six inputs over pixels that both cover, in "
        "units of the normalized object; alpha IoU measures missing and excess coverage"
    )

    def compute(self, shape: Shape) -> float:
        maps = shape.depth()
        both = (maps.alpha >= self.threshold) & (maps.depth_true > 0)
        if not both.any():
            raise NotMeasurable("no pixel is covered by both the render and the mesh")
        depth = maps.depth[both].double() / maps.alpha[both].double()
        return float((depth - maps.depth_true[both].double()).abs().mean())
