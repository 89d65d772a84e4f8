"""The scales of Zero123++'s mosaics and their latents."""

from torch import Tensor

LATENT_SHIFT, LATENT_SCALE = 0.22, 0.75
IMAGE_SCALE = 0.5 / 0.8


def scale_latents(latents: Tensor) -> Tensor:
    """(x - 0.22)·0.75, Zero123++'s shift of the latents of mosaics."""
    return (latents - LATENT_SHIFT) * LATENT_SCALE


def unscale_latents(latents: Tensor) -> Tensor:
    """Inverse of `scale_latents`."""
    return latents / LATENT_SCALE + LATENT_SHIFT


def scale_image(image: Tensor) -> Tensor:
    """x·0.5/0.8 for images in -1..1, Zero123++'s range of mosaics."""
    return image * IMAGE_SCALE


def unscale_image(image: Tensor) -> Tensor:
    """Inverse of `scale_image`: x·1.6."""
    return image / IMAGE_SCALE
