"""Tensors of the pipeline that are not networks: prompt, ramping and statistics of codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.networks.diffusion import TIMESTEPS
from z1g.networks.process import Objective


def own_steps(stored: Any) -> int | None:
    """`Denoiser.distilled_steps` as it was stored. Raises UserError if it is something else."""
    if stored is None or (type(stored) is int and 1 <= stored <= TIMESTEPS):
        return stored
    raise UserError(f"the networks were distilled to {stored!r} steps, which are none: write the model again")


def stored_code(folder: Path) -> tuple[int, ...] | None:
    """The shape [C,h,w] of codes for which the networks of a method's folder were trained; None if it has none."""
    try:
        values = read_json(folder / "conditioning" / "config.json")
        code = values["code"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return tuple(code) if isinstance(code, list) else None


class Conditioning(ModelMixin, ConfigMixin):
    """Tensors of the pipeline that diffusers saves and loads like a network.

    prompt [T,D], ramping [T]: see `ReferenceDenoiser`. zero_latent [1,C,h,w]: the latent of the zero image. mean,
    deviation [C,1,1]: the decoder takes a sampled code times deviation plus mean.
    """

    prompt: Tensor
    ramping: Tensor
    zero_latent: Tensor
    mean: Tensor
    deviation: Tensor

    @register_to_config
    def __init__(
        self, tokens: int, width: int, latent: tuple[int, int, int], code: tuple[int, int, int],
        objective: Objective = "diffusion", distilled_steps: int | None = None,
    ) -> None:  # fmt: skip
        """latent: shape [C,h,w] of a condition's latent. code: shape [C,h,w] of a code. Others: see `Denoiser`."""
        super().__init__()
        self.register_buffer("prompt", torch.zeros(tokens, width))
        self.register_buffer("ramping", torch.zeros(tokens))
        self.register_buffer("zero_latent", torch.zeros(1, *latent))
        self.register_buffer("mean", torch.zeros(code[0], 1, 1))
        self.register_buffer("deviation", torch.ones(code[0], 1, 1))

    @classmethod
    def of(
        cls, prompt: Tensor, ramping: Tensor, statistics: dict[str, Tensor], code: tuple[int, int, int],
        objective: Objective = "diffusion", distilled_steps: int | None = None,
    ) -> Conditioning:  # fmt: skip
        """Build from tensors; `statistics` has `mean`, `deviation` and `zero_latent`."""
        zero: Any = tuple(statistics["zero_latent"].shape[1:])
        conditioning: Conditioning = cls(len(prompt), prompt.shape[1], zero, code, objective, distilled_steps)
        with torch.no_grad():
            for name, value in {"prompt": prompt, "ramping": ramping, **statistics}.items():
                getattr(conditioning, name).copy_(value)
        return conditioning

    @property
    def objective(self) -> Objective:
        """See `Denoiser.objective`. Raises UserError if the configuration has another one than those of z1g."""
        objective: Objective = self.config.get("objective", "diffusion")
        if objective not in get_args(Objective):
            raise UserError(
                f"the networks were trained by {objective!r}, which this version does not know: write the model again"
            )
        return objective

    @property
    def distilled_steps(self) -> int | None:
        """See `Denoiser.distilled_steps`. Raises UserError if the configuration has something else."""
        return own_steps(self.config.get("distilled_steps"))

    def statistics(self) -> dict[str, Tensor]:
        """`mean`, `deviation` and `zero_latent`."""
        return {"mean": self.mean, "deviation": self.deviation, "zero_latent": self.zero_latent}
