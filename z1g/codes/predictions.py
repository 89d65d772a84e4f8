"""Codes that the denoiser predicts from condition images."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from torch import Tensor

from z1g.codes.inputs import encoder_inputs
from z1g.core.device import default_device
from z1g.core.errors import UserError
from z1g.core.files import atomic_file
from z1g.core.progress import track
from z1g.core.recorded import damaged
from z1g.core.sealed import Damaged
from z1g.core.seeding import keyed_normal
from z1g.data.condition_form import ConditionForm
from z1g.data.manifest import int_hash
from z1g.data.scenes import SceneStore, chunk_file
from z1g.data.sealed_tensors import load_sealed, save_sealed
from z1g.networks.denoiser import Condition, Denoiser
from z1g.representations.codec import Codec
from z1g.sampling.options import InferOptions
from z1g.sampling.sample import sample_codes
from z1g.sampling.samplers.ddpm import Ddpm

log = logging.getLogger("z1g")
BATCH = 8
"""Objects per batch and per file."""
CODE_NOISE, CONDITION_NOISE = 0, 1


@dataclass(frozen=True)
class Prediction:
    """Options of prediction: in one step from a code noised to `timestep`, or sampled in `steps` if it is None."""

    timestep: int | None
    steps: int
    guidance: float
    seed: int
    condition: ConditionForm


def one_step(
    denoiser: Denoiser, code: Tensor, timestep: Tensor, condition: Condition, noise: Tensor, condition_noise: Tensor
) -> Tensor:
    """Clean codes [B,*code_shape] that the denoiser predicts from codes noised to timesteps [B] with `noise`.

    Codes are in the decoder's units, noise is in those of the denoiser. Raises UserError if it does not denoise.
    """
    if denoiser.objective == "regression":
        raise UserError(
            "the model was trained by regression and does not denoise codes: start from another model, or leave out "
            "autodecoder.mix_diffusion and the timestep of autodecoder.codes"
        )
    _require_any_step(denoiser)
    noisy = denoiser.schedule.add_noise(denoiser.normalized(code), noise, timestep)
    velocity = denoiser(noisy, timestep, condition, condition_noise)
    return denoiser.in_units(denoiser.schedule.x0_from_v(noisy, velocity.float(), timestep))


def _require_any_step(denoiser: Denoiser) -> None:
    """Raise UserError for a denoiser that knows a few timesteps only."""
    if denoiser.distilled_steps is not None:
        raise UserError(
            f"the model was distilled to {denoiser.distilled_steps} steps and knows no other timesteps: start from "
            "another model, or leave out autodecoder.mix_diffusion and autodecoder.codes of kind 'diffusion'"
        )


def predict_all(
    how: Prediction, codec: Codec, denoiser: Callable[[], Denoiser], scenes: SceneStore, folder: Path
) -> None:
    """Write the codes of all objects, `BATCH` objects per file; existing files are kept unless they are damaged.

    The files are divided among the ranks, which synchronize at the end.
    """
    state = PartialState()
    batches = [scenes.ids[first : first + BATCH] for first in range(0, len(scenes.ids), BATCH)]
    mine = range(state.process_index, len(batches), state.num_processes)
    missing = [i for i in mine if not _is_whole(chunk_file(folder, i, "safetensors"))]
    if missing:
        codec.for_inference(default_device())
        predictor = Predictor(how, codec, denoiser().to(default_device()).eval())
        folder.mkdir(parents=True, exist_ok=True)
        for i in track(missing, "codes from diffusion", len(missing)):
            codes = predictor(scenes, batches[i]).cpu()
            with atomic_file(chunk_file(folder, i, "safetensors")) as temporary:
                named = {name: code.contiguous() for name, code in zip(batches[i], codes, strict=True)}
                save_sealed(named, temporary, _owner(chunk_file(folder, i, "safetensors")))
    state.wait_for_everyone()


def predicted(folder: Path) -> dict[str, Tensor]:
    """Codes that `predict_all` wrote, by object id. Raises UserError if a file is damaged."""
    codes: dict[str, Tensor] = {}
    for file in sorted(folder.glob("chunk-*.safetensors")):
        try:
            codes |= load_sealed(file, _owner(file))
        except (OSError, SafetensorError, Damaged) as error:
            raise damaged(file, str(error)) from error
    return codes


def _owner(file: Path) -> str:
    """What the checksum of a file covers besides its codes: the stage folder and the file."""
    return "/".join(file.resolve().parts[-3:])


def _is_whole(file: Path) -> bool:
    """Whether a file exists and is as it was written."""
    if not file.is_file():
        return False
    try:
        load_sealed(file, _owner(file))
    except (OSError, SafetensorError, Damaged) as error:
        log.warning("%s cannot be read (%s) and is computed again", file, error)
        return False
    return True


class Predictor:
    """Predicts codes of objects from their condition images."""

    def __init__(self, how: Prediction, codec: Codec, denoiser: Denoiser) -> None:
        self.how, self.codec, self.denoiser = how, codec, denoiser

    @torch.no_grad()
    def __call__(self, scenes: SceneStore, names: list[str]) -> Tensor:
        """Codes [B,*code_shape]; each depends on its object only."""
        how, codec, device = self.how, self.codec, default_device()
        _require_any_step(self.denoiser)
        images = torch.stack([scenes[name].condition(*how.condition) for name in names]).to(device)
        condition = self.denoiser.condition(codec.condition_latent(images), images)
        if how.timestep is None:
            zero = codec.zero_latent(how.condition.size, device)
            options = InferOptions(sampler=Ddpm(), steps=how.steps, guidance=how.guidance, seed=how.seed)
            keys = list(map(int_hash, names))
            sampled = sample_codes(self.denoiser, condition, zero, codec.code_shape, options, keys)
            return self.denoiser.in_units(sampled)
        code = codec.encode(encoder_inputs(codec, scenes, names).to(device))
        timestep = torch.full((len(names),), how.timestep, device=code.device)
        noise = self._noise(names, codec.code_shape, CODE_NOISE)
        latent_noise = self._noise(names, tuple(condition.latent.shape[1:]), CONDITION_NOISE)
        return one_step(self.denoiser, code, timestep, condition, noise, latent_noise)

    def _noise(self, names: list[str], shape: tuple[int, ...], purpose: int) -> Tensor:
        keys = torch.tensor([[self.how.seed, int_hash(name), purpose] for name in names], device=default_device())
        return keyed_normal(keys, shape)
