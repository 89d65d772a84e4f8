"""Constants of the diffusion process that networks are trained with and samplers invert."""

from typing import Any

TRAINED_WITH: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}
"""The process every sampler inverts (`z1g.networks.diffusion`).

Zero123++ (Shi et al. 2023, §2.2) leaves Stable Diffusion's scaled-linear schedule for the linear one, which spends more
steps at high noise, where the layout of the six views is decided.
"""
