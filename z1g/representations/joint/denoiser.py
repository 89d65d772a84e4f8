"""The UNet over an object's views: joined attention, rays of the latents' pixels, the condition as one more view."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from z1g.geometry.camera import N_INPUTS, CameraOptions, plucker_rays
from z1g.networks import attention_kernels, reference_attention
from z1g.networks.denoiser import Condition
from z1g.networks.diffusion import NoiseSchedule
from z1g.networks.multiview.attention import install
from z1g.networks.preprocessing import ImageProcessor
from z1g.networks.process import Process
from z1g.networks.prompted_denoiser import PromptedDenoiser
from z1g.representations.splat_features import input_cameras

RAYS, MASK = 6, 1
MORE = RAYS + MASK
"""Input channels after those of a latent."""
VIEWS = N_INPUTS + 1
"""The six views, then the condition."""


def places(camera: CameraOptions, side: int) -> Tensor:
    """Input channels [7,7,h,h] that say where a latent's pixels look: Pluecker rays in the view-1 frame, and a mask.

    The condition, which is last, has zeros, since its elevation is not known, and the mask 1.
    """
    rays = plucker_rays(input_cameras(camera, side))[0]
    known = torch.cat([rays, rays.new_zeros(N_INPUTS, MASK, side, side)], dim=1)
    condition = torch.cat([rays.new_zeros(1, RAYS, side, side), rays.new_ones(1, MASK, side, side)], dim=1)
    return torch.cat([known, condition])


class JointDenoiser(PromptedDenoiser):
    """A UNet whose images are six noised latents and the condition's, seven consecutive ones an object."""

    places: Tensor

    def __init__(
        self, unet: UNet2DConditionModel, vision: nn.Module, prompt: Tensor, ramping: Tensor, train_conditioning: bool,
        processor: ImageProcessor | None = None, clip_sample: bool = False, *, process: Process, places: Tensor,
    ) -> None:  # fmt: skip
        """unet: with `MORE` input channels than a latent has. process: the noise. places: see `places`.

        Others: see `ReferenceDenoiser`.
        """
        super().__init__(unet, vision, prompt, ramping, train_conditioning, processor)
        install(unet, VIEWS)
        self.clip_sample, self.schedule = clip_sample, NoiseSchedule(process)
        self.register_buffer("places", places, persistent=False)

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Condition, condition_noise: Tensor) -> Tensor:
        """v prediction [B,6,C,h,w] of noised codes at integer timesteps [B].

        The condition's latent [B,C,h,w] has no noise, and therefore timestep 0; `condition_noise` has no effect.
        """
        images = torch.cat([noisy, condition.latent[:, None]], dim=1)
        placed = torch.cat([images, self.places.to(images.dtype).expand(len(images), -1, -1, -1, -1)], dim=2)
        steps = torch.cat([timestep[:, None].expand(-1, N_INPUTS), torch.zeros_like(timestep)[:, None]], dim=1)
        tokens = self.tokens(condition.embedding).repeat_interleave(VIEWS, dim=0)
        with self._network(noisy.device) as (unet, dtype), attention_kernels.kernels(self.attention):
            sample, tokens = placed.flatten(0, 1).to(dtype), tokens.to(dtype)
            velocity = reference_attention.run(unet, sample, steps.flatten(), tokens)
        predicted: Tensor = velocity.unflatten(0, (-1, VIEWS))[:, :N_INPUTS]
        return predicted.to(noisy.dtype)
