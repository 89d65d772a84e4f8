"""Build, save and load the networks of both stages."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.networks.conditioning import Conditioning
from z1g.networks.fused.modules import to_contiguous
from z1g.networks.multiview.inputs import with_inputs
from z1g.networks.preprocessing import CLIP
from z1g.networks.process import Process
from z1g.networks.reference_denoiser import ReferenceDenoiser
from z1g.networks.stored import forget_origin, hush_saving
from z1g.networks.weights import method_networks
from z1g.representations import folder as method_folder
from z1g.representations.base import Representation
from z1g.representations.codec import Trained
from z1g.representations.folder import REMEDY
from z1g.representations.joint.denoiser import MORE, JointDenoiser, places
from z1g.sampling.samplers.ddim import Ddim
from z1g.sampling.samplers.ddpm import Ddpm


def started(start: ReferenceDenoiser, process: Process, camera: CameraOptions, side: int) -> JointDenoiser:
    """The denoiser before stage 2, from the networks of a model; side: that of a latent.

    The weights of channels that the model's UNet does not have are zero.
    """
    channels = int(start.unet.config["out_channels"]) + MORE
    grows = start.unet.config["in_channels"] != channels
    denoiser = JointDenoiser(
        with_inputs(start.unet, channels) if grows else start.unet,
        start.vision, start.prompt.detach(), start.ramping, start.train_conditioning, start.processor,
        start.clip_sample, process=process, places=places(camera, side),
    )  # fmt: skip
    denoiser.code_statistics, denoiser.objective = start.code_statistics, start.objective
    denoiser.distilled_steps = start.distilled_steps
    denoiser.new_layers = ("unet.conv_in",) if grows else ()
    return denoiser


def save(
    folder: Path, representation: Representation, trained: Trained, camera: CameraOptions, splats: SplatOptions
) -> None:  # fmt: skip
    """Write all networks in diffusers' layout, and `stage1.json`."""
    codec, denoiser, statistics = trained.codec, trained.denoiser, dict(trained.statistics)
    for name in ("mean", "deviation"):
        # [1,C,1,1], as a code has views before its channels.
        statistics[name] = statistics[name].reshape(-1, 1, 1)
    conditioning = Conditioning.of(
        denoiser.prompt, denoiser.ramping, statistics, codec.code_shape[1:], denoiser.objective,
        denoiser.distilled_steps,
    )  # fmt: skip
    codec.save(folder)
    to_contiguous(denoiser.unet)
    networks: dict[str, Any] = {
        "unet": denoiser.unet, "vision_encoder": denoiser.vision, "conditioning": conditioning,
    }  # fmt: skip
    hush_saving()
    for name, network in networks.items():
        network.save_pretrained(folder / name)
        forget_origin(folder / name)
    sampler = Ddpm(clip_sample="checkpoint") if denoiser.distilled_steps is None else Ddim()
    scheduler = sampler.scheduler(denoiser.clip_sample, denoiser.schedule.process)
    scheduler.save_pretrained(folder / "scheduler")
    if denoiser.processor is not None:
        denoiser.processor.save(folder / CLIP)
    method_folder.write(folder, representation, camera, splats)


def load(
    folder: Path, representation: Representation, process: Process, camera: CameraOptions, splats: SplatOptions,
    device: torch.device,
) -> Trained:  # fmt: skip
    """Inverse of `save`, or the same in int8, frozen, on a device. Raises UserError if files are missing or misfit."""
    codec = representation.load_codec(folder, camera, splats).for_inference(device)
    remedy = REMEDY.format(folder=folder)
    parts = method_networks.conditioning(folder, remedy)
    make = partial(JointDenoiser, process=process, places=places(camera, codec.code_shape[-1]))
    denoiser = method_networks.prompted(make, folder, parts, train_conditioning=False, remedy=remedy)
    return Trained(codec, denoiser.to(device).requires_grad_(False).eval(), parts.to(device).statistics())
