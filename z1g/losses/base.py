"""Slot family of training losses. Configurations map names to losses, so that overlays merge."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import Field

from z1g.core.slots import Slot
from z1g.geometry.camera import pixel_rays

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional

    from z1g.geometry.camera import Cameras
else:
    from z1g.core.lazy import functional


@dataclass(frozen=True)
class InputMaps:
    """Rays and coverage of each pixel of B objects' splatter images, view-1 frame.

    origins, directions: rays [B,6,3,S,S], directions with camera-z length 1. alpha: [B,6,1,S,S], mean alpha of
    the input image in the pixel. focal: in pixels of the splatter image.
    """

    origins: torch.Tensor
    directions: torch.Tensor
    alpha: torch.Tensor
    focal: float

    @classmethod
    def build(cls, inputs: Cameras, alpha: torch.Tensor) -> InputMaps:
        """Build from the inputs' cameras [B,6] at the splatter images' size and the images' alpha [B,6,1,H,W]."""
        origins, directions = pixel_rays(inputs)
        small = functional.adaptive_avg_pool2d(alpha.flatten(0, 1), (inputs.height, inputs.width))
        return cls(origins, directions, small.unflatten(0, alpha.shape[:2]), inputs.focal)

    def keep(self, which: torch.Tensor) -> InputMaps:
        """The objects that a mask [B] selects."""
        return replace(self, origins=self.origins[which], directions=self.directions[which], alpha=self.alpha[which])


@dataclass(frozen=True)
class Comparison:
    """Predictions and ground truth; None where an objective has no such tensor.

    rgb, rgb_true: [B,V,3,H,W] in 0..1 on the same background.
    alpha, alpha_true: [B,V,1,H,W] in 0..1.
    splats, splats_true: activated splatter images [B,6,14,S,S].
    latents, latents_true: [B,*code_shape], predicted and clean codes.
    snr: [B], or [B,K] of the parts of codes [B,K,...], signal-to-noise ratio at the drawn timestep, for weighting.
    inputs: rays and coverage of the pixels of `splats`.
    epoch: [B], the epoch of each object, for schedules.
    perceptual_dropout: whether dropout in perceptual networks is active, which is a bug of the original.
    """

    rgb: torch.Tensor | None = None
    rgb_true: torch.Tensor | None = None
    alpha: torch.Tensor | None = None
    alpha_true: torch.Tensor | None = None
    splats: torch.Tensor | None = None
    splats_true: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    latents_true: torch.Tensor | None = None
    snr: torch.Tensor | None = None
    inputs: InputMaps | None = None
    epoch: torch.Tensor | None = None
    perceptual_dropout: bool = False


TAKEN = ("loss", "gradient_norm", "lr", "step", "seconds", "finite", "stop")
"""What training itself calls its figures: a loss of such a name would take the place of one."""


class Loss(Slot):
    """A loss term: `weight` times `compute`, a scalar mean over the batch."""

    weight: float = Field(1.0, ge=0, le=1e6, description="factor in the sum of all terms; 0 disables the term")

    @abstractmethod
    def compute(self, pair: Comparison) -> torch.Tensor:
        """The unweighted term, a scalar. Raises ValueError if `pair` lacks the tensors that it compares."""


def weighted_sum(losses: dict[str, Loss], pair: Comparison) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Sum of weight·term over all terms with a weight above 0, and the unweighted terms by name (detached)."""
    terms = {name: loss.compute(pair) for name, loss in losses.items() if loss.weight > 0}
    if not terms:
        raise ValueError("no loss has a weight above 0")
    total = sum((losses[name].weight * term for name, term in terms.items()), start=0 * next(iter(terms.values())))
    return total, {name: term.detach() for name, term in terms.items()}
