"""Adapters through peft, in the layouts that diffusers and peft load."""

from collections.abc import Sequence
from pathlib import Path

from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from z1g.core.errors import UserError
from z1g.networks.denoiser import Denoiser


def add(denoiser: Denoiser, rank: int, alpha: float, targets: Sequence[str]) -> None:
    """Freeze the denoiser and give its UNet adapters, which start as no change.

    targets: ends of the names of layers that get one. Raises UserError where no layer's name ends so.
    """
    denoiser.requires_grad_(False)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # any number works
        init_lora_weights="gaussian",
        target_modules=list(targets),
    )
    try:
        denoiser.unet.add_adapter(config)
    except ValueError as error:
        raise UserError(f"unet.finetune.targets {list(targets)}: {str(error).splitlines()[0]}") from error


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
