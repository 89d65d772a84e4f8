"""Sizes and networks for the benchmarks of stage 2."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from z1g.bench.machine import TERA
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.networks.denoiser import Condition, Denoiser
from z1g.networks.prompted_denoiser import PromptedDenoiser
from z1g.networks.unet_denoiser import UNetDenoiser
from z1g.networks.vision import VisionSize
from z1g.networks.weights.scratch import Scratch
from z1g.networks.weights.sizes import AutoencoderSize, UNetSize
from z1g.representations import Attributes, Joint, Mosaic, Representation


@dataclass(frozen=True)
class Size:
    """Networks, representation, and sides of the condition image and of splatter images in pixels."""

    model: Scratch
    representation: Representation
    condition: int
    splats: int = 128

    @property
    def code(self) -> tuple[int, ...]:
        """Shape of a code."""
        return self.representation.code_shape(self.model, self.splats)

    @property
    def condition_latent(self) -> tuple[int, int, int]:
        """Channels, height and width of a condition's latent."""
        side = self.condition // self.model.latent_factor
        return self.model.autoencoder_size.latent_channels, side, side


SIZES = {
    "full": Size(Scratch(), Mosaic(), 320),
    "tiny": Size(
        Scratch(
            autoencoder_size=AutoencoderSize(channels=(8, 8), layers_per_block=1, norm_groups=4),
            unet_size=UNetSize(channels=(8, 16), layers_per_block=1, head_dim=8, cross_attention_dim=16, norm_groups=4),
            vision_size=VisionSize(image_size=16, patch_size=8, width=16, layers=1, heads=2),
            prompt_tokens=4,
        ),
        Mosaic(input_size=16),
        16,
        16,
    ),
    "attributes": Size(Scratch(unet_size=UNetSize(cross_attention_dim=768)), Attributes(), 128),
    "joint": Size(Scratch(), Joint(), 128),
}
"""full: SD 2.1's UNet of 866 M parameters, ViT-H, codes of 120×80, conditions of 320². tiny: for CPUs and tests.

attributes: SD 1's UNet with heads of 64 channels, as fused attention likes them, and codes of 30 latents of 4×16×16.
joint: full's UNet, codes of six latents of 4×16×16.
"""


def build(size: Size, device: torch.device, *, vision: bool) -> Denoiser:
    """Build networks with random weights on the device. Without `vision`, the image encoder has the tiny size."""
    model = size.model
    if not vision:
        model = model.model_copy(update={"vision_size": SIZES["tiny"].model.vision_size})
    with torch.device(device):
        denoiser = size.representation.new_denoiser(model, CameraOptions(), SplatOptions(size=size.splats))
        assert isinstance(denoiser, UNetDenoiser)
        nn.init.normal_(denoiser.unet.conv_out.weight, std=0.02)
    denoiser.vision.requires_grad_(False)
    if isinstance(denoiser, PromptedDenoiser):
        denoiser.train_conditioning = False
        denoiser.prompt.requires_grad_(False)
    return denoiser.to(device)


def random_condition(size: Size, batch: int, device: torch.device) -> Condition:
    """Random conditions of a batch."""
    width = size.model.unet_size.cross_attention_dim
    return Condition(
        torch.randn(batch, *size.condition_latent, device=device), torch.randn(batch, width, device=device)
    )


def teraflops_a_sample(size: Size, denoiser: Denoiser, device: torch.device, *, backward: bool) -> float:
    """TFLOP of one sample's forward pass and, with `backward`, its backward pass, including attention."""
    latent = torch.randn(1, *size.code, device=device)
    noise = torch.randn(1, *size.condition_latent, device=device)
    timestep = torch.full((1,), 500, device=device)
    with (
        FlopCounterMode(display=False) as counter,
        torch.autocast(device.type, torch.bfloat16),
        torch.set_grad_enabled(backward),
    ):
        output = denoiser(latent, timestep, random_condition(size, 1, device), noise)
        if backward:
            output.float().square().mean().backward()
    denoiser.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / TERA
