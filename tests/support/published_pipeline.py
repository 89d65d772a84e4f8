"""Zero123++'s pipeline for one image, from its description, with networks of transformers and diffusers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel, UniPCMultistepScheduler
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from z1g.core.seeding import torch_generator
from z1g.inference.method import ImageToSplats

Pixels = Callable[[np.ndarray], Tensor]
"""A network's input [1,3,h,w] from an image uint8 [H,W,3]."""


class PublishedPipeline:
    """A plain UNet with hooks on its self-attention: a write pass over the noised condition, then a read pass."""

    def __init__(
        self, unet: UNet2DConditionModel, vae: AutoencoderKL, vision: CLIPVisionModelWithProjection, prompt: Tensor,
        coefficients: Sequence[float], condition_pixels: Pixels, clip_pixels: Pixels,
    ) -> None:  # fmt: skip
        self.unet, self.vae, self.vision = unet.eval(), vae.eval(), vision.eval()
        self.prompt, self.coefficients = prompt, list(coefficients)
        self.condition_pixels, self.clip_pixels = condition_pixels, clip_pixels
        self.mode, self.kept = "write", dict[str, Tensor]()
        for name, layer in self.unet.named_modules():
            if name.endswith("attn1"):
                layer.register_forward_pre_hook(self._hook(name), with_kwargs=True)

    @classmethod
    def of(cls, ours: ImageToSplats) -> PublishedPipeline:
        """With the weights of a method whose weights are random."""
        unet = UNet2DConditionModel.from_config(ours.denoiser.unet.config)
        unet.load_state_dict(ours.denoiser.unet.state_dict())
        vae = AutoencoderKL.from_config(ours.codec.vae.config)
        vae.load_state_dict(ours.codec.vae.state_dict())
        size = ours.denoiser.vision.config.image_size
        processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size=size)
        return cls(
            unet, vae, ours.denoiser.vision, ours.denoiser.prompt, ours.denoiser.ramping.tolist(),
            lambda image: torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1,
            lambda image: processor(image, return_tensors="pt").pixel_values,
        )  # fmt: skip

    @classmethod
    @torch.no_grad()
    def of_folder(cls, folder: Path, unet: Path | None = None) -> PublishedPipeline:
        """From a folder in the public layout, as diffusers loads it. unet: another folder of the UNet."""
        kind = getattr(transformers, "CLIPImageProcessorPil", None) or CLIPImageProcessor
        vae_processor, clip_processor = (
            kind.from_pretrained(folder / f"feature_extractor_{part}") for part in ("vae", "clip")
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        tokens = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
        text = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
        return cls(
            UNet2DConditionModel.from_pretrained(unet or folder / "unet"),
            AutoencoderKL.from_pretrained(folder / "vae"),
            CLIPVisionModelWithProjection.from_pretrained(folder / "vision_encoder"),
            text(tokens.input_ids)[0][0],
            json.loads((folder / "model_index.json").read_text())["ramping_coefficients"],
            lambda image: vae_processor(image, return_tensors="pt").pixel_values,
            lambda image: clip_processor(image, return_tensors="pt").pixel_values,
        )

    def _hook(self, name: str) -> Any:
        def hook(_: Any, args: tuple[Tensor], kwargs: dict[str, Any]) -> tuple[tuple[Tensor], dict[str, Any]]:
            if self.mode == "write":
                self.kept[name] = args[0]
                return args, kwargs
            both = torch.cat([args[0], self.kept.pop(name)], dim=1)
            return args, {**kwargs, "encoder_hidden_states": both}

        return hook

    @torch.no_grad()
    def __call__(
        self, image: np.ndarray, scheduler: Any, steps: int, guidance: float, seeds: tuple[int, int],
        shape: tuple[int, ...],
    ) -> Tensor:  # fmt: skip
        """The code [1,*shape] of one uint8 image [H,W,3]; the condition's latent is the posterior's mode.

        seeds: of the run and of the object.
        """
        pixels = self.condition_pixels(image)
        condition = self.vae.encode(pixels).latent_dist.mode()
        embedding = self.vision(self.clip_pixels(image)).image_embeds
        tokens = self.prompt[None] + embedding[:, None] * torch.tensor(self.coefficients)[:, None]
        guided = guidance > 1
        if guided:
            negative = self.vae.encode(torch.zeros_like(pixels)).latent_dist.mode()
            condition, tokens = torch.cat([negative, condition]), torch.cat([self.prompt[None], tokens])
        scheduler.set_timesteps(steps)
        own, of_condition = torch_generator(*seeds), torch_generator(*seeds, 1)
        latents = torch.randn(1, *shape, generator=own) * scheduler.init_noise_sigma
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
