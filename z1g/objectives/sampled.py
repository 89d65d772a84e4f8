"""Validation of stage 2: codes sampled from condition images, decoded, rendered and compared with validation views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from z1g.core.device import default_device
from z1g.data.manifest import int_hash
from z1g.data.scenes import SceneStore
from z1g.gaussians.channels import to_gaussians
from z1g.geometry.camera import Cameras
from z1g.losses import Comparison
from z1g.networks.denoiser import Condition, Denoiser
from z1g.objectives.diffusion import DiffusionData
from z1g.objectives.samples import images
from z1g.objectives.validation import ValidationObjects
from z1g.representations.codec import Codec
from z1g.sampling.options import InferOptions
from z1g.sampling.sample import sample_codes
from z1g.sampling.samplers.ddim import Ddim
from z1g.training.data import Batch

if TYPE_CHECKING:
    from z1g.config.tree import Experiment

OBJECTS = 8
SAMPLING = InferOptions(sampler=Ddim(), steps=10, guidance=1.0, seed=0)
"""The same for all runs, whatever they infer with. Guidance would need samples trained without condition."""


class SampledValidation:
    """Samples the first training objects from their condition images and measures views that training never sees."""

    def __init__(
        self, config: Experiment, codec: Codec, denoiser: Denoiser, data: DiffusionData, scenes: SceneStore,
        ids: Sequence[str], statistics: tuple[Tensor, Tensor],
    ) -> None:  # fmt: skip
        """config: that of stage 1. codec: frozen, on the device. statistics: mean and deviation of normalized codes."""
        self.config, self.codec, self.denoiser, self.data = config, codec, denoiser, data
        self.mean, self.deviation = statistics
        self.objects = ValidationObjects(config, scenes, ids[:OBJECTS])

    def __call__(self) -> dict[str, float]:
        """`validation_psnr`, dB: mean over objects of the mean over their validation views."""
        values = [prediction.psnr() for prediction in self.objects.predictions(self._predict, default_device())]
        return {"validation_psnr": sum(values) / len(values)}

    def _predict(self, batch: Batch) -> Comparison:
        batch = images(batch, self.codec.inputs, None)
        background = batch["background"][:, None]
        splats = self.codec.decode(self._codes(batch["object_index"])).float()
        side = batch["rgb"].shape[-1]
        cameras = Cameras(batch["c2w"], self.config.camera.fov_y_deg, side, side)
        output = self.config.render.render(to_gaussians(splats), cameras)
        truth = batch["rgb"] + (1 - batch["alpha"]) * background
        return Comparison(rgb=output.over(background), rgb_true=truth, splats=splats)

    def _codes(self, index: Tensor) -> Tensor:
        """Sampled codes [B,*code_shape] of the objects at positions [B], in the decoder's units."""
        device, rows = index.device, index.cpu()
        embeddings, condition_images = self.data.embeddings, self.data.images
        if embeddings is not None:
            embedding = embeddings[rows].to(device)
        elif condition_images is not None:
            embedding = self.denoiser.embed(condition_images[rows].to(device))
        else:
            raise ValueError("neither embeddings nor images of the objects are given")
        condition = Condition(self.data.latents[rows].to(device), embedding)
        seeds = [int_hash(self.objects.names[i]) for i in rows.tolist()]
        shape = tuple(self.data.codes.shape[1:])
        codes = sample_codes(self.denoiser, condition, self.data.zero_latent, shape, SAMPLING, seeds)
        return torch.addcmul(self.mean.to(device), codes.float(), self.deviation.to(device))
