"""The trained mosaic as a diffusers pipeline, from images to codes and splatter images.

`Zero1ToGPipeline.from_pretrained(folder)`, or `DiffusionPipeline.from_pretrained(folder, custom_pipeline=<this file>)`.
"""

# Without `from __future__ import annotations`: diffusers reads the types of __init__'s arguments, not their names.

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

from z1g.core.weights import require_finite
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.networks.conditioning import Conditioning
from z1g.networks.fused.modules import to_contiguous
from z1g.networks.preprocessing import CLIP, ImageProcessor
from z1g.networks.reference_denoiser import ReferenceDenoiser
from z1g.networks.stored import forget_origin, hush_saving, read_network, require_files_fit
from z1g.networks.vision.efficientnet import EfficientNetEncoder
from z1g.networks.vision.stored import encoder_class
from z1g.representations import folder as method_folder
from z1g.representations.base import Representation
from z1g.representations.codec import Codec, Trained
from z1g.sampling.options import InferOptions
from z1g.sampling.own_steps import require_own_steps
from z1g.sampling.sample import sample_codes
from z1g.sampling.samplers.ddim import Ddim
from z1g.sampling.samplers.ddpm import Ddpm

NETWORKS = ("vae", "unet", "vision_encoder", "conditioning")
"""Components with weights, which are the names of their folders."""
Setup = tuple[Representation, CameraOptions, SplatOptions]


@dataclass
class Splats(BaseOutput):
    """codes [B,C,h,w]; splats: activated splatter images [B,6,14,S,S] in the view-1 frame."""

    codes: Tensor
    splats: Tensor


class Zero1ToGPipeline(DiffusionPipeline):
    """All networks of a trained ablation. Stage 1's heads and configuration are files next to diffusers' folders."""

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        vision_encoder: CLIPVisionModelWithProjection | EfficientNetEncoder,
        conditioning: Conditioning,
        scheduler: SchedulerMixin,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, unet=unet, vision_encoder=vision_encoder, conditioning=conditioning, scheduler=scheduler
        )
        self._stage1: tuple[Codec, Setup] | None = None
        self._exact = False
        self._clip: ImageProcessor | None = None

    @classmethod
    def of(
        cls, trained: Trained, representation: Representation, camera: CameraOptions, splats: SplatOptions
    ) -> "Zero1ToGPipeline":
        """From trained networks and the options that the codec was built with."""
        codec, denoiser = trained.codec, trained.denoiser
        conditioning = Conditioning.of(
            denoiser.prompt,
            denoiser.ramping,
            trained.statistics,
            codec.code_shape,
            denoiser.objective,
            denoiser.distilled_steps,
        )
        sampler = Ddpm(clip_sample="checkpoint") if denoiser.distilled_steps is None else Ddim()
        scheduler = sampler.scheduler(denoiser.clip_sample)
        pipeline = cls(codec.vae, denoiser.unet, denoiser.vision, conditioning, scheduler)
        pipeline._clip = denoiser.processor
        pipeline._stage1 = codec, (representation, camera, splats)
        return pipeline

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> "Zero1ToGPipeline":
        """See diffusers. Raises UserError if the weights in a folder do not match its networks exactly."""
        folder = Path(pretrained_model_name_or_path)
        remedy = method_folder.REMEDY.format(folder=folder)
        kinds = _classes(folder) if folder.is_dir() else {}
        parts = {name: read_network(kinds[name], folder / name, remedy) for name in kinds.keys() - kwargs.keys()}
        pipeline: Zero1ToGPipeline = super().from_pretrained(pretrained_model_name_or_path, **parts, **kwargs)
        pipeline._exact = bool(parts)
        dtype = kwargs.get("torch_dtype")
        return pipeline.to(dtype) if isinstance(dtype, torch.dtype) else pipeline

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write diffusers' layout and the files of stage 1."""
        folder = Path(save_directory)
        codec, setup = self._first_stage()
        for network in (self.unet, self.vae):
            to_contiguous(network)
        hush_saving()
        super().save_pretrained(folder, **kwargs)
        for name in NETWORKS:
            forget_origin(folder / name)
        codec.save(folder)
        if (processor := self._clip_processor()) is not None:
            processor.save(folder / CLIP)
        method_folder.write(folder, *setup)

    def denoiser(self) -> ReferenceDenoiser:
        """The conditioned UNet, frozen."""
        parts = self.conditioning
        denoiser = ReferenceDenoiser(
            self.unet, self.vision_encoder, parts.prompt, parts.ramping, train_conditioning=False,
            processor=self._clip_processor(), clip_sample=bool(self.scheduler.config.get("clip_sample", False)),
        )  # fmt: skip
        denoiser.objective, denoiser.distilled_steps = parts.objective, parts.distilled_steps
        # Its constants are created on the CPU, whatever the device of the parts.
        return denoiser.to(self.device).requires_grad_(False).eval()

    def trained(self) -> Trained:
        """All networks, frozen, on the pipeline's device."""
        codec, _ = self._first_stage()
        return Trained(codec.for_inference(self.device), self.denoiser(), self.conditioning.statistics())

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Splats:
        """Sample with the pipeline's scheduler. images: [B,3,H,W] in 0..1 on gray 127, of the trained size.

        num_inference_steps, guidance_scale: by default 75 and 4, or those of a distilled UNet, which has no others.
        """
        own = self.conditioning.distilled_steps
        steps, guidance = (75, 4.0) if own is None else (own, 1.0)
        options = InferOptions(
            steps=steps if num_inference_steps is None else num_inference_steps,
            guidance=guidance if guidance_scale is None else guidance_scale,
            precision="fp32",
            cuda_graphs=False,
        )
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        trained, images = self.trained(), images.to(self.device)
        require_own_steps(trained.denoiser, options)
        codec, statistics = trained.codec, trained.statistics
        condition = trained.denoiser.condition(codec.condition_latent(images), images)
        codes = sample_codes(
            trained.denoiser, condition, statistics["zero_latent"], codec.code_shape, options,
            seeds or range(len(images)), scheduler,
        )  # fmt: skip
        codes = codes * statistics["deviation"] + statistics["mean"]
        return Splats(codes=codes, splats=codec.decode_all(codes))

    def _clip_processor(self) -> ImageProcessor | None:
        """The processor of the vision encoder's images, of the networks or of the folder that this was loaded from."""
        origin = self.config.get("_name_or_path")
        if self._clip is None and origin is not None:
            self._clip = ImageProcessor.of_folder(Path(origin), CLIP, method_folder.REMEDY.format(folder=origin))
        return self._clip

    def _first_stage(self) -> tuple[Codec, Setup]:
        if self._stage1 is None:
            folder = Path(self.config["_name_or_path"])
            if not self._exact:
                # diffusers loaded the weights by itself, which initializes missing tensors at random.
                for name, kind in _classes(folder).items():
                    require_files_fit(kind, folder / name, method_folder.REMEDY.format(folder=folder))
                    require_finite(getattr(self, name).state_dict(), folder / name)
            representation, camera, splats = method_folder.read(folder)
            codec = representation.load_codec(folder, camera, splats)
            self.register_modules(vae=codec.vae)
            self._stage1 = codec, (representation, camera, splats)
        return self._stage1


def _classes(folder: Path) -> dict[str, Any]:
    """Classes of the networks in a folder, by their names."""
    kinds: list[Any] = [AutoencoderKL, UNet2DConditionModel, encoder_class(folder / "vision_encoder"), Conditioning]
    return dict(zip(NETWORKS, kinds, strict=True))
