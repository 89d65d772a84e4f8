"""`model: {kind: zero123plus}` on a folder in the published layout, with tiny random weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from published_weights import RAMP, TOKENS, text_encoder, write_published
from transformers import CLIPTokenizer

from z1g.errors import UserError
from z1g.model.zero123plus import Zero123Plus


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "zero123plus"
    write_published(folder)
    return folder


@pytest.fixture
def copied(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "weights"))


def test_parts_are_the_files(published: Path) -> None:
    model = Zero123Plus(pretrained=str(published))
    vae = AutoencoderKL.from_pretrained(published / "vae", local_files_only=True)
    torch.testing.assert_close(model.autoencoder().state_dict(), vae.state_dict())
    denoiser = model.denoiser()
    unet = UNet2DConditionModel.from_pretrained(published / "unet", local_files_only=True)
    torch.testing.assert_close(denoiser.unet.state_dict(), unet.state_dict())
    torch.testing.assert_close(denoiser.ramping, torch.tensor(RAMP))


def test_prompt_is_the_empty_texts_embedding(published: Path) -> None:
    denoiser = Zero123Plus(pretrained=str(published)).denoiser()
    ids = torch.tensor([[2] + [3] * (TOKENS - 1)])
    with torch.no_grad():
        expected = text_encoder().eval()(ids).last_hidden_state[0]
    torch.testing.assert_close(denoiser.prompt.detach(), expected)


def test_only_the_unet_is_trained(published: Path) -> None:
    denoiser = Zero123Plus(pretrained=str(published)).denoiser()
    trained = {name.split(".")[0] for name, p in denoiser.named_parameters() if p.requires_grad}
    assert trained == {"unet"}
    assert Zero123Plus(pretrained=str(published)).pretrained_encoder


def test_tokenizer_of_the_test_pads_with_the_end(published: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(published / "tokenizer", local_files_only=True)
    assert tokenizer("", padding="max_length", max_length=TOKENS).input_ids == [2] + [3] * (TOKENS - 1)


@pytest.mark.parametrize("part", ["unet", "vision_encoder", "text_encoder", "tokenizer"])
def test_a_missing_part_is_named(copied: Path, part: str) -> None:
    shutil.rmtree(copied / part)
    with pytest.raises(UserError, match=rf"weights has no usable '{part}'"):
        Zero123Plus(pretrained=str(copied)).denoiser()


def test_a_missing_vae_is_named(copied: Path) -> None:
    shutil.rmtree(copied / "vae")
    with pytest.raises(UserError, match="weights has no usable 'vae'"):
        Zero123Plus(pretrained=str(copied)).autoencoder()


@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("unet", "diffusion_pytorch_model.safetensors"),
        ("vision_encoder", "model.safetensors"),
        ("text_encoder", "model.safetensors"),
    ],
)
@pytest.mark.parametrize("break_it", [lambda f: f.unlink(), lambda f: f.write_bytes(f.read_bytes()[:100])])
def test_missing_or_truncated_weights_are_named(
    copied: Path, part: str, file: str, break_it: Callable[[Path], object]
) -> None:
    break_it(copied / part / file)
    with pytest.raises(UserError, match=rf"no usable '{part}'"):
        Zero123Plus(pretrained=str(copied)).denoiser()


def test_pickled_weights_are_refused(copied: Path) -> None:
    """Nothing read from disk may execute."""
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    file.unlink()
    torch.save({}, file.with_suffix(".bin"))
    with pytest.raises(UserError, match="no usable 'unet'"):
        Zero123Plus(pretrained=str(copied)).denoiser()


def test_a_missing_index_is_named(copied: Path) -> None:
    (copied / "model_index.json").unlink()
    with pytest.raises(UserError, match=r"weights has no readable model_index\.json"):
        Zero123Plus(pretrained=str(copied)).denoiser()


@pytest.mark.parametrize("index", ["{}", '{"ramping_coefficients": null}', "[]", "{not json"])
def test_an_index_of_something_else_is_explained(copied: Path, index: str) -> None:
    (copied / "model_index.json").write_text(index, encoding="utf-8")
    with pytest.raises(UserError, match=r"model_index\.json.*Zero123\+\+"):
        Zero123Plus(pretrained=str(copied)).denoiser()


def test_a_ramp_of_another_length_is_explained(copied: Path) -> None:
    (copied / "model_index.json").write_text(json.dumps({"ramping_coefficients": RAMP[:-1]}), encoding="utf-8")
    with pytest.raises(UserError, match="6 ramping_coefficients for a prompt of 7 tokens"):
        Zero123Plus(pretrained=str(copied)).denoiser()


def test_a_folder_that_does_not_exist_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.pretrained: .*/nowhere"):
        Zero123Plus(pretrained=str(tmp_path / "nowhere")).denoiser()


def test_an_empty_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no readable model_index\.json"):
        Zero123Plus(pretrained=str(tmp_path)).denoiser()


def test_a_tokenizer_without_words_is_refused(copied: Path) -> None:
    """transformers would go on with an empty vocabulary, and the prompt would be another text's."""
    (copied / "tokenizer" / "vocab.json").unlink()
    with pytest.raises(UserError, match="no usable 'tokenizer'"):
        Zero123Plus(pretrained=str(copied)).denoiser()
