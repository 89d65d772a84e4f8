"""A folder in Zero123++'s published layout, with tiny random weights."""

import json
from pathlib import Path

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from support.builders import SIZES
from z1g.networks.weights.scratch import Scratch

TOKENS = 7
RAMP = [i / (TOKENS - 1) for i in range(TOKENS)]
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
        "_class_name": "EulerAncestralDiscreteScheduler", "num_train_timesteps": 1000,
        "prediction_type": "v_prediction", "beta_schedule": "linear", "steps_offset": 1, "clip_sample": False,
    }  # fmt: skip
    extractor = {"do_normalize": True, "do_resize": True, "image_processor_type": "CLIPImageProcessor"}
    for name, content in {
        "model_index.json": index,
        "scheduler/scheduler_config.json": scheduler,
        "feature_extractor_clip/preprocessor_config.json": extractor,
        "feature_extractor_vae/preprocessor_config.json": extractor,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
