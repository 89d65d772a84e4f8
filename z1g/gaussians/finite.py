"""Refusing Gaussians with NaN or infinite values, which rasterizers and file formats drop or write silently."""

from torch import Tensor

from z1g.core.errors import UserError
from z1g.gaussians.channels import split


def require_finite(gaussians: Tensor, what: str, remedy: str = "") -> None:
    """Raise UserError if any of the Gaussians [N,14] has a value that is not finite.

    what: their object or file, the beginning of the message. remedy: what the user can do, the end of the message.
    """
    finite = gaussians.isfinite()
    if finite.all():
        return
    attributes = [name for name, values in split(finite, dim=1).items() if not values.all()]
    bad = int((~finite.all(dim=1)).sum())
    raise UserError(
        f"{what}: {bad} of {len(gaussians)} Gaussians contain numbers that are not finite "
        f"({', '.join(attributes)}){remedy and f'; {remedy}'}"
    )
