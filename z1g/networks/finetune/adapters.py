"""LoRA adapters of peft, in the file formats of diffusers and peft."""

from collections.abc import Sequence
from pathlib import Path

from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from z1g.core.errors import UserError
from z1g.core.seeding import seeded
from z1g.networks.denoiser import Denoiser

SEED = 4
"""Of the initial weights of adapters."""


def add(denoiser: Denoiser, rank: int, alpha: float, targets: Sequence[str]) -> None:
    """Freeze the denoiser but for its new layers, and add adapters to its UNet, which do not yet change its output.

    Their initial weights are those of a fixed seed. targets: suffixes of the names of layers with an adapter.
    Raises UserError if no layer matches.
    """
    denoiser.requires_grad_(False)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # floats work too
        init_lora_weights="gaussian",
        target_modules=list(targets),
    )
    try:
        with seeded(SEED):
            denoiser.unet.add_adapter(config)
    except ValueError as error:
        raise UserError(f"unet.finetune.targets {list(targets)}: {str(error).splitlines()[0]}") from error
    for name in denoiser.new_layers:
        denoiser.get_submodule(name).requires_grad_(True)


def save(denoiser: Denoiser, folder: Path) -> None:
    """Write `pytorch_lora_weights.safetensors` for diffusers' `load_lora_weights`, and an adapter of peft."""
    weights = {name: value.detach().cpu() for name, value in get_peft_model_state_dict(denoiser.unet).items()}
    config = denoiser.unet.peft_config["default"]
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=weights, unet_lora_adapter_metadata=config.to_dict()
    )
    config.save_pretrained(folder)
    named = {f"base_model.model.{name}": value.contiguous() for name, value in weights.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def merge(denoiser: Denoiser) -> None:
    """Merge the adapters into the weights and remove them."""
    denoiser.unet.fuse_lora()
    denoiser.unet.unload_lora()
