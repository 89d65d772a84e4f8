"""Sampling of networks that were distilled to a few steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from z1g.core.errors import UserError

if TYPE_CHECKING:
    from z1g.networks.denoiser import Denoiser
    from z1g.sampling.sample import SamplingOptions


def require_own_steps(denoiser: Denoiser, options: SamplingOptions) -> None:
    """Raise UserError unless a denoiser that was distilled is sampled in its own steps, without guidance."""
    own = denoiser.distilled_steps
    if own is not None and (options.steps != own or options.guidance != 1):
        raise UserError(
            f"the model was distilled to {own} step{'s' if own > 1 else ''} with guidance 1, but is to be sampled in "
            f"{options.steps} with guidance {options.guidance:g}: leave both out"
        )
