"""A folder in Zero123++'s published layout, with tiny random weights.

Its settings are those of the public files, except for sizes: a condition that is larger than the given image.
"""

import json
from pathlib import Path

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from support.builders import SIZES
from z1g.networks.weights.scratch import Scratch

TOKENS = 7
RAMP = [i / (TOKENS - 1) for i in range(TOKENS)]
VAE_SIDE = 48
"""Side of the image whose latent is the condition; 512 in the public files. Torch draws the latents' noise in blocks of
16 numbers, so that all steps at once are the same as one by one only if 16 divides their number."""
START, END = "<|startoftext|>", "<|endoftext|>"


def text_encoder() -> CLIPTextModel:
    torch.manual_seed(5)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=4,
            hidden_size=16,
            intermediate_size=32,
            projection_dim=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            bos_token_id=2,
            eos_token_id=3,
            pad_token_id=3,
        )
    )


def write_tokenizer(folder: Path) -> None:
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({"a": 0, "a</w>": 1, START: 2, END: 3}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TOKENS,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def write_published(folder: Path) -> None:
    """Write all parts; the VAE halves the image three times, as Stable Diffusion's does."""
    levels = {**SIZES["autoencoder_size"], "channels": [8, 8, 8, 8]}
    parts = Scratch(init_seed=3, **{**SIZES, "autoencoder_size": levels})
    denoiser = parts.denoiser()
    with torch.no_grad():
        denoiser.unet.conv_out.weight.add_(0.1)
    parts.autoencoder().save_pretrained(folder / "vae")
    denoiser.unet.save_pretrained(folder / "unet")
    denoiser.vision.save_pretrained(folder / "vision_encoder")
    text_encoder().save_pretrained(folder / "text_encoder")
    write_tokenizer(folder / "tokenizer")
    write_settings(folder)


def write_settings(folder: Path) -> None:
    """Write the index, the scheduler and two feature extractors."""
    index = {
        "_class_name": "Zero123PlusPipeline",
        "_diffusers_version": "0.17.1",
        "feature_extractor_clip": ["transformers", "CLIPImageProcessor"],
        "feature_extractor_vae": ["transformers", "CLIPImageProcessor"],
        "ramping_coefficients": RAMP,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "vision_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    }
    scheduler = {
        "_class_name": "EulerAncestralDiscreteScheduler", "_diffusers_version": "0.17.1", "beta_end": 0.012,
        "beta_schedule": "linear", "beta_start": 0.00085, "clip_sample": False, "num_train_timesteps": 1000,
        "prediction_type": "v_prediction", "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
        "timestep_spacing": "trailing", "trained_betas": None, "use_karras_sigmas": False,
    }  # fmt: skip
    crop = {"crop_size": {"height": SIZES["vision_size"]["image_size"], "width": SIZES["vision_size"]["image_size"]}}
    shared = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_processor_type": "CLIPImageProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        **crop,
    }
    vae = {
        **shared,
        "do_center_crop": False,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.8, 0.8, 0.8],
        "size": {"shortest_edge": VAE_SIDE},
    }
    clip = {
        **shared,
        "do_center_crop": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "size": {"shortest_edge": crop["crop_size"]["height"]},
    }
    for name, content in {
        "model_index.json": index,
        "scheduler/scheduler_config.json": scheduler,
        "feature_extractor_clip/preprocessor_config.json": clip,
        "feature_extractor_vae/preprocessor_config.json": vae,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
