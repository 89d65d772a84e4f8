"""The attributes' networks on disk."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.files import read_json, write_json
from z1g.core.weights import load_exactly
from z1g.geometry.camera import N_INPUTS, CameraOptions
from z1g.networks import int8
from z1g.networks.conditioning import own_steps
from z1g.networks.fused.modules import to_contiguous
from z1g.networks.preprocessing import CLIP, ImageProcessor
from z1g.networks.process import Objective
from z1g.networks.stored import UNREADABLE, first_line, forget_origin, hush_saving, require_configuration
from z1g.networks.vision.stored import read_encoder
from z1g.representations.attributes.denoiser import AttributeDenoiser, connect
from z1g.representations.attributes.denoiser_options import AttributeDenoiserOptions
from z1g.representations.attributes.mappings import Mappings
from z1g.representations.codec import Trained
from z1g.representations.folder import REMEDY

STATISTICS, LEARNED = "statistics.safetensors", "denoiser.json"
UNET_WEIGHTS = "diffusion_pytorch_model.safetensors"


def save(folder: Path, trained: Trained) -> AttributeDenoiserOptions:
    """Write all networks and the statistics of codes; returns the options of the denoiser."""
    denoiser = trained.denoiser
    if not isinstance(denoiser, AttributeDenoiser):
        raise TypeError(f"a {type(denoiser).__name__} is not a denoiser of attributes")
    trained.codec.save(folder)
    to_contiguous(denoiser.unet)
    hush_saving()
    denoiser.unet.save_pretrained(folder / "unet", max_shard_size="100GB")
    denoiser.vision.save_pretrained(folder / "vision_encoder")
    for part in ("unet", "vision_encoder"):
        forget_origin(folder / part)
    if denoiser.processor is not None:
        denoiser.processor.save(folder / CLIP)
    save_file({name: value.cpu().contiguous() for name, value in trained.statistics.items()}, folder / STATISTICS)
    own = {} if denoiser.distilled_steps is None else {"distilled_steps": denoiser.distilled_steps}
    write_json(folder / LEARNED, {"objective": denoiser.objective, **own})
    return denoiser.options


def denoiser(
    folder: Path, mappings: Mappings, options: AttributeDenoiserOptions, camera: CameraOptions, train_vision: bool
) -> AttributeDenoiser:
    """The denoiser that `save` wrote, with the statistics of the codes that it was trained on. Raises UserError."""
    remedy = REMEDY.format(folder=folder)
    network = AttributeDenoiser(
        _unet(folder / "unet", mappings, options, remedy),
        read_encoder(folder / "vision_encoder", remedy),
        mappings,
        options,
        camera,
        train_vision,
        ImageProcessor.of_folder(folder, CLIP, remedy),
    )
    stored = statistics(folder)
    network.code_statistics = stored["mean"], stored["deviation"]
    network.objective, network.distilled_steps = _learned(folder / LEARNED, remedy)
    return network


def statistics(folder: Path) -> dict[str, Tensor]:
    """`mean` and `deviation` of codes, and `zero_latent`. Raises UserError if they are missing."""
    file, remedy = folder / STATISTICS, REMEDY.format(folder=folder)
    try:
        tensors = int8.load_restored(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read: {first_line(error)}. {remedy}") from error
    if missing := [name for name in ("mean", "deviation", "zero_latent") if name not in tensors]:
        raise UserError(f"{file} lacks {', '.join(missing)}. {remedy}")
    return tensors


def _unet(folder: Path, mappings: Mappings, options: AttributeDenoiserOptions, remedy: str) -> UNet2DConditionModel:
    """A UNet with the layers that diffusers does not know. Raises UserError unless all of its tensors are there."""
    require_configuration(folder, remedy)
    try:
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder))
            connect(unet, mappings, options, N_INPUTS)
        state = int8.load_restored(folder / UNET_WEIGHTS)
    except UNREADABLE as error:
        raise UserError(f"{folder} cannot be read as the UNet of attributes: {first_line(error)}. {remedy}") from error
    load_exactly(unet, state, folder, assign=True, remedy=remedy)
    return unet.eval()


def _learned(file: Path, remedy: str) -> tuple[Objective, int | None]:
    """What a denoiser was trained for, and in how many steps it is to be sampled, see `Denoiser`."""
    try:
        values = read_json(file)
        objective: Objective = values["objective"]
        steps = values.get("distilled_steps")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} cannot be read: {error}. {remedy}") from error
    if objective not in get_args(Objective):
        raise UserError(f"{file}: this version does not know the objective {objective!r}. {remedy}")
    return objective, own_steps(steps)
