"""Loss on latent codes for diffusion training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.losses.base import Comparison, Loss

if TYPE_CHECKING:
    import torch


class LatentLoss(Loss):
    """Mean squared error of the predicted clean code, weighted by the timestep.

    With a² + s² = 1 and snr = a²/s², an error of x0 is s times the error of v, so the x0 loss is s² times the v loss.
    `v` undoes that factor (1 + snr); `epsilon` (snr) is the unweighted error of the predicted noise; `min_snr` is the
    weighting of Hang et al. (ICCV 2023, §3.4), on the v loss min(snr, gamma)/(snr + 1), on that of the noise
    min(snr, gamma)/snr, which are both min(snr, gamma) on x0.
    """

    kind: Literal["latent"] = "latent"
    weighting: Literal["x0", "v", "epsilon", "min_snr"] = Field(
        "x0", description="weight of a timestep; x0 is the original's unweighted error"
    )
    gamma: float = Field(5.0, gt=0, le=1e6, description="cap of min_snr")

    def compute(self, pair: Comparison) -> torch.Tensor:
        if pair.latents is None or pair.latents_true is None:
            raise ValueError("loss 'latent' needs codes")
        squared = (pair.latents - pair.latents_true).square()
        if self.weighting == "x0":
            return squared.flatten(1).mean(dim=1).mean()
        if pair.snr is None:
            raise ValueError(f"weighting '{self.weighting}' needs the signal-to-noise ratio")
        error = squared.flatten(pair.snr.ndim).mean(dim=pair.snr.ndim)
        return (error * self._weight(pair.snr)).mean()

    def _weight(self, snr: torch.Tensor) -> torch.Tensor:
        """Factor of the x0 loss at signal-to-noise ratios."""
        if self.weighting == "v":
            return 1 + snr
        return snr if self.weighting == "epsilon" else snr.clamp(max=self.gamma)
