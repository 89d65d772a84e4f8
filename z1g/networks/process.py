"""Constants of the noise schedule for training and sampling, and what networks learn with it."""

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
"""Noise schedule of training (`z1g.networks.diffusion`) and of every sampler.

Zero123++ (Shi et al. 2023, §2.2) replaces Stable Diffusion's scaled-linear schedule by a linear one, which has more
steps at high noise, where the global structure of the six views forms.
"""
