"""Codes of more channels than those of the model that training starts from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import trained_models
from support.builders import experiment, fill, plan, stage_path

from z1g.config import trained
from z1g.config.tree import Experiment
from z1g.core.needs import Missing
from z1g.inference.method import ImageToSplats
from z1g.networks.denoiser import Condition
from z1g.networks.weights.trained import Trained
from z1g.plan.folder import StageFolder
from z1g.stages import autodecoder, codes, unet

pytestmark = pytest.mark.slow
OWN, WIDER = 4, 7


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    return trained_models.write(experiment(root), root / "model")


def started(folder: Path, channels: int | None = WIDER, *, normalize: bool = True, **changes: Any) -> Experiment:
    model = {"kind": "trained", "pretrained": str(folder), "code_channels": channels}
    return experiment(folder.parent, model=model, unet={"normalize_codes": normalize}, **changes)


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_stage_1_starts_as_the_model_s(model: Path) -> None:
    codec, own = (started(model, n).new_codec() for n in (WIDER, None))
    mosaics = normal(2, 3, 48, 32).sigmoid()
    code, expected = codec.encode(mosaics), own.encode(mosaics)
    assert code.shape[1] == WIDER
    torch.testing.assert_close(code[:, :OWN], expected, atol=1e-5, rtol=1e-5)
    # New channels differ from each other and from place to place, so that the decoder can learn from them.
    new = code[:, OWN:].flatten(2)
    assert (new.std(dim=2) > 1e-3).all()
    assert torch.linalg.matrix_rank(new[0].double()) == WIDER - OWN
    # What they say has no effect yet.
    for seed in (2, 3):
        other = torch.cat([expected, normal(*code[:, OWN:].shape, seed=seed)], dim=1)
        torch.testing.assert_close(codec.decode(other), own.decode(expected), atol=1e-5, rtol=1e-5)


def test_what_new_channels_say_reaches_the_decoder_s_weights(model: Path) -> None:
    codec = started(model).new_codec()
    code = codec.encode(normal(1, 3, 48, 32).sigmoid()).detach()
    codec.decode(code).square().sum().backward()
    weight = codec.decoder.decoder.conv_in.weight
    assert not weight[:, OWN:].any()
    assert weight.grad is not None
    assert (weight.grad[:, OWN:].flatten(2).norm(dim=(0, 2)) > 0).all()


@torch.no_grad()
def test_stage_2_starts_as_the_model_s(model: Path) -> None:
    denoiser, own = (started(model, n).new_denoiser() for n in (WIDER, None))
    assert denoiser.code_statistics is None
    embedding = denoiser.embed(normal(2, 3, 16, 16).sigmoid())
    code, latent = normal(2, WIDER, 24, 16), normal(2, WIDER, 8, 8, seed=2)
    noise, timestep = normal(2, WIDER, 8, 8, seed=3), torch.tensor([3, 700])
    predicted = denoiser(code, timestep, Condition(latent, embedding), noise)
    expected = own(code[:, :OWN], timestep, Condition(latent[:, :OWN], embedding), noise[:, :OWN])
    torch.testing.assert_close(predicted[:, :OWN], expected, atol=1e-5, rtol=1e-5)
    assert not predicted[:, OWN:].any()


def test_the_chain_trains_and_samples_codes_of_more_channels(model: Path, tmp_path: Path) -> None:
    config = {"kind": "trained", "pretrained": str(model), "code_channels": WIDER}
    encoder = {"codes": {"kind": "encoder", "train": True}}
    planned = plan(tmp_path, model=config, autodecoder=encoder, unet={"normalize_codes": True})
    fill(planned)
    for stage in (autodecoder, codes, unet):
        stage.run(StageFolder.open(stage_path(planned, stage.__name__.split(".")[-1])), threads=1)
    stored = load_file(stage_path(planned, "codes") / "codes.safetensors")
    assert {len(code) for code in stored.values()} == {WIDER}
    sampler = ImageToSplats.from_folder(
        stage_path(planned, "unet") / "pipeline", ImageToSplats.from_pretrained(str(model)).options
    )
    assert sampler.shape[0] == WIDER
    assert sampler.statistics["deviation"].shape == (WIDER, 1, 1)
    # After a step the decoder listens to new channels.
    weight = sampler.codec.decoder.decoder.conv_in.weight
    assert weight[:, OWN:].any()


def test_as_many_channels_as_the_model_has_are_the_model(model: Path) -> None:
    same = started(model, OWN)
    assert same.new_denoiser().code_statistics is not None
    code = normal(1, OWN, 24, 16)
    own = started(model, None)
    assert torch.equal(same.new_codec().decode(code), own.new_codec().decode(code))


def test_fewer_channels_are_refused(model: Path) -> None:
    with pytest.raises(Missing, match="3 are fewer than the 4 of the model") as caught:
        Trained(pretrained=str(model), code_channels=OWN - 1).check()
    assert caught.value.field == "code_channels"


def test_statistics_of_codes_must_be_estimated(model: Path) -> None:
    with pytest.raises(ValueError, match=r"needs unet\.normalize_codes"):
        started(model, normalize=False)


def test_only_mosaics_have_more_channels(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The same model, were it of another kind.
    settled = {**trained.settled(Trained(pretrained=str(model))), "representation": {"kind": "joint"}}
    monkeypatch.setattr(trained, "settled", lambda _: settled)
    monkeypatch.setattr("z1g.config.tree.conflict", lambda *_: None)
    with pytest.raises(ValueError, match="is for mosaics, not for representation 'joint'"):
        started(model, representation={"kind": "joint"})
