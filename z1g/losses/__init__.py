"""Training losses as slots. Configurations name them in a mapping, so that overlays merge."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from z1g.config.slot import Slot

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Comparison:
    """Prediction and truth side by side; what an objective does not have is None.

    rgb, rgb_true: [B,V,3,H,W] in 0..1 on the same background.
    alpha, alpha_true: [B,V,1,H,W] in 0..1.
    splats, splats_true: activated splatter images [B,6,14,S,S].
    latents, latents_true: [B,C,h,w], the clean code and its prediction.
    snr: [B], signal-to-noise ratio at the drawn timestep, for weighting.
    """

    rgb: "torch.Tensor | None" = None
    rgb_true: "torch.Tensor | None" = None
    alpha: "torch.Tensor | None" = None
    alpha_true: "torch.Tensor | None" = None
    splats: "torch.Tensor | None" = None
    splats_true: "torch.Tensor | None" = None
    latents: "torch.Tensor | None" = None
    latents_true: "torch.Tensor | None" = None
    snr: "torch.Tensor | None" = None


class Loss(Slot):
    """One term: `weight` times `compute`, a scalar, the mean over the batch."""

    weight: float = Field(1.0, ge=0, description="factor in the sum of all terms; 0 switches the term off")

    @abstractmethod
    def compute(self, pair: Comparison) -> "torch.Tensor":
        """The unweighted term, a scalar. Raises ValueError where the objective gives no such prediction."""


def weighted_sum(losses: "dict[str, Loss]", pair: Comparison) -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
    """Sum of weight·term over all terms with a weight, and the unweighted terms by name (detached)."""
    terms = {name: loss.compute(pair) for name, loss in losses.items() if loss.weight > 0}
    if not terms:
        raise ValueError("no loss has a weight above 0")
    total = sum((losses[name].weight * term for name, term in terms.items()), start=0 * next(iter(terms.values())))
    return total, {name: term.detach() for name, term in terms.items()}
