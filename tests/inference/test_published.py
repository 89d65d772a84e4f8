"""Sampling against an independent implementation of Zero123++'s published pipeline, with the same random weights."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from support.builders import SIZES
from support.diffusion import PUBLISHED
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from z1g.core.seeding import torch_generator
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.inference.method import ImageToSplats
from z1g.networks.weights.scratch import Scratch
from z1g.representations import Mosaic
from z1g.representations.codec import Trained
from z1g.representations.mosaic.decoder_options import DecoderOptions
from z1g.representations.mosaic.path.plain import Plain
from z1g.sampling.options import InferOptions
from z1g.sampling.samplers import Sampler
from z1g.sampling.samplers.ddim import Ddim
from z1g.sampling.samplers.ddpm import Ddpm
from z1g.sampling.samplers.dpm_multistep import DpmMultistep
from z1g.sampling.samplers.euler_ancestral import EulerAncestral
from z1g.sampling.samplers.unipc import UniPc

STEPS, RUN_SEED, OBJECT_SEEDS = 6, 3, [11, 22]
CODE = (4, 24, 16)
SAMPLERS: list[tuple[Sampler, type, dict[str, Any]]] = [
    (EulerAncestral(), EulerAncestralDiscreteScheduler, {}),
    (Ddpm(), DDPMScheduler, {"clip_sample": False}),
    (Ddim(), DDIMScheduler, {"clip_sample": False}),
    (DpmMultistep(), DPMSolverMultistepScheduler, {}),
    (UniPc(), UniPCMultistepScheduler, {}),
]


class Published:
    """Zero123++'s pipeline for one image, from its description: a plain UNet with hooks on its self-attention."""

    def __init__(self, ours: ImageToSplats) -> None:
        self.unet = UNet2DConditionModel.from_config(ours.denoiser.unet.config).eval()
        self.unet.load_state_dict(ours.denoiser.unet.state_dict())
        self.vae = AutoencoderKL.from_config(ours.codec.vae.config).eval()
        self.vae.load_state_dict(ours.codec.vae.state_dict())
        self.vision: CLIPVisionModelWithProjection = ours.denoiser.vision
        self.prompt, self.coefficients = ours.denoiser.prompt, ours.denoiser.ramping.tolist()
        self.mode, self.kept = "write", dict[str, Tensor]()
        for name, layer in self.unet.named_modules():
            if name.endswith("attn1"):
                layer.register_forward_pre_hook(self._hook(name), with_kwargs=True)

    def _hook(self, name: str) -> Any:
        def hook(_: Any, args: tuple[Tensor], kwargs: dict[str, Any]) -> tuple[tuple[Tensor], dict[str, Any]]:
            if self.mode == "write":
                self.kept[name] = args[0]
                return args, kwargs
            both = torch.cat([args[0], self.kept.pop(name)], dim=1)
            return args, {**kwargs, "encoder_hidden_states": both}

        return hook

    @torch.no_grad()
    def __call__(self, image: np.ndarray, scheduler: Any, guidance: float, seed: int) -> Tensor:
        """The code of one uint8 image [H,W,3]; the condition's latent is the posterior's mode."""
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        condition = self.vae.encode(pixels).latent_dist.mode()
        size = self.vision.config.image_size
        processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size=size)
        embedding = self.vision(processor(image, return_tensors="pt").pixel_values).image_embeds
        tokens = self.prompt[None] + embedding[:, None] * torch.tensor(self.coefficients)[:, None]
        guided = guidance > 1
        if guided:
            negative = self.vae.encode(torch.zeros_like(pixels)).latent_dist.mode()
            condition, tokens = torch.cat([negative, condition]), torch.cat([self.prompt[None], tokens])
        scheduler.set_timesteps(STEPS)
        own = torch_generator(RUN_SEED, seed)
        of_condition = torch_generator(RUN_SEED, seed, 1)
        latents = torch.randn(1, *CODE, generator=own) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(torch.cat([latents] * len(condition)), t)
            noise = torch.randn(condition.shape, generator=of_condition)
            noisy = scheduler.add_noise(condition, noise, t.reshape(-1))
            noisy = scheduler.scale_model_input(noisy, t)
            self.mode = "write"
            self.unet(noisy, t, encoder_hidden_states=tokens)
            self.mode = "read"
            v = self.unet(scaled, t, encoder_hidden_states=tokens).sample
            assert not self.kept, "every layer reads its own tokens"
            if guided:
                v = v[:1] + guidance * (v[1:] - v[:1])
            kwargs = {} if isinstance(scheduler, UniPCMultistepScheduler) else {"generator": own}
            latents = scheduler.step(v, t, latents, return_dict=False, **kwargs)[0]
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The mosaic in -1..1 of codes."""
        latents = latents / 0.75 + 0.22
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample / 0.5 * 0.8


def method(options: InferOptions) -> ImageToSplats:
    model = Scratch(init_seed=1, **SIZES)
    mosaic = Mosaic(input_size=16, decoder=DecoderOptions(path=Plain()))
    codec = mosaic.new_codec(model, CameraOptions(), SplatOptions(size=16))
    denoiser = model.denoiser().requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(2)
    # The last layer is initialized to zero, which would hide the network.
    denoiser.unet.conv_out.weight.copy_(0.1 * torch.randn(denoiser.unet.conv_out.weight.shape, generator=generator))
    with torch.no_grad():
        zero = codec.condition_latent(torch.full((1, 3, 16, 16), 0.5))
    statistics = {"mean": torch.zeros(1), "deviation": torch.ones(1), "zero_latent": zero}
    return ImageToSplats(Trained(codec, denoiser, statistics), options)


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(2, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(("sampler", "cls", "extra"), SAMPLERS, ids=[s.kind for s, _, _ in SAMPLERS])
@pytest.mark.parametrize("guidance", [1.0, pytest.param(4.0, marks=pytest.mark.slow)])
def test_codes_equal_the_published_pipelines(
    sampler: Sampler, cls: type, extra: dict[str, Any], guidance: float
) -> None:
    ours = method(InferOptions(sampler=sampler, steps=STEPS, guidance=guidance, seed=RUN_SEED))
    theirs = Published(ours)
    given = images()
    together = ours.codes(torch.from_numpy(given).permute(0, 3, 1, 2).float() / 255, OBJECT_SEEDS)
    for i, seed in enumerate(OBJECT_SEEDS):
        alone = theirs(given[i], cls(**PUBLISHED, **extra), guidance, seed)
        scale = float(alone.abs().max())
        torch.testing.assert_close(together[i], alone[0], atol=1e-4 * max(scale, 1.0), rtol=0)


def test_the_conditions_reach_the_code() -> None:
    """The test above would also pass if both sides ignored the image."""
    ours = method(InferOptions(steps=2, guidance=2.0, seed=RUN_SEED))
    given = torch.from_numpy(images()).permute(0, 3, 1, 2).float() / 255
    first, second = ours.codes(given[:1], [1]), ours.codes(given[1:], [1])
    assert (first - second).abs().max() > 1e-2


def test_mosaics_equal_the_published_pipelines() -> None:
    ours = method(InferOptions())
    code = torch.randn(2, *CODE, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        colors = ours.codec.decoder.raw_mosaic(code)[:, 11:]
    torch.testing.assert_close(colors, Published(ours).decode(code), atol=1e-4, rtol=0)
