"""`model: {kind: zero123plus}` on a folder in the published layout, with tiny random weights."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from support.paths import CONFIGS
from support.published_weights import RAMP, TOKENS, text_encoder
from transformers import CLIPTokenizer

from z1g.config.catalog import load_ablation
from z1g.config.preflight import preflight
from z1g.core.errors import UserError
from z1g.networks.weights.zero123plus import Zero123Plus


def test_parts_are_the_files(published: Path) -> None:
    model = Zero123Plus(pretrained=str(published))
    vae = AutoencoderKL.from_pretrained(published / "vae", local_files_only=True)
    torch.testing.assert_close(model.autoencoder().state_dict(), vae.state_dict())
    denoiser = model.denoiser()
    unet = UNet2DConditionModel.from_pretrained(published / "unet", local_files_only=True)
    torch.testing.assert_close(denoiser.unet.state_dict(), unet.state_dict())
    torch.testing.assert_close(denoiser.ramping, torch.tensor(RAMP))


def test_prompt_is_the_embedding_of_the_empty_text(published: Path) -> None:
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
    with pytest.raises(UserError, match=rf"weights (lacks {part} of|has no usable '{part}')"):
        Zero123Plus(pretrained=str(copied)).denoiser()


def test_a_missing_vae_is_named(copied: Path) -> None:
    shutil.rmtree(copied / "vae")
    with pytest.raises(UserError, match="weights lacks vae of a Zero123"):
        Zero123Plus(pretrained=str(copied)).autoencoder()


STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model",
         "vision_encoder": "model", "text_encoder": "model"}  # fmt: skip


@pytest.mark.parametrize("part", ["unet", "vision_encoder", "text_encoder"])
@pytest.mark.parametrize("break_it", [lambda f: f.unlink(), lambda f: f.write_bytes(f.read_bytes()[:100])])
def test_missing_or_truncated_weights_are_named(copied: Path, part: str, break_it: Callable[[Path], object]) -> None:
    break_it(copied / part / f"{STEMS[part]}.safetensors")
    with pytest.raises(UserError, match=rf"(lacks {part}/{STEMS[part]}\.safetensors|no usable '{part}')"):
        Zero123Plus(pretrained=str(copied)).denoiser()


@pytest.mark.parametrize("part", ["unet", "vision_encoder", "text_encoder"])
def test_weights_without_all_tensors_are_refused(copied: Path, part: str) -> None:
    """The libraries would initialize them at random."""
    file = copied / part / f"{STEMS[part]}.safetensors"
    tensors = load_file(file)
    removed = sorted(tensors)[-1]
    save_file({name: value for name, value in tensors.items() if name != removed}, file, {"format": "pt"})
    with pytest.raises(UserError, match=rf"no usable '{part}': .*: 1 missing \({re.escape(removed)}\)"):
        Zero123Plus(pretrained=str(copied)).denoiser()


def stored_as(folder: Path, variant: str, pickled: bool) -> None:
    """Rewrite all weights in half precision under other published names."""
    for part, stem in STEMS.items():
        file = folder / part / f"{stem}.safetensors"
        tensors = {name: value.half() for name, value in load_file(file).items()}
        file.unlink()
        if pickled:
            stem = "pytorch_model" if stem == "model" else stem
            torch.save(tensors, folder / part / f"{stem}{variant}.bin")
        else:
            save_file(tensors, folder / part / f"{stem}{variant}.safetensors", {"format": "pt"})
        settings = json.loads((folder / part / "config.json").read_text())
        (folder / part / "config.json").write_text(json.dumps({**settings, "torch_dtype": "float16"}))


@pytest.mark.parametrize(("variant", "pickled"), [("", False), (".fp16", False), ("", True), (".fp16", True)])
def test_half_precision_variants_and_older_files_load_as_float32(
    published: Path, copied: Path, variant: str, pickled: bool
) -> None:
    stored_as(copied, variant, pickled)
    model, original = Zero123Plus(pretrained=str(copied)), Zero123Plus(pretrained=str(published))
    model.check()
    for half, whole in ((model.autoencoder(), original.autoencoder()), (model.denoiser(), original.denoiser())):
        expected = whole.state_dict()
        for name, value in half.state_dict().items():
            assert value.dtype == torch.float32, name
            torch.testing.assert_close(value, expected[name], atol=2e-3, rtol=2e-3)


def test_the_published_vaes_old_names_load(published: Path, copied: Path) -> None:
    """Older versions of diffusers named attention layers query, key, value and proj_attn."""
    file = copied / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors, renamed = load_file(file), {}
    for name, value in tensors.items():
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        renamed[name] = value
    assert len(set(renamed) - set(tensors)) == 16
    save_file(renamed, file, {"format": "pt"})
    expected = Zero123Plus(pretrained=str(published)).autoencoder().state_dict()
    torch.testing.assert_close(Zero123Plus(pretrained=str(copied)).autoencoder().state_dict(), expected)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, (f"open({str(self.file)!r}, 'w').write('executed')",)


@pytest.mark.parametrize("part", ["unet", "vae", "vision_encoder", "text_encoder"])
def test_pickled_code_does_not_run(copied: Path, tmp_path: Path, part: str) -> None:
    stem = STEMS[part]
    (copied / part / f"{stem}.safetensors").unlink()
    name = "pytorch_model" if stem == "model" else stem
    torch.save({"weight": Trap(tmp_path / "caught")}, copied / part / f"{name}.bin")
    model = Zero123Plus(pretrained=str(copied))
    with pytest.raises(UserError, match=f"no usable '{part}'"):
        (model.autoencoder if part == "vae" else model.denoiser)()
    assert not (tmp_path / "caught").exists()


# Before any job starts


def error_of(pretrained: Path | str, tmp_path: Path) -> str:
    file = tmp_path / "idea.yaml"
    file.write_text(f"model:\n  kind: zero123plus\n  pretrained: {pretrained}\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        preflight([load_ablation(file, "full", CONFIGS)])
    return str(caught.value)


def test_all_missing_files_are_named_before_the_run(copied: Path, tmp_path: Path) -> None:
    for file in ("vae/config.json", "unet/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt"):
        (copied / file).unlink()
    shutil.rmtree(copied / "vision_encoder")
    words = error_of(copied, tmp_path)
    assert words.startswith(f"{tmp_path}/idea.yaml:3: model.pretrained: ")
    assert (
        "lacks vae/config.json, unet/diffusion_pytorch_model.safetensors, vision_encoder, tokenizer/merges.txt" in words
    )


def test_a_missing_folder_is_an_error_before_the_run(tmp_path: Path) -> None:
    assert "is not a folder" in error_of(tmp_path / "nowhere", tmp_path)
    assert "is not a folder" in error_of("./weights", tmp_path)


def test_a_pipeline_of_another_kind_is_refused(copied: Path, tmp_path: Path) -> None:
    file = copied / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": "epsilon"}))
    assert "predicts epsilon" in error_of(copied, tmp_path)
    other = {"prediction_type": "v_prediction", "beta_schedule": "scaled_linear"}
    file.write_text(json.dumps({**json.loads(file.read_text()), **other}))
    assert "has scaled_linear betas" in error_of(copied, tmp_path)


def test_complete_folders_and_hub_names_are_accepted(published: Path) -> None:
    Zero123Plus(pretrained=str(published)).check()
    Zero123Plus().check()
    Zero123Plus(pretrained="sudo-ai/zero123plus-v1.2").check()


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
    """transformers would use an empty vocabulary, which changes the prompt."""
    (copied / "tokenizer" / "vocab.json").unlink()
    with pytest.raises(UserError, match="no usable 'tokenizer'"):
        Zero123Plus(pretrained=str(copied)).denoiser()
