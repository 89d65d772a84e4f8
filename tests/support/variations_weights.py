"""A folder in the published layout of Stable Diffusion Image Variations, with tiny random weights.

Its settings are those of the public files, except for sizes.
"""

import json
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from support.builders import SIZES
from z1g.core.seeding import seeded
from z1g.networks.weights.scratch import Scratch

WIDTH, SIDE = 16, 16
"""Channels of the image's embedding, and side of the image that is embedded."""


def write_variations(folder: Path) -> None:
    """Write all parts; the VAE halves the image three times, as Stable Diffusion's does."""
    levels = {**SIZES["autoencoder_size"], "channels": [8, 8, 8, 8]}
    Scratch(init_seed=3, **{**SIZES, "autoencoder_size": levels}).autoencoder().save_pretrained(folder / "vae")
    with seeded(4):
        # `attention_head_dim` is the number of heads in Stable Diffusion 1, and projections are convolutions.
        unet = UNet2DConditionModel(
            sample_size=2, block_out_channels=(16, 32), layers_per_block=1, attention_head_dim=2, norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=WIDTH,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
        config = CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, projection_dim=WIDTH, num_hidden_layers=1, num_attention_heads=2,
            image_size=SIDE, patch_size=8,
        )  # fmt: skip
        vision = CLIPVisionModelWithProjection(config)
    unet.save_pretrained(folder / "unet")
    vision.save_pretrained(folder / "image_encoder")
    (folder / "safety_checker").mkdir()
    for name, content in settings().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def settings() -> dict[str, dict[str, object]]:
    """Files with settings, by name."""
    return {
        "model_index.json": {
            "_class_name": "StableDiffusionImageVariationPipeline",
            "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
            "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
        },
        "feature_extractor/preprocessor_config.json": {
            "crop_size": SIDE, "do_center_crop": True, "do_normalize": True, "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3, "size": SIDE,
            "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
    }  # fmt: skip


def half_pickled(folder: Path) -> None:
    """Rewrite all weights as older files: pickles in half precision."""
    for part, stem, old in (
        ("vae", "diffusion_pytorch_model", "diffusion_pytorch_model"),
        ("unet", "diffusion_pytorch_model", "diffusion_pytorch_model"),
        ("image_encoder", "model", "pytorch_model"),
    ):
        file = folder / part / f"{stem}.safetensors"
        torch.save({name: value.half() for name, value in load_file(file).items()}, folder / part / f"{old}.bin")
        file.unlink()
