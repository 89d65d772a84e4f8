"""Scaling of latents and images, and the autoencoder's downsampling factor."""

import torch
from support.builders import SIZES

from z1g.networks.weights.scratch import Scratch
from z1g.networks.weights.zero123plus import Zero123Plus
from z1g.representations.mosaic import units


def test_latent_scale() -> None:
    x = torch.tensor([-1.0, 0.22, 1.0], dtype=torch.float64)
    torch.testing.assert_close(units.scale_latents(x), torch.tensor([-0.915, 0.0, 0.585], dtype=torch.float64))
    torch.testing.assert_close(units.unscale_latents(units.scale_latents(x)), x)


def test_image_scale() -> None:
    x = torch.tensor([-1.0, 0.0, 0.4], dtype=torch.float64)
    torch.testing.assert_close(units.scale_image(x), torch.tensor([-0.625, 0.0, 0.25], dtype=torch.float64))
    torch.testing.assert_close(units.unscale_image(x), torch.tensor([-1.6, 0.0, 0.64], dtype=torch.float64))


def test_latent_factor_counts_the_halvings() -> None:
    three = Scratch(**{**SIZES, "autoencoder_size": {"channels": [4, 4, 4], "norm_groups": 2, "layers_per_block": 1}})
    assert three.latent_factor == 4
    assert three.autoencoder().encode(torch.zeros(1, 3, 16, 16)).latent_dist.mean.shape[-1] == 4
    assert Zero123Plus().latent_factor == 8
