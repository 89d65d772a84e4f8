"""Adapters through peft, in the layouts that diffusers and peft load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from z1g.core.errors import UserError
from z1g.networks.denoiser import Denoiser

if TYPE_CHECKING:
    from z1g.networks.finetune.lora import Lora


def add(denoiser: Denoiser, options: Lora) -> None:
    """Freeze the denoiser and give its UNet adapters, which start as no change.

    Raises UserError where no layer's name ends like one of the targets.
    """
    denoiser.requires_grad_(False)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha or options.rank,  # type: ignore[arg-type]  # any number works
        init_lora_weights="gaussian",
        target_modules=list(options.targets),
    )
    try:
        denoiser.unet.add_adapter(config)
    except ValueError as error:
        raise UserError(f"unet.finetune.targets {list(options.targets)}: {str(error).splitlines()[0]}") from error


def save(denoiser: Denoiser, folder: Path) -> None:
    """Write `pytorch_lora_weights.safetensors` for diffusers' `load_lora_weights`, and an adapter for peft."""
    weights = {name: value.detach().cpu() for name, value in get_peft_model_state_dict(denoiser.unet).items()}
    about = denoiser.unet.peft_config["default"]
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=weights, unet_lora_adapter_metadata=about.to_dict()
    )
    about.save_pretrained(folder)
    named = {f"base_model.model.{name}": value.contiguous() for name, value in weights.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def merge(denoiser: Denoiser) -> None:
    """Add the adapters to the weights they change, and remove them."""
    denoiser.unet.fuse_lora()
    denoiser.unet.unload_lora()
