"""The trained method as a diffusers pipeline: a image in, codes and splatter images out.

`Zero1ToGPipeline.from_pretrained(folder)`, or `DiffusionPipeline.from_pretrained(folder, custom_pipeline=<this file>)`.
"""

# Without `from __future__ import annotations`: diffusers reads the classes of __init__'s arguments, not their names.

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from z1g.core.files import read_json, write_json
from z1g.inference.method import ImageToSplats
from z1g.networks.conditioning import Conditioning
from z1g.networks.denoiser import Denoiser
from z1g.networks.fused.modules import as_files_want
from z1g.networks.stored import read_network, require_files_fit
from z1g.plan.slices import slice_config
from z1g.representations.mosaic.stage1 import Stage1
from z1g.sampling.options import InferOptions
from z1g.sampling.samplers.ddpm import Ddpm

STAGE1_FILE = "stage1.json"
"""The part of the configuration that the splatter decoder is built from."""
NETWORKS = {
    "vae": AutoencoderKL,
    "unet": UNet2DConditionModel,
    "vision_encoder": CLIPVisionModelWithProjection,
    "conditioning": Conditioning,
}
"""What has weights, by the name of its folder."""


@dataclass
class Splats(BaseOutput):
    """codes [B,C,h,w]; splats: activated splatter images [B,6,14,S,S] in the view-1 frame."""

    codes: Tensor
    splats: Tensor


class Zero1ToGPipeline(DiffusionPipeline):
    """All networks of a trained ablation. Beside diffusers' folders, stage 1's heads and configuration are files."""

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        vision_encoder: CLIPVisionModelWithProjection,
        conditioning: Conditioning,
        scheduler: SchedulerMixin,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, unet=unet, vision_encoder=vision_encoder, conditioning=conditioning, scheduler=scheduler
        )
        self._stage1: tuple[Stage1, dict[str, Any]] | None = None
        self._exact = False

    @classmethod
    def of(
        cls, stage1: Stage1, config: dict[str, Any], denoiser: Denoiser, statistics: dict[str, Tensor],
        code: tuple[int, int, int],
    ) -> "Zero1ToGPipeline":  # fmt: skip
        """From trained parts. config: the slice of the configuration that `Stage1.load` reads. code: C,h,w."""
        conditioning = Conditioning.of(denoiser.prompt, denoiser.ramping, statistics, code)
        pipeline = cls(stage1.vae, denoiser.unet, denoiser.vision, conditioning, Ddpm().scheduler())
        pipeline._stage1 = stage1, config
        return pipeline

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> "Zero1ToGPipeline":
        """See diffusers. Raises UserError where the networks of a folder do not have exactly their weights."""
        folder, wanted = Path(pretrained_model_name_or_path), NETWORKS.keys() - kwargs.keys()
        parts = {name: read_network(NETWORKS[name], folder / name) for name in wanted} if folder.is_dir() else {}
        made: Zero1ToGPipeline = super().from_pretrained(pretrained_model_name_or_path, **parts, **kwargs)
        made._exact = bool(parts)
        dtype = kwargs.get("torch_dtype")
        return made.to(dtype) if isinstance(dtype, torch.dtype) else made

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write diffusers' layout, and stage 1's files."""
        folder = Path(save_directory)
        stage1, config = self._first_stage()
        for network in (self.unet, self.vae):
            as_files_want(network)
        super().save_pretrained(folder, **kwargs)
        stage1.save(folder)
        write_json(folder / STAGE1_FILE, config)

    def denoiser(self) -> Denoiser:
        """The conditioned UNet, frozen."""
        parts = self.conditioning
        found = Denoiser(self.unet, self.vision_encoder, parts.prompt, parts.ramping, train_conditioning=False)
        # Its constants are made anew, on the CPU, wherever the parts are.
        return found.to(self.device).requires_grad_(False).eval()

    def method(self, options: InferOptions) -> ImageToSplats:
        """Both stages, ready to sample."""
        stage1, _ = self._first_stage()
        stage1.to(self.device)
        code: Any = tuple(self.conditioning.config.code)
        return ImageToSplats(stage1, self.denoiser(), self.conditioning.statistics(), code, options)

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        num_inference_steps: int = 75,
        guidance_scale: float = 4.0,
        seeds: Sequence[int] | None = None,
    ) -> Splats:
        """Sample with the pipeline's scheduler. images: [B,3,H,W] in 0..1 on gray 127, of the trained size."""
        options = InferOptions(steps=num_inference_steps, guidance=guidance_scale, precision="fp32", cuda_graphs=False)
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        codes, splats = self.method(options)(images, seeds or range(len(images)), scheduler=scheduler)
        return Splats(codes=codes, splats=splats)

    def _first_stage(self) -> tuple[Stage1, dict[str, Any]]:
        if self._stage1 is None:
            folder = Path(self.config["_name_or_path"])
            if not self._exact:
                # Loaded by diffusers alone, which makes up what a file lacks.
                for name, kind in NETWORKS.items():
                    require_files_fit(kind, folder / name)
            config = read_json(folder / STAGE1_FILE)
            stage1 = Stage1.load(folder, slice_config(config))
            self.register_modules(vae=stage1.vae)
            self._stage1 = stage1, config
        return self._stage1
