"""Keeps numbers that are none away from CUDA kernels that do not look at them."""

import torch
from torch import Tensor

from z1g.render._project import LARGEST
from z1g.splat import CHANNELS


def harmless(gaussians: Tensor) -> Tensor:
    """The same Gaussians [B,N,14] with transparent ones, without gradient, in place of those that are not finite."""
    usable = (gaussians.detach().abs() < LARGEST).all(dim=2, keepdim=True)
    transparent = torch.zeros(gaussians.shape[2], dtype=gaussians.dtype, device=gaussians.device)
    transparent[CHANNELS["rotation"].start] = 1
    return torch.where(usable, gaussians, transparent)
