"""Networks: the autoencoder, the splatter decoder, and the conditioned diffusion UNet."""

from z1g.networks.weights.base import Model
from z1g.networks.weights.scratch import Scratch
from z1g.networks.weights.zero123plus import Zero123Plus

KINDS: tuple[type[Model], ...] = (
    Scratch,
    Zero123Plus,
)
"""What `kind:` of a Model may name."""

__all__ = ["KINDS", "Model", "Scratch", "Zero123Plus"]
