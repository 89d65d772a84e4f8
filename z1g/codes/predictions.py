"""Codes that the diffusion UNet predicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor

from z1g.core.device import default_device
from z1g.core.files import atomic_file
from z1g.core.progress import track
from z1g.core.seeding import keyed_normal
from z1g.data.manifest import int_hash
from z1g.data.scenes import SceneStore, chunk_file
from z1g.networks.denoiser import Condition, Denoiser
from z1g.representations.mosaic.stage1 import Stage1, code_shape
from z1g.sampling.sample import sample_codes
from z1g.sampling.samplers.ddpm import Ddpm

if TYPE_CHECKING:
    from z1g.codes.diffusion import DiffusionCodes
    from z1g.config.tree import Experiment
    from z1g.sampling.options import InferOptions

BATCH = 8
"""Objects predicted at once; also objects a file."""
CODE_NOISE, CONDITION_NOISE = 0, 1


def one_step(
    denoiser: Denoiser, code: Tensor, timestep: Tensor, condition: Condition, noise: Tensor, condition_noise: Tensor
) -> Tensor:
    """The clean codes [B,C,h,w] that the UNet sees in codes noised to timesteps [B] with `noise`."""
    noisy = denoiser.schedule.add_noise(code, noise, timestep)
    velocity = denoiser(noisy, timestep, condition, condition_noise)
    return denoiser.schedule.x0_from_v(noisy, velocity.float(), timestep)


def predict_all(source: DiffusionCodes, config: Experiment, stage1: Stage1, scenes: SceneStore, folder: Path) -> None:
    """Write the codes of all objects, a file for every few of them; what is there already stays.

    Ranks share the files and leave together.
    """
    state = PartialState()
    batches = [scenes.ids[first : first + BATCH] for first in range(0, len(scenes.ids), BATCH)]
    mine = range(state.process_index, len(batches), state.num_processes)
    missing = [i for i in mine if not chunk_file(folder, i, "safetensors").is_file()]
    if missing:
        stage1.to(default_device())
        predictor = Predictor(source, config, stage1, config.model.denoiser().to(default_device()).eval())
        folder.mkdir(parents=True, exist_ok=True)
        for i in track(missing, "codes from diffusion", len(missing)):
            codes = predictor(scenes, batches[i]).cpu()
            with atomic_file(chunk_file(folder, i, "safetensors")) as temporary:
                save_file({name: code.contiguous() for name, code in zip(batches[i], codes, strict=True)}, temporary)
    state.wait_for_everyone()


def predicted(folder: Path) -> dict[str, Tensor]:
    """What `predict_all` wrote, by object id."""
    return {name: code for file in sorted(folder.glob("chunk-*.safetensors")) for name, code in load_file(file).items()}


class Predictor:
    """Codes of objects from their condition images."""

    def __init__(self, source: DiffusionCodes, config: Experiment, stage1: Stage1, denoiser: Denoiser) -> None:
        self.source, self.config, self.stage1, self.denoiser = source, config, stage1, denoiser
        self.shape = code_shape(config, stage1.vae)

    @torch.no_grad()
    def __call__(self, scenes: SceneStore, names: list[str]) -> Tensor:
        """Codes [B,C,h,w]; each depends on its own object only."""
        size, encoder = self.config.unet.condition_size, self.stage1.encoder
        images = torch.stack([scenes[name].condition(size) for name in names]).to(default_device())
        condition = self.denoiser.condition(encoder.condition_latent(images), images)
        if self.source.timestep is None:
            zero = encoder.condition_latent(torch.full_like(images[:1], 0.5))
            return sample_codes(self.denoiser, condition, zero, self.shape, self._options(), list(map(int_hash, names)))
        sheets = torch.stack([scenes[name].input_sheet(self.config.autodecoder.input_size) for name in names])
        code = encoder.sheet_code(sheets.to(default_device()), None)
        timestep = torch.full((len(names),), self.source.timestep, device=code.device)
        noise = self._noise(names, self.shape, CODE_NOISE)
        latent_noise = self._noise(names, tuple(condition.latent.shape[1:]), CONDITION_NOISE)
        return one_step(self.denoiser, code, timestep, condition, noise, latent_noise)

    def _options(self) -> InferOptions:
        from z1g.sampling.options import InferOptions

        source = self.source
        return InferOptions(sampler=Ddpm(), steps=source.steps, guidance=source.guidance, seed=source.seed)

    def _noise(self, names: list[str], shape: tuple[int, ...], purpose: int) -> Tensor:
        keys = torch.tensor([[self.source.seed, int_hash(name), purpose] for name in names], device=default_device())
        return keyed_normal(keys, shape)
