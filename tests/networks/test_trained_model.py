"""`model: {kind: trained}`: networks that start from a trained model, what they refuse, and what identifies them."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import trained_models
from support.builders import experiment, fill, plan, stage_path
from support.trained_models import DEVIATION, MEAN

from z1g.codes.predictions import one_step
from z1g.config.resolve import Ablation
from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.core.needs import Missing
from z1g.data.manifest import Manifest, ObjectEntry
from z1g.inference.method import ImageToSplats
from z1g.inference.models import open_model
from z1g.networks.weights import packaged
from z1g.networks.weights.trained import Trained
from z1g.plan.folder import StageFolder
from z1g.plan.identity import planned_stages
from z1g.representations import folder as method_folder
from z1g.stages import autodecoder, codes, unet

pytestmark = pytest.mark.slow
PARTS = ("stage1.json", "vae/config.json", "heads.safetensors")
FORMS = ("float32", "int8")
LARGE = {"autoencoder_size": {"channels": [16, 16], "layers_per_block": 1, "norm_groups": 4}}
"""Networks with some tensors that are large enough for int8."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same networks in both forms."""
    root = tmp_path_factory.mktemp("models")
    trained = experiment(root, model=LARGE)
    return {form: trained_models.write(trained, root / form, int8=form == "int8") for form in FORMS}


def started(folder: Path, **changes: Any) -> Experiment:
    model = {"kind": "trained", "pretrained": str(folder), **changes.pop("model", {})}
    unet = {"normalize_codes": False, **changes.pop("unet", {})}
    return experiment(folder.parent, model=model, unet=unet, **changes)


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_networks_start_as_the_model_s(models: dict[str, Path], form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Photographs have kernels of their own on some CPUs; see test_onednn.py.
    monkeypatch.setattr("z1g.inference.method.has_bf16_matrices", lambda: False)
    monkeypatch.setattr("z1g.networks.onednn.is_slow_for_mkl", lambda: False)
    config, model = started(models[form]), ImageToSplats.from_pretrained(str(models[form]))
    # torch.matmul takes another kernel for weights that require gradients, even where none are computed.
    codec, denoiser = (network.requires_grad_(False) for network in (config.new_codec(), config.new_denoiser()))
    code = normal(2, *model.shape)
    same = partial(torch.testing.assert_close, atol=0, rtol=0)
    same(codec.decode(code), model.decode(code))
    mosaics = normal(2, 3, 48, 32).sigmoid()
    same(codec.encode(mosaics), model.encode(mosaics))
    images = normal(2, 3, 16, 16).sigmoid()
    condition, other = denoiser.condition(codec.condition_latent(images), images), model.condition(images)
    same(condition.embedding, other.embedding)
    timestep, noise = torch.tensor([3, 700]), normal(*condition.latent.shape)
    same(denoiser(code, timestep, condition, noise), model.denoiser(code, timestep, other, noise))
    assert denoiser.code_statistics is not None
    for own, theirs in zip(denoiser.code_statistics, ("mean", "deviation"), strict=True):
        assert torch.equal(own, model.statistics[theirs])


def test_int8_is_another_model_with_nearly_the_same_weights(models: dict[str, Path]) -> None:
    exact, rounded = (started(models[form]).new_codec().state_dict() for form in FORMS)
    changed = [name for name in exact if not torch.equal(exact[name], rounded[name])]
    assert changed
    for name in changed:
        assert (exact[name] - rounded[name]).norm() < 0.01 * exact[name].norm()


def trainable(module: torch.nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def test_what_learns(models: dict[str, Path]) -> None:
    config = started(models["float32"])
    codec, denoiser = config.new_codec(), config.new_denoiser()
    assert not trainable(codec.encoder)
    assert all(p.requires_grad for p in (*codec.decoder.geometry_out.parameters(), codec.decoder.scale_bias))
    assert codec.decoder.post_quant_conv.weight.requires_grad
    assert not trainable(denoiser.vision)
    assert not denoiser.prompt.requires_grad
    more = started(models["float32"], model={"train_vision": True}, autodecoder={"codes": {"train": True}})
    assert trainable(more.new_codec().encoder)
    assert trainable(more.new_denoiser().vision)
    assert more.new_denoiser().prompt.requires_grad


def test_one_step_predictions_are_in_the_decoder_s_units(models: dict[str, Path]) -> None:
    denoiser = started(models["float32"]).new_denoiser().requires_grad_(False)
    code, noise, timestep = normal(2, 4, 24, 16), normal(2, 4, 24, 16, seed=2), torch.tensor([200, 800])
    condition = denoiser.nothing(normal(1, 4, 8, 8), 2)
    predicted = one_step(denoiser, code, timestep, condition, noise, normal(2, 4, 8, 8, seed=3))
    a = torch.tensor([denoiser.schedule.alpha[t] for t in timestep]).view(2, 1, 1, 1).float()
    s = (1 - a.square()).sqrt()
    noisy = a * (code - MEAN) / DEVIATION + s * noise
    v = denoiser(noisy, timestep, condition, normal(2, 4, 8, 8, seed=3))
    torch.testing.assert_close(predicted, (a * noisy - s * v) * DEVIATION + MEAN, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module", params=["full", "lora"])
def chain(request: pytest.FixtureRequest, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Both stages with steps of no effect."""
    root = tmp_path_factory.mktemp(request.param)
    still = {"optimizer": {"lr": 1e-12, "weight_decay": 0.0}}
    planned = plan(
        root,
        model={"kind": "trained", "pretrained": str(models["int8"])},
        autodecoder={"train": still},
        unet={"normalize_codes": False, "finetune": {"kind": request.param}, "train": still},
    )
    fill(planned)
    for stage in (autodecoder, codes, unet):
        stage.run(StageFolder.open(stage_path(planned, stage.__name__.split(".")[-1])), threads=1)
    return planned


@torch.no_grad()
def test_stages_without_effect_give_the_model(chain: Any, models: dict[str, Path]) -> None:
    model = ImageToSplats.from_pretrained(str(models["int8"]))
    folder = StageFolder.open(stage_path(chain, "autodecoder"))
    code = normal(1, *model.shape)
    assert torch.equal(folder.config.load_codec(folder.path / "model").decode(code), model.decode(code))
    trained = ImageToSplats.from_folder(stage_path(chain, "unet") / "pipeline", model.options)
    assert all(torch.equal(trained.statistics[name], model.statistics[name]) for name in ("mean", "deviation"))
    # That of the model was computed before its weights were rounded.
    zero = trained.codec.condition_latent(torch.full((1, 3, 16, 16), 0.5))
    torch.testing.assert_close(trained.statistics["zero_latent"], zero)
    condition, noise = model.condition(normal(2, 3, 16, 16).sigmoid()), normal(2, 4, 8, 8, seed=4)
    code, timestep = normal(2, *model.shape), torch.tensor([3, 700])
    expected = model.denoiser(code, timestep, condition, noise)
    torch.testing.assert_close(trained.denoiser(code, timestep, condition, noise), expected, atol=1e-5, rtol=1e-5)


def test_codes_may_be_normalized_anew(models: dict[str, Path], tmp_path: Path) -> None:
    model = {"kind": "trained", "pretrained": str(models["float32"])}
    planned = plan(tmp_path, model=model, unet={"normalize_codes": True})
    fill(planned)
    for stage in (autodecoder, codes, unet):
        stage.run(StageFolder.open(stage_path(planned, stage.__name__.split(".")[-1])), threads=1)
    stored = load_file(stage_path(planned, "codes") / "codes.safetensors")
    folder = StageFolder.open(stage_path(planned, "autodecoder"))
    _, ids = autodecoder.training_scenes(folder)
    kept = load_file(stage_path(planned, "unet") / "pipeline/conditioning/diffusion_pytorch_model.safetensors")
    pixels = torch.stack([stored[name] for name in ids]).double().movedim(1, 0).flatten(1)
    torch.testing.assert_close(kept["mean"].flatten().double(), pixels.mean(1), atol=1e-5, rtol=1e-5)


# What is refused


def copy(model: Path, out: Path) -> Path:
    shutil.copytree(model, out)
    return out


@pytest.mark.parametrize(
    "name", ["model.json", "pipeline/stage1.json", "pipeline/vae/config.json", "pipeline/heads.safetensors"]
)
def test_damage_is_found_before_the_first_job(models: dict[str, Path], tmp_path: Path, name: str) -> None:
    model = copy(models["int8"], tmp_path / "model")
    content = bytearray((model / name).read_bytes())
    content[len(content) // 2] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(Missing, match=name.rpartition("/")[2]) as caught:
        Trained(pretrained=str(model)).check()
    assert caught.value.field == "pretrained"


def test_a_missing_model_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "MODELS", tmp_path)
    with pytest.raises(Missing, match="base is neither a folder with"):
        Trained().check()
    assert not Trained().available


def test_a_wrong_tensor_is_named(models: dict[str, Path], tmp_path: Path) -> None:
    for part, name, message in (
        ("heads", "geometry_out.bias", r"heads\.safetensors.*geometry_out\.bias \[3\] instead of \[11\]"),
        ("unet/diffusion_pytorch_model", "conv_out.bias", r"/unet.*conv_out\.bias \[3\]"),
    ):
        model = copy(models["int8"], tmp_path / part.partition("/")[0])
        file = model / f"pipeline/{part}.safetensors"
        save_file(
            {**load_file(file), name: torch.ones(3)}, file, metadata={"z1g": "int8, one scale per output channel"}
        )
        method_folder.write(model / "pipeline", *method_folder.read_options(model / "pipeline"))
        config = started(model)
        with pytest.raises(UserError, match=message) as caught:
            config.new_codec() if part == "heads" else config.new_denoiser()
        assert str(model) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"splat": {"size": 12}}, "splat.size 12 is 8 in the model"),
        ({"camera": {"radius": 2.0}}, "camera.radius 2.0 is 1.5 in the model"),
        ({"representation": {"input_size": 32}}, "representation.input_size 32 is 16 in the model"),
        ({"unet": {"condition_size": 32}}, "unet.condition_size 32 is 16 in the model"),
    ],
)
def test_what_the_model_was_not_trained_with_is_refused(models: dict[str, Path], changes: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        started(models["int8"], **changes)


# Identity


def ids(config: Experiment) -> dict[str, str]:
    manifest = Manifest((ObjectEntry("crate", "crate.obj", "c0ffee"),), 64)
    return {name: stage.id for name, stage in planned_stages(Ablation("a", "", "", {}, config), manifest).items()}


def test_ids_depend_on_what_the_model_holds(models: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    first = ids(started(models["int8"]))
    moved = copy(models["int8"], tmp_path / "shipped/base")
    (moved / "README.md").write_text("Other words.")
    monkeypatch.setattr(packaged, "MODELS", tmp_path / "shipped")
    assert ids(started(moved)) == first
    named = started(moved).model_copy(update={"model": Trained(pretrained="base")})
    assert ids(named) == first, "a name and a folder"
    other = ids(started(models["float32"]))
    changed = {name for name in first if first[name] != other[name]}
    assert changed == {"autodecoder", "codes", "unet", "infer", "metrics"}


def test_options_of_stage_2_leave_stage_1(models: dict[str, Path]) -> None:
    first, other = (ids(started(models["int8"], model={"train_vision": on})) for on in (False, True))
    assert {name for name in first if first[name] != other[name]} == {"unet", "infer", "metrics"}


def test_the_record_of_a_stage_is_read_without_the_model(models: dict[str, Path], tmp_path: Path) -> None:
    model = copy(models["int8"], tmp_path / "model")
    config = started(model).model_dump(mode="json")
    shutil.rmtree(model)
    assert Experiment.model_validate(config).model.pretrained == str(model)


def test_open_model_and_kind_agree(models: dict[str, Path]) -> None:
    assert open_model(str(models["int8"])).condition.size == Trained(pretrained=str(models["int8"])).condition_size
    assert json.loads(packaged.method_file(str(models["int8"])).read_text())["files"]
