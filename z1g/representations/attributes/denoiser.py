"""Stable Diffusion's UNet for attribute images: attention across views and attributes, in Wonder3D's form."""

from __future__ import annotations

import math

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from z1g.gaussians.channels import CHANNELS
from z1g.geometry.camera import CameraOptions
from z1g.networks import attention_kernels, reference_attention
from z1g.networks.denoiser import Condition, Parts
from z1g.networks.diffusion import NoiseSchedule
from z1g.networks.multiview import attention, attributes
from z1g.networks.multiview.inputs import with_inputs
from z1g.networks.preprocessing import ImageProcessor
from z1g.networks.unet_denoiser import UNetDenoiser
from z1g.representations.attributes.denoiser_options import AttributeDenoiserOptions
from z1g.representations.attributes.mappings import Mappings

ANGLES = 3
"""Elevation of the condition, and elevation and azimuth relative to it."""
LABEL = 2 * (len(CHANNELS) + ANGLES)
"""Width of the vector that tells attributes and cameras apart."""


def labels(mappings: Mappings, camera: CameraOptions) -> Tensor:
    """Vectors [A,V,LABEL] of attributes and views: sines and cosines of three angles and of a one-hot vector.

    Angles are in radians. A photograph does not tell the elevation from which it was taken: that of the condition is 0,
    and those of the views are absolute. Source: Wonder3D (Long et al. 2023), with the attributes as its domains.
    """
    angles = torch.tensor([[0.0, math.radians(e), math.radians(a)] for e, a in camera.input_angles])
    places = [list(CHANNELS).index(name) for name in mappings.names]
    one_hot = torch.eye(len(CHANNELS))[places]
    shape = (len(places), len(angles))
    values = torch.cat([angles.expand(*shape, -1), one_hot[:, None].expand(*shape, -1)], dim=-1)
    return torch.cat([values.sin(), values.cos()], dim=-1)


def grown(
    unet: UNet2DConditionModel, mappings: Mappings, options: AttributeDenoiserOptions, views: int
) -> UNet2DConditionModel:
    """A UNet with the weights of another one, more inputs, and attention across views and attributes.

    Its images have the condition's latent in addition. The attention across attributes begins without effect.
    """
    network = with_inputs(unet, 2 * int(unet.config["out_channels"]), LABEL)
    connect(network, mappings, options, views)
    return network


def connect(
    unet: UNet2DConditionModel, mappings: Mappings, options: AttributeDenoiserOptions, views: int
) -> None:  # fmt: skip
    """Add the attention across views and attributes, in place."""
    attention.install(unet, views)
    if options.cross_attribute:
        attributes.insert(unet, len(mappings.names), views, options.rotary)


class AttributeDenoiser(UNetDenoiser):
    """Predicts the codes [A·V,C,h,w] of `AttributeCodec`. The rows of the UNet are objects, attributes and views."""

    labels: Tensor

    def __init__(
        self, unet: UNet2DConditionModel, vision: nn.Module, mappings: Mappings, options: AttributeDenoiserOptions,
        camera: CameraOptions, train_vision: bool, processor: ImageProcessor | None = None,
    ) -> None:  # fmt: skip
        """unet: see `grown`. processor: see `UNetDenoiser`."""
        super().__init__(unet, vision, processor)
        self.options = options
        self.schedule = NoiseSchedule(options.noise)
        first = tuple(mappings.names.index(name) for name in options.cascade)
        self.parts = Parts(len(mappings.names), options.alone_share, options.timestep_jitter, first)
        self.rates = {"unet.class_embedding.": options.embedding_rate}
        self.register_buffer("labels", labels(mappings, camera), persistent=False)
        vision.requires_grad_(train_vision)

    def forward(
        self, noisy: Tensor, timestep: Tensor, condition: Condition, condition_noise: Tensor, part: Tensor | None = None
    ) -> Tensor:
        """v prediction [B,K,C,h,w] of noised codes at integer timesteps [B] or [B,K].

        part: index [B] of the attribute that each code consists of, which is then predicted alone; None: codes have all
        attributes. The condition's latent [B,C,h,w] gets no noise.
        """
        batch, entries = noisy.shape[:2]
        table = self.labels.expand(batch, -1, -1, -1).flatten(1, 2) if part is None else self.labels[part]
        latent = condition.latent[:, None].expand_as(noisy)
        tokens = condition.embedding.unflatten(1, (-1, self.token_width))
        steps = timestep if timestep.ndim == 2 else timestep[:, None].expand(-1, entries)
        with self._network(noisy.device) as (unet, dtype), attention_kernels.kernels(self.attention):
            rows = reference_attention.run(
                unet,
                torch.cat([noisy, latent], dim=2).flatten(0, 1).to(dtype),
                steps.flatten(),
                tokens.repeat_interleave(entries, dim=0).to(dtype),
                class_labels=table.flatten(0, 1).to(dtype),
                alone=part is not None,
            )
        predicted: Tensor = rows.unflatten(0, (batch, entries)).to(noisy.dtype)
        if part is not None and self.training:
            # Data-parallel training waits for a gradient of every weight.
            predicted = predicted + 0 * sum(p.sum() for p in attributes.inserted(self.unet) if p.requires_grad)
        if self.options.prediction == "epsilon" and self.objective == "diffusion":
            return self.schedule.v_from_noise(noisy, predicted, timestep)
        return predicted
