"""All channels of a view in one latent of a widened VAE."""

from z1g.representations.joint.options import Joint

__all__ = ["Joint"]
