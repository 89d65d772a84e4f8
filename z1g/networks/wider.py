"""Networks for codes of more channels, which begin as networks that others were trained to be."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from z1g.core.seeding import seeded

SEED = 3
"""Of the weights that give new channels of a code something to say."""


def padded(weight: Tensor, rows: int | None = None, columns: int | None = None) -> Tensor:
    """A weight [O,I,...] or a bias [O] with zeros for further outputs, up to `rows`, and inputs, up to `columns`."""
    more_rows = 0 if rows is None else rows - weight.shape[0]
    more_columns = 0 if columns is None else columns - weight.shape[1]
    # functional.pad counts dimensions from the last one.
    padding = [0, 0] * (weight.ndim - 2) + ([0, more_columns] if weight.ndim > 1 else []) + [0, more_rows]
    return functional.pad(weight, padding)


def wider_unet(unet: UNet2DConditionModel, channels: int) -> UNet2DConditionModel:
    """A UNet for codes of more channels.

    It predicts for the first channels what the other one does, whatever the further ones are, and zeros for these.
    """
    state = dict(unet.state_dict())
    state["conv_in.weight"] = padded(state["conv_in.weight"], columns=channels)
    for name in ("conv_out.weight", "conv_out.bias"):
        state[name] = padded(state[name], rows=channels)
    wide: UNet2DConditionModel = resized(unet, state, in_channels=channels, out_channels=channels)
    return wide


def wider_autoencoder(vae: AutoencoderKL, channels: int) -> AutoencoderKL:
    """A VAE for codes of more channels.

    Its encoder gives in the first channels what the other one does, and in further ones random projections of its last
    features, as large as the first ones. Its decoder ignores further channels until training has found their weights.
    """
    own = int(vae.config["latent_channels"])
    state = dict(vae.state_dict())
    state["decoder.conv_in.weight"] = padded(state["decoder.conv_in.weight"], columns=channels)
    for name in ("encoder.conv_out.weight", "encoder.conv_out.bias"):
        state[name] = _halves(state[name], own, channels)
    for name, parts in (("quant_conv", 2), ("post_quant_conv", 1)):
        if f"{name}.weight" in state:
            state |= _pass_on(state, name, parts, own, channels)
    _project(state, own, channels)
    wide: AutoencoderKL = resized(vae, state, latent_channels=channels)
    return wide


def _halves(weight: Tensor, own: int, channels: int) -> Tensor:
    """`padded` outputs of means and of log variances, which follow each other."""
    mean, log_variance = weight[:own], weight[own:]
    return torch.cat([padded(mean, rows=channels), padded(log_variance, rows=channels)])


def _pass_on(state: dict[str, Tensor], name: str, parts: int, own: int, channels: int) -> dict[str, Tensor]:
    """Weights of a pointwise convolution between codes that passes new channels on, apart from the others.

    parts: how many blocks of channels its inputs and outputs have.
    """
    old = state[f"{name}.weight"]
    kept = torch.cat([torch.arange(own) + part * channels for part in range(parts)])
    weight = torch.eye(parts * channels, dtype=old.dtype)[:, :, None, None]
    weight[kept[:, None], kept[None, :]] = old
    bias = old.new_zeros(parts * channels)
    bias[kept] = state[f"{name}.bias"]
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def _project(state: dict[str, Tensor], own: int, channels: int) -> None:
    """Let new channels of the encoder's means be random projections, with weights as large as those of the others."""
    weight = state["encoder.conv_out.weight"]
    means = weight[:own]
    if "quant_conv.weight" in state:
        # What is seen of a channel is what the pointwise convolution makes of all of them.
        kept = torch.cat([torch.arange(own), torch.arange(own) + channels])
        means = torch.einsum("om,mikl->oikl", state["quant_conv.weight"][:own, kept, 0, 0], weight[kept])
    with seeded(SEED):
        new = torch.randn(channels - own, *weight.shape[1:]).to(weight.dtype)
    size = means.flatten(1).norm(dim=1).mean() / new.flatten(1).norm(dim=1)
    weight[own:channels] = new * size[:, None, None, None]


def own_options(network: Any) -> dict[str, Any]:
    """The options of a network of diffusers, by which another one can be made."""
    # Those that start with an underscore name the options that had their default, which diffusers would restore.
    return {name: value for name, value in network.config.items() if not name.startswith("_")}


def resized(network: Any, state: dict[str, Tensor], **sizes: int) -> Any:
    """A trainable network of other sizes with copies of these weights."""
    with torch.device("meta"):
        made = type(network).from_config({**own_options(network), **sizes})
    made.load_state_dict({name: value.detach().clone() for name, value in state.items()}, assign=True)
    return made.requires_grad_(True)
