"""The noise schedule and conversions between v, epsilon and x0.

Variance preserving: x_t = a_t·x0 + s_t·eps with a² + s² = 1, and v = a·eps - s·x0 (Salimans & Ho 2022, eq. in §4).
"""

import torch
from torch import Tensor

from z1g.networks.process import TRAINED_WITH, ZERO123PLUS, Process

TIMESTEPS: int = TRAINED_WITH["num_train_timesteps"]


class NoiseSchedule:
    """The noise schedule of a process, by default Zero123++'s: linearly spaced betas; 1,000 timesteps, in float64."""

    def __init__(self, process: Process = ZERO123PLUS) -> None:
        self.process = process
        low, high = TRAINED_WITH["beta_start"], TRAINED_WITH["beta_end"]
        if process.betas == "scaled_linear":
            betas = torch.linspace(low**0.5, high**0.5, TIMESTEPS, dtype=torch.float64).square()
        else:
            betas = torch.linspace(low, high, TIMESTEPS, dtype=torch.float64)
        cumulative = torch.cumprod(1 - betas, dim=0)
        alpha = cumulative.sqrt()
        if process.zero_terminal_snr:
            alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
            cumulative = alpha.square()
        self.alpha = alpha
        self.sigma = (1 - cumulative).sqrt()
        self._copies: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def at(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """a_t and s_t at integer timesteps [B], or [B,K] of the parts of `like` [B,K,...], with its type and device.

        Their shape is that of the timesteps and ones up to the dimensions of `like`.
        """
        shape = (*timestep.shape, *[1] * (like.ndim - timestep.ndim))
        alpha, sigma = self._on(like.device)
        index = timestep.to(like.device)
        return alpha[index].to(like.dtype).view(shape), sigma[index].to(like.dtype).view(shape)

    def snr(self, timestep: Tensor) -> Tensor:
        """Signal-to-noise ratio a²/s² of timesteps, in their shape, float32."""
        alpha, sigma = self._on(timestep.device)
        return ((alpha[timestep] / sigma[timestep]) ** 2).float()

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The tables on `device`; a lookup on another device would synchronize at every step."""
        if device not in self._copies:
            self._copies[device] = self.alpha.to(device), self.sigma.to(device)
        return self._copies[device]

    def add_noise(self, x0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """x_t = a·x0 + s·eps."""
        a, s = self.at(timestep, x0)
        return a * x0 + s * noise

    def velocity(self, x0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """v = a·eps - s·x0."""
        a, s = self.at(timestep, x0)
        return a * noise - s * x0

    def x0_from_v(self, noisy: Tensor, v: Tensor, timestep: Tensor) -> Tensor:
        """x0 = a·x_t - s·v."""
        a, s = self.at(timestep, noisy)
        return a * noisy - s * v

    def noise_from_v(self, noisy: Tensor, v: Tensor, timestep: Tensor) -> Tensor:
        """eps = s·x_t + a·v."""
        a, s = self.at(timestep, noisy)
        return s * noisy + a * v

    def v_from_noise(self, noisy: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """v = (eps - s·x_t) / a, the inverse of `noise_from_v`; not for a timestep without signal, where a is 0."""
        a, s = self.at(timestep, noisy)
        return (noise - s * noisy) / a
