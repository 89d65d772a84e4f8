"""How LGM's code computes its figures, as far as it says."""

from typing import ClassVar, Literal

from pydantic import Field

from z1g.metrics.protocols.base import UNKNOWN, Choices, Protocol

SOURCE = "github.com/3DTopia/LGM@fe8d12c"


class Lgm(Protocol):
    """PSNR of all pixels of an object's views at once, on white; cameras and objects are unknown."""

    kind: Literal["lgm"] = "lgm"
    resolution: int | None = Field(
        512, ge=11, le=8192, description="side of the images, pixels; null: that of the renders"
    )
    facts: ClassVar[dict[str, str]] = {
        "views": f"{SOURCE} core/options.py: num_views 8 of `big`, four of them inputs; those of the paper: {UNKNOWN}",
        "cameras": UNKNOWN,
        "resolution": f"{SOURCE} core/options.py: output_size 512 of the model `big`",
        "background": f"{SOURCE} core/models.py: white",
        "normalization": UNKNOWN,
        "metrics": f"{SOURCE} core/models.py: -10·log10 of the mean over all views of a batch",
        "objects": UNKNOWN,
    }

    @property
    def choices(self) -> Choices:
        return Choices(resolution=self.resolution, pooling="object")
