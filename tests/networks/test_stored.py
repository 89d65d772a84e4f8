"""Strict loading of networks; diffusers and transformers alone initialize missing tensors."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from support.builders import SIZES
from support.published_weights import write_published
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from z1g.core.errors import UserError
from z1g.networks.conditioning import Conditioning
from z1g.networks.stored import hush_saving, read_network, require_files_fit
from z1g.networks.weights.scratch import Scratch
from z1g.networks.weights.zero123plus import Zero123Plus

State = dict[str, Tensor]
PARTS: dict[str, tuple[Any, str, str]] = {
    "vae": (AutoencoderKL, "diffusion_pytorch_model.safetensors", "decoder.conv_in.weight"),
    "unet": (UNet2DConditionModel, "diffusion_pytorch_model.safetensors", "conv_in.weight"),
    "vision_encoder": (CLIPVisionModelWithProjection, "model.safetensors", "visual_projection.weight"),
    "conditioning": (Conditioning, "diffusion_pytorch_model.safetensors", "deviation"),
}


def missing(state: State, name: str) -> None:
    del state[name]


def extra(state: State, name: str) -> None:
    state["from.elsewhere"] = torch.ones(2)


def renamed(state: State, name: str) -> None:
    state["from.elsewhere"] = state.pop(name)


def misshapen(state: State, name: str) -> None:
    state[name] = torch.ones(5, 7)


Change = Callable[[State, str], None]
CHANGES: list[tuple[Change, str]] = [
    (missing, r"1 missing \({name}\)"),
    (extra, r"1 extra \(from\.elsewhere\)"),
    (renamed, r"1 missing \({name}\); 1 extra \(from\.elsewhere\)"),
    (misshapen, r"1 of another shape \({name} \[5, 7\] instead of \[[\d, ]+\]\)"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("networks")
    model = Scratch(init_seed=3, **SIZES)
    denoiser = model.denoiser()
    model.autoencoder().save_pretrained(root / "vae")
    denoiser.unet.save_pretrained(root / "unet")
    denoiser.vision.save_pretrained(root / "vision_encoder")
    numbers = {"mean": torch.ones(4, 1, 1), "deviation": torch.ones(4, 1, 1), "zero_latent": torch.ones(1, 4, 8, 8)}
    Conditioning.of(torch.ones(4, 16), torch.ones(4), numbers, (4, 24, 16)).save_pretrained(root / "conditioning")
    return root


def damaged(source: Path, into: Path, file: str, change: Callable[[State], None]) -> Path:
    shutil.copytree(source, into)
    state = load_file(into / file)
    change(state)
    save_file(state, into / file, {"format": "pt"})
    return into


@pytest.mark.parametrize("part", PARTS)
def test_whole_networks_are_read(folder: Path, part: str) -> None:
    cls, file, _ = PARTS[part]
    network, stored = read_network(cls, folder / part), load_file(folder / part / file)
    torch.testing.assert_close(dict(network.state_dict()), stored, atol=0, rtol=0)
    require_files_fit(cls, folder / part)


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("check", [read_network, require_files_fit])
def test_networks_that_do_not_fit_are_refused(
    folder: Path, tmp_path: Path, part: str, change: Change, message: str, check: Callable[[Any, Path], Any]
) -> None:
    cls, file, name = PARTS[part]
    broken = damaged(folder / part, tmp_path / part, file, lambda state: change(state, name))
    words = message.format(name=re.escape(name))
    with pytest.raises(UserError, match=rf"^{re.escape(str(broken))}: tensors do not fit the network: {words}$"):
        check(cls, broken)


@pytest.mark.parametrize("part", PARTS)
def test_unreadable_networks_are_named(folder: Path, tmp_path: Path, part: str) -> None:
    cls, file, _ = PARTS[part]
    with pytest.raises(UserError, match=rf"^{tmp_path}/gone cannot be read as {cls.__name__}: "):
        read_network(cls, tmp_path / "gone")
    shutil.copytree(folder / part, tmp_path / part)
    (tmp_path / part / file).write_bytes(b"garbage")
    with pytest.raises(UserError, match=rf"^{tmp_path}/{part} cannot be read as {cls.__name__}: "):
        read_network(cls, tmp_path / part)


@pytest.mark.parametrize("content", ["[]", '"someone/network"', "null", "{", "7"])
@pytest.mark.parametrize("part", PARTS)
def test_a_configuration_is_an_object_and_never_a_name_on_the_hub(
    folder: Path, tmp_path: Path, part: str, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "diffusers.configuration_utils.hf_hub_download", lambda *_, **__: pytest.fail("the hub was asked")
    )
    shutil.copytree(folder / part, tmp_path / part)
    (tmp_path / part / "config.json").write_text(content)
    with pytest.raises(
        UserError, match=rf"^{tmp_path}/{part}/config.json (is not a JSON object|cannot be read: .+)\. Ask"
    ):
        read_network(PARTS[part][0], tmp_path / part, "Ask")


@pytest.mark.parametrize(("part", "key"), [("unet", "in_channels"), ("vae", "latent_channels")])
def test_a_configuration_with_odd_values_is_named(folder: Path, tmp_path: Path, part: str, key: str) -> None:
    shutil.copytree(folder / part, tmp_path / part)
    file = tmp_path / part / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: "x"}))
    with pytest.raises(UserError, match=rf"^{tmp_path}/{part} cannot be read as {PARTS[part][0].__name__}: "):
        read_network(PARTS[part][0], tmp_path / part)


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
@pytest.mark.parametrize("part", ["vae", "unet", "vision_encoder"])
def test_published_weights_that_do_not_fit_are_refused(tmp_path: Path, part: str, change: Change, message: str) -> None:
    write_published(tmp_path)
    _, file, name = PARTS[part]
    state = load_file(tmp_path / part / file)
    change(state, name)
    save_file(state, tmp_path / part / file, {"format": "pt"})
    model, words = Zero123Plus(pretrained=str(tmp_path)), message.format(name=re.escape(name))
    with pytest.raises(UserError, match=rf"{part}'?: tensors do not fit the network: {words}$"):
        model.autoencoder() if part == "vae" else model.denoiser()


@pytest.mark.parametrize("part", PARTS)
def test_values_that_are_not_finite_name_their_tensor(folder: Path, tmp_path: Path, part: str) -> None:
    cls, file, name = PARTS[part]

    def spoil(state: State) -> None:
        state[name].view(-1)[-1] = float("nan")

    broken = damaged(folder / part, tmp_path / part, file, spoil)
    message = rf"1 of \d+ tensors have values that are not finite \({re.escape(name)}\)"
    with pytest.raises(UserError, match=f"^{re.escape(str(broken))}: {message}"):
        read_network(cls, broken)
    if part == "conditioning":
        return
    write_published(tmp_path / "published")
    damaged(tmp_path / "published" / part, tmp_path / "spoiled", file, spoil)
    shutil.copytree(tmp_path / "spoiled", tmp_path / "published" / part, dirs_exist_ok=True)
    model = Zero123Plus(pretrained=str(tmp_path / "published"))
    with pytest.raises(UserError, match=f"^model.pretrained: {tmp_path}/published, {part}: {message}"):
        model.autoencoder() if part == "vae" else model.denoiser()


def test_position_ids_of_old_clip_files_are_ignored(tmp_path: Path) -> None:
    write_published(tmp_path)
    file = tmp_path / "vision_encoder" / "model.safetensors"
    name = "vision_model.embeddings.position_ids"
    save_file({**load_file(file), name: torch.arange(5)[None]}, file, {"format": "pt"})
    assert json.loads((tmp_path / "vision_encoder" / "config.json").read_text())
    Zero123Plus(pretrained=str(tmp_path)).denoiser()
    require_files_fit(CLIPVisionModelWithProjection, tmp_path / "vision_encoder")


def test_networks_are_saved_without_bars(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Libraries draw a progress bar for a file that takes milliseconds."""
    hush_saving()
    Scratch(**SIZES).denoiser().vision.save_pretrained(tmp_path)
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")
