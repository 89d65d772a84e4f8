"""The protocol of this project."""

from typing import ClassVar, Literal

from z1g.metrics.protocols.base import Choices, Protocol


class Own(Protocol):
    """All test views on white at the renders' resolution; a number a view, then means over views and objects."""

    kind: Literal["own"] = "own"
    facts: ClassVar[dict[str, str]] = {
        "views": "camera.test_views (10 by default), which nothing but the metrics reads: docs/data.md",
        "cameras": "camera.free: random on the sphere by default, other ones for each object; radius and fov_y_deg",
        "resolution": "data.renderer.resolution",
        "background": "white",
        "normalization": "bounding box centered, farthest vertex at 0.5: z1g/meshes/raster/scene.py",
        "metrics": "docs/results.md",
        "objects": "data.split, by content hash",
    }

    @property
    def choices(self) -> Choices:
        return Choices()

    @property
    def key(self) -> str:
        return ""
