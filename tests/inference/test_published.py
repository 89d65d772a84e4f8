"""Sampling against an independent implementation of Zero123++'s published pipeline, with the same random weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    UniPCMultistepScheduler,
)
from support.builders import SIZES
from support.diffusion import PUBLISHED
from support.published_pipeline import PublishedPipeline
from support.published_weights import write_published

from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.inference.method import ImageToSplats
from z1g.networks.weights.scratch import Scratch
from z1g.networks.weights.zero123plus import Zero123Plus
from z1g.representations import Mosaic
from z1g.representations.codec import Trained
from z1g.representations.mosaic import pipeline as pipeline_module
from z1g.representations.mosaic.decoder_options import DecoderOptions
from z1g.representations.mosaic.path.plain import Plain
from z1g.representations.mosaic.pipeline import Zero1ToGPipeline
from z1g.sampling.options import InferOptions
from z1g.sampling.samplers import Sampler
from z1g.sampling.samplers.ddim import Ddim
from z1g.sampling.samplers.ddpm import Ddpm
from z1g.sampling.samplers.dpm_multistep import DpmMultistep
from z1g.sampling.samplers.euler_ancestral import EulerAncestral
from z1g.sampling.samplers.unipc import UniPc

STEPS, RUN_SEED, OBJECT_SEEDS = 6, 3, [11, 22]
CODE = (4, 24, 16)
SAMPLERS: list[tuple[Sampler, type, dict[str, Any]]] = [
    (EulerAncestral(), EulerAncestralDiscreteScheduler, {}),
    (Ddpm(), DDPMScheduler, {"clip_sample": False}),
    (Ddim(), DDIMScheduler, {"clip_sample": False}),
    (DpmMultistep(), DPMSolverMultistepScheduler, {}),
    (UniPc(), UniPCMultistepScheduler, {}),
]


def method(options: InferOptions) -> ImageToSplats:
    model = Scratch(init_seed=1, **SIZES)
    mosaic = Mosaic(input_size=16, decoder=DecoderOptions(path=Plain()))
    codec = mosaic.new_codec(model, CameraOptions(), SplatOptions(size=16))
    denoiser = model.denoiser().requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(2)
    # The last layer is initialized to zero, which would hide the network.
    denoiser.unet.conv_out.weight.copy_(0.1 * torch.randn(denoiser.unet.conv_out.weight.shape, generator=generator))
    with torch.no_grad():
        zero = codec.condition_latent(torch.full((1, 3, 16, 16), 0.5))
    statistics = {"mean": torch.zeros(1), "deviation": torch.ones(1), "zero_latent": zero}
    return ImageToSplats(Trained(codec, denoiser, statistics), options)


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(2, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(("sampler", "cls", "extra"), SAMPLERS, ids=[s.kind for s, _, _ in SAMPLERS])
@pytest.mark.parametrize("guidance", [1.0, pytest.param(4.0, marks=pytest.mark.slow)])
def test_codes_equal_the_published_pipelines(
    sampler: Sampler, cls: type, extra: dict[str, Any], guidance: float
) -> None:
    ours = method(InferOptions(sampler=sampler, steps=STEPS, guidance=guidance, seed=RUN_SEED))
    theirs = PublishedPipeline.of(ours)
    given = images()
    together = ours.codes(torch.from_numpy(given).permute(0, 3, 1, 2).float() / 255, OBJECT_SEEDS)
    for i, seed in enumerate(OBJECT_SEEDS):
        alone = theirs(given[i], cls(**PUBLISHED, **extra), STEPS, guidance, (RUN_SEED, seed), CODE)
        scale = float(alone.abs().max())
        torch.testing.assert_close(together[i], alone[0], atol=1e-4 * max(scale, 1.0), rtol=0)


def test_the_conditions_reach_the_code() -> None:
    """The test above would also pass if both sides ignored the image."""
    ours = method(InferOptions(steps=2, guidance=2.0, seed=RUN_SEED))
    given = torch.from_numpy(images()).permute(0, 3, 1, 2).float() / 255
    first, second = ours.codes(given[:1], [1]), ours.codes(given[1:], [1])
    assert (first - second).abs().max() > 1e-2


def test_mosaics_equal_the_published_pipelines() -> None:
    ours = method(InferOptions())
    code = torch.randn(2, *CODE, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        colors = ours.codec.decoder.raw_mosaic(code)[:, 11:]
    torch.testing.assert_close(colors, PublishedPipeline.of(ours).decode(code), atol=1e-4, rtol=0)


# Folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder in the public layout, and what z1g writes after training from it."""
    published, ours = tmp_path_factory.mktemp("hub") / "zero123plus", tmp_path_factory.mktemp("ours") / "pipeline"
    write_published(published)
    model, mosaic = Zero123Plus(pretrained=str(published)), Mosaic(input_size=64, decoder=DecoderOptions(path=Plain()))
    camera, splats = CameraOptions(), SplatOptions(size=64)
    codec, denoiser = mosaic.new_codec(model, camera, splats), model.denoiser().requires_grad_(False)
    with torch.no_grad():
        zero = codec.zero_latent(16, torch.device("cpu"))
        # Trained weights are other weights.
        denoiser.unet.conv_in.weight.mul_(1.2)
    statistics = {"mean": torch.zeros(4, 1, 1), "deviation": torch.ones(4, 1, 1), "zero_latent": zero}
    ours.mkdir()
    mosaic.save(ours, Trained(codec, denoiser, statistics), camera, splats)
    return published, ours


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_our_unet_in_the_published_pipeline_samples_our_codes(folders: tuple[Path, Path], guidance: float) -> None:
    """A saved folder, read by z1g, against the public folder, read by the libraries, with our UNet in it.

    Images are preprocessed by the classes of transformers according to the public folder's files, and the scheduler is
    the original's: DDPM with the settings of the folder's.
    """
    published, saved = folders
    theirs = PublishedPipeline.of_folder(published, saved / "unet")
    options = InferOptions(sampler=Ddpm(clip_sample="checkpoint"), steps=STEPS, guidance=guidance, seed=RUN_SEED)
    ours = ImageToSplats.from_folder(saved, options)
    given = images()
    together = ours.codes(torch.from_numpy(given).permute(0, 3, 1, 2).float() / 255, OBJECT_SEEDS)
    for i, seed in enumerate(OBJECT_SEEDS):
        folders_own = EulerAncestralDiscreteScheduler.from_pretrained(published / "scheduler")
        scheduler = DDPMScheduler.from_config(folders_own.config, timestep_spacing="trailing")
        assert not scheduler.config["clip_sample"]
        expected = theirs(given[i], scheduler, STEPS, guidance, (RUN_SEED, seed), ours.shape)
        scale = max(float(expected.abs().max()), 1.0)
        torch.testing.assert_close(together[i], expected[0], atol=1e-4 * scale, rtol=0)


@pytest.mark.parametrize("clip", [False, True])
def test_saved_models_clip_as_the_checkpoint_says(folders: tuple[Path, Path], tmp_path: Path, clip: bool) -> None:
    published, _ = folders
    weights = Path(shutil.copytree(published, tmp_path / "weights"))
    file = weights / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "clip_sample": clip}))
    model, mosaic, camera, splats = Zero123Plus(pretrained=str(weights)), Mosaic(), CameraOptions(), SplatOptions()
    codec, denoiser = mosaic.new_codec(model, camera, splats), model.denoiser().requires_grad_(False)
    statistics = {
        "mean": torch.zeros(4, 1, 1),
        "deviation": torch.ones(4, 1, 1),
        "zero_latent": torch.zeros(1, 4, 5, 5),
    }
    (tmp_path / "saved").mkdir()
    mosaic.save(tmp_path / "saved", Trained(codec, denoiser, statistics), camera, splats)
    loaded = ImageToSplats.from_folder(tmp_path / "saved", InferOptions())
    assert loaded.denoiser.clip_sample is clip
    for sampler, expected in ((Ddpm(clip_sample="checkpoint"), clip), (Ddpm(), False), (Ddpm(clip_sample=True), True)):
        assert sampler.scheduler(loaded.denoiser.clip_sample).config["clip_sample"] is expected


@pytest.mark.parametrize("how", ["class", "custom_pipeline"])
def test_a_saved_pipeline_has_the_processors(folders: tuple[Path, Path], tmp_path: Path, how: str) -> None:
    _, saved = folders
    if how == "class":
        loaded = Zero1ToGPipeline.from_pretrained(saved, local_files_only=True)
    else:
        loaded = DiffusionPipeline.from_pretrained(
            saved, custom_pipeline=pipeline_module.__file__, local_files_only=True, trust_remote_code=True
        )
    given = torch.from_numpy(images()).permute(0, 3, 1, 2).float() / 255
    options = InferOptions(sampler=Ddpm(), steps=2, guidance=2.0)
    expected = ImageToSplats.from_folder(saved, options)(given, OBJECT_SEEDS)
    actual = loaded(given, num_inference_steps=2, guidance_scale=2.0, seeds=OBJECT_SEEDS)
    torch.testing.assert_close(actual.codes, expected[0], atol=1e-5, rtol=0)
    loaded.save_pretrained(tmp_path / "again")
    for part in ("feature_extractor_vae", "feature_extractor_clip"):
        name = f"{part}/preprocessor_config.json"
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()
