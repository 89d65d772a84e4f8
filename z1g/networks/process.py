"""Constants of the noise schedule for training and sampling, and what networks learn with it."""

from dataclasses import dataclass
from typing import Any, Literal

Objective = Literal["diffusion", "regression"]
"""What stage 2's network learns: to denoise codes, or to give them in one pass."""

TRAINED_WITH: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}
"""Noise schedule of Zero123++, and what all samplers have in common.

Zero123++ (Shi et al. 2023, §2.2) replaces Stable Diffusion's scaled-linear schedule by a linear one, which has more
steps at high noise, where the global structure of the six views forms.
"""
Betas = Literal["linear", "scaled_linear"]
"""Spacing of the betas: of themselves, or of their square roots as in Stable Diffusion."""


@dataclass(frozen=True)
class Process:
    """The noise that a denoiser is trained with and sampled from.

    zero_terminal_snr: rescaled so that nothing of a code is left at the last timestep (Lin et al. 2024, algorithm 1).
    """

    betas: Betas = "linear"
    zero_terminal_snr: bool = False

    def settings(self) -> dict[str, Any]:
        """Arguments of diffusers' schedulers."""
        rescaled = {"rescale_betas_zero_snr": True} if self.zero_terminal_snr else {}
        return {**TRAINED_WITH, "beta_schedule": self.betas, **rescaled}


ZERO123PLUS = Process()
