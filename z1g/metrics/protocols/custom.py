"""A protocol of one's own, to see what a choice changes."""

from typing import ClassVar, Literal

from pydantic import Field

from z1g.metrics.protocols.base import Background, Choices, Pooling, Protocol


class Custom(Protocol):
    """Ours with other views, resolution, background or pooling; each combination has columns of its own."""

    kind: Literal["custom"] = "custom"
    views: int | None = Field(None, ge=1, le=10_000, description="number of test views, the first ones; null: all")
    resolution: int | None = Field(
        None, ge=11, le=8192, description="side of the images that are compared, pixels; null: that of the renders"
    )
    background: Background = Field("white", description="color behind both images; gray is 0.5")
    pooling: Pooling = Field(
        "views",
        description="views: a number for each view, then their mean; object: one number for all pixels of an object's "
        "views (differs for PSNR, which is no mean)",
    )
    facts: ClassVar[dict[str, str]] = {
        "views": "option", "cameras": "as ours", "resolution": "option", "background": "option",
        "normalization": "as ours", "metrics": "as ours", "objects": "as ours",
    }  # fmt: skip

    @property
    def choices(self) -> Choices:
        return Choices(self.views, self.resolution, self.background, self.pooling)
