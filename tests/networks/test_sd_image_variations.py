"""`model: {kind: sd_image_variations}` on a folder in the published layout, with tiny random weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from support.builders import experiment, fill, plan, stage_path
from support.diffusion import normal
from support.running import run_stages
from support.variations_weights import half_pickled, write_variations
from torch import nn
from transformers import CLIPVisionModelWithProjection

from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.networks.denoiser import Condition
from z1g.networks.weights.sd_image_variations import SdImageVariations
from z1g.representations.attributes.denoiser import AttributeDenoiser
from z1g.stages import autodecoder, codes, infer, unet

STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "image_encoder": "model"}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that tests only read."""
    folder = tmp_path_factory.mktemp("hub") / "variations"
    write_variations(folder)
    return folder


@pytest.fixture
def copied(published: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "weights"))


def model(folder: Path) -> SdImageVariations:
    return SdImageVariations(pretrained=str(folder))


def config(folder: Path, root: Path = Path("unused"), **changes: Any) -> Experiment:
    representation = {"kind": "attributes", **changes.pop("representation", {})}
    weights = {"kind": "sd_image_variations", "pretrained": str(folder)}
    return experiment(root, model=weights, representation=representation, splat={"size": 16}, **changes)


def test_parts_are_the_files(published: Path) -> None:
    source = model(published)
    source.check()
    vae = AutoencoderKL.from_pretrained(published / "vae", local_files_only=True)
    torch.testing.assert_close(source.autoencoder().state_dict(), vae.state_dict())
    parts = source.diffusion()
    unet_ = UNet2DConditionModel.from_pretrained(published / "unet", local_files_only=True)
    torch.testing.assert_close(parts.unet.state_dict(), unet_.state_dict())
    assert not parts.train_vision


def test_older_files_load_as_float32(published: Path, copied: Path) -> None:
    half_pickled(copied)
    model(copied).check()
    expected, actual = model(published).diffusion(), model(copied).diffusion()
    for network, other in ((expected.unet, actual.unet), (expected.vision, actual.vision)):
        for name, value in other.state_dict().items():
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, network.state_dict()[name], atol=2e-3, rtol=2e-3)


@torch.no_grad()
def test_an_image_is_embedded_as_in_the_published_pipeline(published: Path) -> None:
    denoiser = config(published).new_denoiser()
    pixels = torch.randint(0, 256, (20, 20, 3), generator=torch.Generator().manual_seed(1)).byte()
    images = pixels.permute(2, 0, 1)[None].float() / 255
    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    processor = kind.from_pretrained(published / "feature_extractor")
    vision = CLIPVisionModelWithProjection.from_pretrained(published / "image_encoder").eval()
    seen = processor(Image.fromarray(pixels.numpy()), return_tensors="pt").pixel_values
    torch.testing.assert_close(denoiser.eval().embed(images), vision(seen).image_embeds, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_before_training_the_noise_is_that_of_the_published_unet(published: Path) -> None:
    """Where all views are the same image, and nothing is embedded: attention to copies is attention to oneself."""
    denoiser = config(published).new_denoiser().eval()
    assert isinstance(denoiser, AttributeDenoiser)
    assert denoiser.schedule.process.betas == "scaled_linear"
    for parameter in denoiser.unet.class_embedding.parameters():
        nn.init.zeros_(parameter)
    code = normal(2, 5, 4, 2, 2).repeat_interleave(6, dim=1)
    condition, times = Condition(normal(2, 4, 2, 2, seed=3), normal(2, 16, seed=4)), torch.tensor([100, 700])
    velocity = denoiser(code, times, condition, torch.empty(0))
    noise = denoiser.schedule.noise_from_v(code, velocity, times)
    theirs = UNet2DConditionModel.from_pretrained(published / "unet").eval()
    for b in range(2):
        tokens = condition.embedding[b][None, None].expand(30, -1, -1)
        expected = theirs(code[b], times[b], encoder_hidden_states=tokens).sample
        torch.testing.assert_close(noise[b], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("part", ["unet", "image_encoder", "vae"])
@pytest.mark.parametrize("break_it", [lambda f: f.unlink(), lambda f: f.write_bytes(f.read_bytes()[:100])])
def test_missing_or_truncated_weights_are_named(copied: Path, part: str, break_it: Callable[[Path], object]) -> None:
    break_it(copied / part / f"{STEMS[part]}.safetensors")
    with pytest.raises(UserError, match=rf"(lacks {part}/{STEMS[part]}\.safetensors|no usable '{part}')"):
        (model(copied).autoencoder if part == "vae" else model(copied).diffusion)()


@pytest.mark.parametrize("part", ["unet", "image_encoder"])
def test_weights_without_all_tensors_are_refused(copied: Path, part: str) -> None:
    file = copied / part / f"{STEMS[part]}.safetensors"
    tensors = load_file(file)
    removed = sorted(tensors)[-1]
    save_file({name: value for name, value in tensors.items() if name != removed}, file, {"format": "pt"})
    with pytest.raises(UserError, match=rf"no usable '{part}': .*: 1 missing"):
        model(copied).diffusion()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unet", "lacks unet of a pipeline of image variations"),
        ("image_encoder/config.json", r"lacks image_encoder/config\.json of"),
        ("scheduler/scheduler_config.json", r"lacks scheduler/scheduler_config\.json of"),
        ("feature_extractor/preprocessor_config.json", r"lacks feature_extractor/preprocessor_config\.json of"),
    ],
)
def test_what_a_folder_lacks_is_said_before_any_job(copied: Path, name: str, words: str) -> None:
    path = copied / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=words):
        model(copied).check()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("prediction_type", "v_prediction", "predicts v_prediction"), ("beta_schedule", "linear", "has linear betas")],
)
def test_another_process_is_refused(copied: Path, key: str, value: str, words: str) -> None:
    file = copied / "scheduler/scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(UserError, match=words):
        model(copied).check()


def test_an_encoder_of_another_width_is_refused(copied: Path) -> None:
    other = CLIPVisionModelWithProjection.from_pretrained(copied / "image_encoder")
    other.config.projection_dim = 12
    other.visual_projection = nn.Linear(16, 12, bias=False)
    other.save_pretrained(copied / "image_encoder")
    with pytest.raises(UserError, match="image_encoder gives 12 channels, but the unet attends to 16"):
        model(copied).diffusion()


def test_a_processor_of_another_size_is_refused(copied: Path) -> None:
    file = copied / "feature_extractor/preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "crop_size": 8}))
    with pytest.raises(UserError, match=r"feature_extractor makes images of \(8, 8\) pixels"):
        model(copied).diffusion()


@pytest.mark.parametrize("kind", ["mosaic", "joint"])
def test_other_representations_need_a_prompt(published: Path, kind: str) -> None:
    with pytest.raises(ValueError, match=f"representation.kind '{kind}' needs .*prompt"):
        config(published, representation={"kind": kind})
    with pytest.raises(UserError, match="has no prompt"):
        model(published).denoiser()


def test_only_the_decoder_and_the_unet_are_trained(published: Path) -> None:
    codec, denoiser = config(published).new_codec(), config(published).new_denoiser()
    trained = {name.split(".")[0] for name, p in codec.named_parameters() if p.requires_grad}
    assert trained == {"decoder"}
    assert not any(p.requires_grad for p in codec.vae.post_quant_conv.parameters())
    assert {name.split(".")[0] for name, p in denoiser.named_parameters() if p.requires_grad} == {"unet"}
    stock = config(published, representation={"decoder": "stock"}).new_codec()
    assert not any(p.requires_grad for p in stock.parameters())


# Through the stages

LOSS = {"losses": {"latent": {"weighting": "min_snr"}}, "normalize_codes": False}


def through(folder: Path, root: Path, representation: dict[str, Any], **options: Any) -> Any:
    weights = {"kind": "sd_image_variations", "pretrained": str(folder)}
    made = plan(
        root, model=weights, representation={"kind": "attributes", **representation}, splat={"size": 16},
        unet={**LOSS, **options},
    )  # fmt: skip
    fill(made)
    run_stages(made, autodecoder, codes, unet, infer)
    return made


@pytest.mark.slow
def test_a_stock_decoder_is_used_as_it_is(published: Path, tmp_path: Path) -> None:
    made = through(published, tmp_path, {"decoder": "stock", "denoiser": {"alone_share": 0.3}})
    stored = load_file(stage_path(made, "autodecoder") / "model/vae/diffusion_pytorch_model.safetensors")
    original = load_file(published / "vae/diffusion_pytorch_model.safetensors")
    assert stored.keys() == original.keys()
    assert all(torch.equal(stored[name], original[name]) for name in stored)
    (row,) = [json.loads(line) for line in (stage_path(made, "autodecoder") / "history.jsonl").open()]
    assert row["step"] == 0
    assert row["validation_psnr"] > 0


@pytest.mark.slow
def test_adapters_leave_new_layers_to_training(published: Path, tmp_path: Path) -> None:
    made = through(published, tmp_path, {}, finetune={"kind": "lora", "rank": 2})
    folder = stage_path(made, "unet") / "pipeline"
    assert (folder / "lora/pytorch_lora_weights.safetensors").is_file()
    after = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    start = config(published, tmp_path).new_denoiser().unet.state_dict()
    assert after.keys() == start.keys()
    changed = {name for name in after if not torch.equal(after[name], start[name])}
    assert any("attn1.to_q" in name for name in changed), "an adapter is merged"
    for new in ("conv_in.weight", "class_embedding.linear_1.weight", "attn_attributes.to_out.0.weight"):
        assert any(new in name for name in changed), new
    assert not any("resnets" in name for name in changed)
    before = start["conv_in.weight"][:, 4:]
    assert before.abs().sum() == 0
    assert after["conv_in.weight"][:, 4:].abs().sum() > 0
