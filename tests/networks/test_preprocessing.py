"""Condition images of published weights: what `preprocessor_config.json` says, as transformers and Pillow do it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from support.builders import SIZES
from support.paths import CONFIGS
from support.published_weights import VAE_SIDE
from torch import Tensor

from z1g.config.catalog import load_ablation
from z1g.config.preflight import preflight
from z1g.core.errors import UserError
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.networks.preprocessing import CLIP, FILE, VAE, ImageProcessor
from z1g.networks.weights.layout import clips
from z1g.networks.weights.zero123plus import Zero123Plus
from z1g.representations import Mosaic

Processor = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
SIDE = 32
"""Of the given images."""


def images(n: int = 2) -> tuple[Tensor, np.ndarray]:
    """Smooth images in 0..1 [n,3,SIDE,SIDE] between the bytes, and those bytes [n,SIDE,SIDE,3]."""
    small = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return large, np.rint(large.double().permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)


def change(folder: Path, part: str, **values: Any) -> None:
    file = folder / part / FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def by_pillow(pixels: np.ndarray, side: int, crop: int | None, mean: Any, std: Any) -> np.ndarray:
    """One image [H,W,3], resized bicubically and cropped to the center, normalized in float64 [3,h,w]."""
    resized = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64)
    if crop is not None:
        first = (side - crop) // 2
        resized = resized[first : first + crop, first : first + crop]
    return ((resized / 255 - np.array(mean)) / np.array(std)).transpose(2, 0, 1)


CHANGES: list[tuple[str, dict[str, Any], tuple[int, int | None, list[float], list[float]]]] = [
    ("as published", {}, (VAE_SIDE, None, [0.5] * 3, [0.8] * 3)),
    ("means of channels", {"image_mean": [0.1, 0.5, 0.7]}, (VAE_SIDE, None, [0.1, 0.5, 0.7], [0.8] * 3)),
    ("smaller", {"size": {"shortest_edge": 24}}, (24, None, [0.5] * 3, [0.8] * 3)),
    ("two sides", {"size": {"height": 48, "width": 48}}, (48, None, [0.5] * 3, [0.8] * 3)),
    ("an old file's number", {"size": 24}, (24, None, [0.5] * 3, [0.8] * 3)),
    (
        "cropped", {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
        (VAE_SIDE, 32, [0.5] * 3, [0.8] * 3),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "by_hand"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_the_condition_is_what_the_folders_processor_makes(
    copied: Path, changes: dict[str, Any], by_hand: tuple[int, int | None, list[float], list[float]]
) -> None:
    """The latent of the condition, seen through the whole way from a configuration to the VAE."""
    change(copied, VAE, **changes)
    model = Zero123Plus(pretrained=str(copied))
    codec = Mosaic(input_size=16).new_codec(model, CameraOptions(), SplatOptions(size=8))
    given, pixels = images()
    by_class = Processor.from_pretrained(copied / VAE)(list(pixels), return_tensors="pt").pixel_values
    for row, image in zip(by_class, pixels, strict=True):
        np.testing.assert_allclose(row.double().numpy(), by_pillow(image, *by_hand), atol=1e-6)
    with torch.no_grad():
        expected = model.autoencoder().eval().encode(by_class).latent_dist.mean
        actual, zero = codec.eval().condition_latent(given), codec.zero_latent(SIDE, torch.device("cpu"))
        nothing = model.autoencoder().eval().encode(torch.zeros_like(by_class[:1])).latent_dist.mean
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(zero, nothing, atol=1e-6, rtol=0)
    torch.testing.assert_close(given, images()[0], atol=0, rtol=0)


def test_what_z1g_did_before_is_another_latent(published: Path) -> None:
    """Size and standard deviation matter: the tests above would see them."""
    given, _ = images()
    latents = []
    for condition in ("processors", "plain"):
        model = Zero123Plus(pretrained=str(published), condition=condition)
        codec = Mosaic(input_size=16).new_codec(model, CameraOptions(), SplatOptions(size=8)).eval()
        with torch.no_grad():
            latents.append(codec.condition_latent(given))
    assert latents[0].shape == (2, 4, VAE_SIDE // 8, VAE_SIDE // 8)
    assert latents[1].shape == (2, 4, SIDE // 8, SIDE // 8)
    with torch.no_grad():
        plain = codec.vae.encode(2 * given - 1).latent_dist.mean
    torch.testing.assert_close(latents[1], plain, atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", [16, 24])
def test_the_embedding_is_that_of_the_folders_processor(copied: Path, side: int) -> None:
    """Resized to `side`, then cropped to the encoder's 16 pixels."""
    change(copied, CLIP, image_std=[0.3, 0.2, 0.1], size={"shortest_edge": side})
    denoiser = Zero123Plus(pretrained=str(copied)).denoiser().eval()
    given, pixels = images()
    values = Processor.from_pretrained(copied / CLIP)(list(pixels), return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = denoiser.vision(pixel_values=values).image_embeds
        torch.testing.assert_close(denoiser.embed(given), expected, atol=1e-6, rtol=0)


def test_clips_images_are_bytes(published: Path) -> None:
    """A resize in floats is another embedding, by the share that the documentation names."""
    denoiser = Zero123Plus(pretrained=str(published)).denoiser().eval()
    plain = Zero123Plus(pretrained=str(published), condition="plain").denoiser().eval()
    given, _ = images(8)
    with torch.no_grad():
        ours, floats = denoiser.embed(given), plain.embed(given)
    assert 1e-5 < float((ours - floats).norm() / ours.norm()) < 0.01


def test_absent_settings_are_transformers_defaults(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"image_processor_type": "CLIPImageProcessor"}))
    given, pixels = images(1)
    expected = Processor.from_pretrained(tmp_path)(list(pixels), return_tensors="pt").pixel_values
    torch.testing.assert_close(ImageProcessor.read(tmp_path / FILE, "")(given), expected, atol=0, rtol=0)


@pytest.mark.parametrize("part", [VAE, CLIP])
def test_what_is_saved_is_what_was_read(published: Path, tmp_path: Path, part: str) -> None:
    """A folder of z1g has the file in the public layout, for transformers and for z1g."""
    ImageProcessor.read(published / part / FILE, "").save(tmp_path / part)
    given, pixels = images(1)
    again = ImageProcessor.of_folder(tmp_path, part, "")
    assert again is not None
    theirs = [Processor.from_pretrained(folder / part) for folder in (published, tmp_path)]
    values = [processor(list(pixels), return_tensors="pt").pixel_values for processor in theirs]
    torch.testing.assert_close(values[0], values[1], atol=0, rtol=0)
    torch.testing.assert_close(again(given), values[0], atol=0, rtol=0)
    assert ImageProcessor.of_folder(tmp_path / "nowhere", part, "") is None


# Files that cannot be used


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"image_processor_type": "ViTImageProcessor"}', "describes a ViTImageProcessor"),
        ('{"image_std": [0.5, 0, 0.5]}', "image_std.1: Input should be greater than 0"),
        ('{"image_mean": [0.5, NaN, 0.5]}', "image_mean.1"),
        ('{"image_mean": [0.5]}', "image_mean.1"),
        ('{"size": {"shortest_edge": 1000000}}', "size.Size.shortest_edge"),
        ('{"size": {"longest_edge": 8}}', "size.Size.longest_edge"),
        ('{"resample": 17}', "resample"),
        ("[]", "cannot be used"),
        ("{", "cannot be used"),
    ],
)
def test_a_file_of_something_else_is_one_clear_error(copied: Path, content: str, words: str) -> None:
    (copied / VAE / FILE).write_text(content)
    with pytest.raises(UserError, match=rf"feature_extractor_vae/{FILE} cannot be used: .*") as caught:
        Zero123Plus(pretrained=str(copied)).vae_processor()
    assert words in str(caught.value)


def test_an_embedding_size_that_the_encoder_does_not_have_is_named(copied: Path) -> None:
    change(copied, CLIP, crop_size={"height": 24, "width": 24})
    with pytest.raises(UserError, match=r"feature_extractor_clip makes images of \(24, 24\) pixels, .* sees 16"):
        Zero123Plus(pretrained=str(copied)).denoiser()


@pytest.mark.parametrize("name", [f"{VAE}/{FILE}", f"{CLIP}/{FILE}", "scheduler/scheduler_config.json"])
def test_a_missing_file_is_named_before_the_run(copied: Path, tmp_path: Path, name: str) -> None:
    (copied / name).unlink()
    file = tmp_path / "idea.yaml"
    file.write_text(f"model:\n  kind: zero123plus\n  pretrained: {copied}\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"lacks {name} of a Zero123"):
        preflight([load_ablation(file, "full", CONFIGS)])
    model = Zero123Plus(pretrained=str(copied))
    with pytest.raises(UserError, match=f"weights has no readable {name}"):
        model.vae_processor() if VAE in name else model.denoiser()


def test_plain_conditions_need_no_processors(copied: Path) -> None:
    for part in (VAE, CLIP):
        shutil.rmtree(copied / part)
    model = Zero123Plus(pretrained=str(copied), condition="plain")
    model.check()
    assert model.denoiser().processor is None
    assert model.vae_processor() is None


# The scheduler


@pytest.mark.parametrize(
    ("setting", "clip"), [({"clip_sample": False}, False), ({"clip_sample": True}, True), ({}, True)]
)
def test_clipping_is_that_of_a_scheduler_made_from_the_folders(
    copied: Path, setting: dict[str, bool], clip: bool
) -> None:
    """The original replaces the folder's scheduler by DDPM with its settings."""
    from diffusers import DDPMScheduler, EulerAncestralDiscreteScheduler

    file = copied / "scheduler" / "scheduler_config.json"
    settings = {name: value for name, value in json.loads(file.read_text()).items() if name != "clip_sample"}
    file.write_text(json.dumps({**settings, **setting}))
    loaded = EulerAncestralDiscreteScheduler.from_pretrained(copied / "scheduler", local_files_only=True)
    assert DDPMScheduler.from_config(loaded.config).config["clip_sample"] is clip
    assert clips(file) is clip
    assert Zero123Plus(pretrained=str(copied)).denoiser().clip_sample is clip


@pytest.mark.parametrize("content", ["[]", "{", '{"clip_sample": "no"}', "[" * 100_000])
def test_a_scheduler_that_cannot_be_read_is_named(copied: Path, content: str) -> None:
    (copied / "scheduler" / "scheduler_config.json").write_text(content)
    with pytest.raises(UserError, match=r"scheduler_config\.json cannot be used"):
        Zero123Plus(pretrained=str(copied)).denoiser()


def test_the_fixture_is_like_the_public_folders(published: Path) -> None:
    for part in (VAE, CLIP):
        settings = json.loads((published / part / FILE).read_text())
        assert {"size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor"} <= settings.keys()
    assert json.loads((published / CLIP / FILE).read_text())["size"] == {
        "shortest_edge": SIZES["vision_size"]["image_size"]
    }
    assert load_file(published / "unet" / "diffusion_pytorch_model.safetensors")
