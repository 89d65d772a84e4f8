"""The evaluation of the published method, as far as it is known here."""

from typing import ClassVar, Literal

from pydantic import Field

from z1g.metrics.protocols.base import UNKNOWN, Choices, Protocol
from z1g.metrics.protocols.lgm import SOURCE


class Zero1ToG(Protocol):
    """The paper's evaluation over 10 or 21 views of an object, with the PSNR of the code that it builds on.

    The views' cameras and the objects are unknown here, so its figures cannot be repeated: this shows what number of
    views and pooling change.
    """

    kind: Literal["zero_1_to_g"] = "zero_1_to_g"
    views: Literal[10, 21] = Field(21, description="number of views of an object")
    facts: ClassVar[dict[str, str]] = {
        "views": "10 or 21, as others report it; arXiv:2501.05427 was not read for it",
        "cameras": UNKNOWN,
        "resolution": UNKNOWN,
        "background": f"white, of the code that it builds on: {SOURCE} core/models.py",
        "normalization": UNKNOWN,
        "metrics": f"PSNR over all views at once, of the code that it builds on: {SOURCE} core/models.py",
        "objects": UNKNOWN,
    }

    @property
    def choices(self) -> Choices:
        return Choices(views=self.views, pooling="object")
