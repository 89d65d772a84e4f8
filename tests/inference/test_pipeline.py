"""Trained pipelines on disk: diffusers' layout, loaded by diffusers; adapters, loaded by diffusers and peft."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.builders import SIZES, forget_checksums
from support.diffusion import normal
from torch import Tensor

from z1g.core.errors import UserError
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.inference.method import ImageToSplats
from z1g.networks.denoiser import Denoiser
from z1g.networks.finetune import adapters as lora
from z1g.networks.finetune.lora import Lora
from z1g.networks.weights.scratch import Scratch
from z1g.representations import Mosaic
from z1g.representations.codec import Trained
from z1g.representations.folder import REMEDY
from z1g.representations.mosaic import pipeline as pipeline_module
from z1g.representations.mosaic.pipeline import Zero1ToGPipeline
from z1g.sampling.options import InferOptions
from z1g.sampling.samplers.ddim import Ddim

CODE = (4, 24, 16)


def denoiser() -> Denoiser:
    network = Scratch(init_seed=3, **SIZES).denoiser().requires_grad_(False).eval()
    network.unet.conv_out.weight.copy_(0.1 * normal(*network.unet.conv_out.weight.shape, seed=1))
    return network


def pipeline() -> Zero1ToGPipeline:
    model = Scratch(init_seed=3, **SIZES)
    mosaic, camera, splats = Mosaic(input_size=16), CameraOptions(), SplatOptions(size=8)
    codec = mosaic.new_codec(model, camera, splats)
    with torch.no_grad():
        codec.decoder.scale_bias.fill_(-2.5)
    statistics = {
        "mean": normal(4, 1, 1, seed=5),
        "deviation": normal(4, 1, 1, seed=6).abs(),
        "zero_latent": normal(1, 4, 8, 8, seed=7),
    }
    assert codec.code_shape == CODE
    return Zero1ToGPipeline.of(Trained(codec, denoiser(), statistics), mosaic, camera, splats)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline().save_pretrained(folder)
    return folder


def test_the_index_names_every_part(saved: Path) -> None:
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "Zero1ToGPipeline"
    parts = {name: value for name, value in index.items() if not name.startswith("_")}
    assert parts == {
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vision_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "conditioning": ["z1g.networks.conditioning", "Conditioning"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    assert all((saved / name).is_dir() for name in parts)
    assert not list(saved.rglob("*.bin")), "safetensors only"


@pytest.mark.parametrize("how", ["class", "custom_pipeline"])
def test_a_loaded_pipeline_samples_the_same_codes(saved: Path, how: str) -> None:
    if how == "class":
        loaded = Zero1ToGPipeline.from_pretrained(saved, local_files_only=True)
    else:
        loaded = DiffusionPipeline.from_pretrained(
            saved, custom_pipeline=pipeline_module.__file__, local_files_only=True, trust_remote_code=True
        )
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    loaded.scheduler = DDIMScheduler.from_config(loaded.scheduler.config)
    actual = loaded(images, num_inference_steps=3, guidance_scale=2.0, seeds=[4, 5])
    options = InferOptions(sampler=Ddim(), steps=3, guidance=2.0)
    expected = ImageToSplats(pipeline().trained(), options)(images, [4, 5])
    assert actual.splats.shape == (2, 6, 14, 8, 8)
    torch.testing.assert_close(actual.codes, expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(actual.splats, expected[1], atol=1e-5, rtol=0)


def test_a_loaded_pipeline_saves_again(saved: Path, tmp_path: Path) -> None:
    Zero1ToGPipeline.from_pretrained(saved, local_files_only=True).save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in saved.iterdir()}
    assert (tmp_path / "heads.safetensors").read_bytes() == (saved / "heads.safetensors").read_bytes()


def test_the_whole_denoiser_is_on_the_device_of_the_pipeline(saved: Path) -> None:
    moved = Zero1ToGPipeline.from_pretrained(saved, local_files_only=True).to("meta").denoiser()
    assert {tensor.device.type for tensor in (*moved.parameters(), *moved.buffers())} == {"meta"}


def test_the_loaded_denoiser_is_frozen(saved: Path) -> None:
    loaded = Zero1ToGPipeline.from_pretrained(saved, local_files_only=True).denoiser()
    assert not any(p.requires_grad for p in loaded.parameters())
    torch.testing.assert_close(loaded.prompt, denoiser().prompt)


# Files that do not fit

FILES = {
    "vae": ("vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.weight"),
    "unet": ("unet/diffusion_pytorch_model.safetensors", "conv_in.weight"),
    "vision_encoder": ("vision_encoder/model.safetensors", "visual_projection.weight"),
    "conditioning": ("conditioning/diffusion_pytorch_model.safetensors", "deviation"),
    "heads.safetensors": ("heads.safetensors", "geometry_out.weight"),
}
DAMAGES = {
    "missing": r"1 missing \({name}\)",
    "extra": r"1 extra \(foreign\.tensor\)",
    "renamed": r"1 missing \({name}\); 1 extra \(foreign\.tensor\)",
    "misshapen": r"1 of another shape \({name} \[5, 7\] instead of \[[\d, ]+\]\)",
}


def damage(file: Path, name: str, how: str) -> None:
    tensors = load_file(file)
    if how in ("missing", "renamed"):
        removed = tensors.pop(name)
    if how in ("extra", "renamed"):
        tensors["foreign.tensor"] = removed if how == "renamed" else torch.ones(2)
    if how == "misshapen":
        tensors[name] = torch.ones(5, 7)
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("part", FILES)
def test_a_pipeline_whose_weights_do_not_fit_is_refused(saved: Path, tmp_path: Path, part: str, how: str) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(saved, folder)
    file, name = FILES[part]
    damage(folder / file, name, how)
    forget_checksums(folder)  # as of an earlier version
    words = DAMAGES[how].format(name=re.escape(name))
    whole = rf"^{re.escape(str(folder / part))}: tensors do not fit the network: {words}\. {re.escape(REMEDY)}$"
    with pytest.raises(UserError, match=whole.replace(r"\{folder\}", re.escape(str(folder)))):
        Zero1ToGPipeline.from_pretrained(folder, local_files_only=True).trained()


@pytest.mark.parametrize("how", ["missing", "extra", "renamed"])
@pytest.mark.parametrize("part", FILES)
def test_a_pipeline_that_diffusers_loaded_is_checked(saved: Path, tmp_path: Path, part: str, how: str) -> None:
    """diffusers initializes missing tensors and ignores unknown ones."""
    folder = tmp_path / "pipeline"
    shutil.copytree(saved, folder)
    file, name = FILES[part]
    damage(folder / file, name, how)
    forget_checksums(folder)  # as of an earlier version
    loaded = DiffusionPipeline.from_pretrained(
        folder, custom_pipeline=pipeline_module.__file__, local_files_only=True, trust_remote_code=True
    )
    words = DAMAGES[how].format(name=re.escape(name))
    whole = rf"^{re.escape(str(folder / part))}: tensors do not fit the network: {words}\. {re.escape(REMEDY)}$"
    with pytest.raises(UserError, match=whole.replace(r"\{folder\}", re.escape(str(folder)))):
        loaded.trained()


def test_a_pipeline_can_be_loaded_in_half_precision(saved: Path) -> None:
    loaded = Zero1ToGPipeline.from_pretrained(saved, local_files_only=True, torch_dtype=torch.bfloat16)
    assert {p.dtype for part in (loaded.unet, loaded.vae, loaded.vision_encoder) for p in part.parameters()} == {
        torch.bfloat16
    }


# Adapters


def adapted() -> Denoiser:
    """A denoiser with nonzero adapters."""
    network = denoiser()
    Lora(rank=3, alpha=6.0).prepare(network)
    with torch.no_grad():
        for i, (name, parameter) in enumerate(network.named_parameters()):
            if "lora_B" in name:
                parameter.copy_(0.2 * normal(*parameter.shape, seed=i))
    return network


def velocity(network: Denoiser | UNet2DConditionModel) -> Tensor:
    unet = network.unet if isinstance(network, Denoiser) else network
    # Without a condition's tokens attention is the standard one, so any UNet with these weights can be used.
    with torch.no_grad():
        output: Tensor = unet(normal(1, 4, 6, 4, seed=2), torch.tensor([400]), normal(1, 4, 16, seed=3)).sample
    return output


def test_only_adapters_of_the_targets_are_trained() -> None:
    adapted_denoiser = denoiser()
    before = velocity(adapted_denoiser)
    Lora(rank=3).prepare(adapted_denoiser)
    learning = {name for name, p in adapted_denoiser.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in learning)
    layers = {name.split(".lora_")[0].split("attentions.")[-1].split(".attn")[-1][2:] for name in learning}
    assert layers == {"to_q", "to_k", "to_v", "to_out.0"}
    torch.testing.assert_close(velocity(adapted_denoiser), before, atol=0, rtol=0)
    sizes = {len(p) for name, p in adapted_denoiser.named_parameters() if "lora_A" in name}
    assert sizes == {3}


def test_targets_that_match_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="targets"):
        Lora(targets=("to_nowhere",)).prepare(denoiser())


def test_merged_adapters_are_plain_weights() -> None:
    adapted_denoiser, untouched = adapted(), denoiser()
    expected = velocity(adapted_denoiser)
    assert (expected - velocity(untouched)).abs().max() > 1e-3
    lora.merge(adapted_denoiser)
    torch.testing.assert_close(velocity(adapted_denoiser), expected, atol=1e-5, rtol=0)
    assert set(adapted_denoiser.unet.state_dict()) == set(untouched.unet.state_dict())


def test_diffusers_and_peft_load_the_adapters(tmp_path: Path) -> None:
    adapted_denoiser = adapted()
    expected = velocity(adapted_denoiser)
    lora.save(adapted_denoiser, tmp_path)
    by_diffusers = denoiser().unet
    state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(
        tmp_path, local_files_only=True, return_lora_metadata=True
    )
    StableDiffusionPipeline.load_lora_into_unet(state, alphas, by_diffusers, metadata=metadata)
    torch.testing.assert_close(velocity(by_diffusers), expected, atol=1e-5, rtol=0)
    by_peft = PeftModel.from_pretrained(denoiser().unet, str(tmp_path))
    torch.testing.assert_close(velocity(by_peft.base_model.model), expected, atol=1e-5, rtol=0)
