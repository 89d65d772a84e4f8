"""Codes from files and from the UNet: identified by content, predicted once, optimized where a file lacks them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.builders import OBJECTS, fill, input_mosaic, plan, stage_path
from torch import Tensor

from z1g.codes import predictions
from z1g.codes.book import OptimizedBook
from z1g.codes.diffusion import FOLDER, DiffusionCodes
from z1g.codes.predictions import Prediction, Predictor
from z1g.config.tree import Experiment
from z1g.core.seeding import keyed_normal
from z1g.data.condition_form import ConditionForm
from z1g.data.manifest import int_hash
from z1g.data.scenes import SceneStore
from z1g.plan.folder import StageFolder
from z1g.plan.identity import without_runtime
from z1g.plan.plan import Plan
from z1g.sampling.sample import sample_codes
from z1g.stages import autodecoder, codes
from z1g.stages.measuring import render_pair

SHAPE = (4, 24, 16)
ONE_STEP = {"kind": "diffusion", "timestep": 300, "seed": 5}


def micro(root: Path, source: dict[str, Any], **options: Any) -> tuple[StageFolder, StageFolder]:
    """Folders of stages `autodecoder` and `codes`, ready to run."""
    planned = plan(root, autodecoder={"codes": source, **options})
    fill(planned)
    folders = [StageFolder.open(stage_path(planned, name)) for name in ("autodecoder", "codes")]
    return folders[0], folders[1]


def identity(path: Path) -> dict[str, str]:
    values = {"autodecoder": {"codes": {"kind": "cache", "path": str(path)}}}
    return dict(without_runtime(Experiment.model_validate(values))["autodecoder"]["codes"])


def test_a_cache_is_identified_by_its_content(tmp_path: Path) -> None:
    first, copy, other = (tmp_path / f"{name}.safetensors" for name in ("first", "copy", "other"))
    for file, value in ((first, 1.0), (copy, 1.0), (other, 2.0)):
        save_file({"a": torch.full(SHAPE, value)}, file)
    assert identity(first) == identity(copy) != identity(other)
    save_file({"a": torch.full(SHAPE, 2.0)}, first)
    assert identity(first) == identity(other)
    assert str(tmp_path) not in str(identity(first))


def test_stage_one_has_another_id_when_its_cache_is_edited(tmp_path: Path) -> None:
    file = tmp_path / "codes.safetensors"
    ids = []
    for value in (1.0, 2.0):
        save_file({"a": torch.full(SHAPE, value)}, file)
        planned: Plan = plan(tmp_path, autodecoder={"codes": {"kind": "cache", "path": str(file)}})
        ids.append({name: stage.id for name, stage in planned.ablations["micro"].stages.items()})
    assert ids[0]["fit"] == ids[1]["fit"]
    assert ids[0]["autodecoder"] != ids[1]["autodecoder"]


@pytest.mark.slow
def test_codes_missing_in_a_cache_are_optimized(tmp_path: Path) -> None:
    """A file may contain training objects only; codes of other objects are optimized with the frozen decoder."""
    file = tmp_path / "codes.safetensors"
    _, _, train_ids = ready(tmp_path)
    generator = torch.Generator().manual_seed(1)
    given = {name: torch.randn(SHAPE, generator=generator) for name in train_ids}
    save_file(given, file)
    trained, coded = micro(tmp_path, {"kind": "cache", "path": str(file)})
    autodecoder.run(trained, threads=1)
    codes.run(coded, threads=1)
    written = load_file(coded.path / "codes.safetensors")
    assert sorted(written) == sorted(OBJECTS[:4])
    mean = torch.stack(list(given.values())).mean(dim=0)
    for name, code in written.items():
        if name in given:
            torch.testing.assert_close(code, given[name], atol=0, rtol=0)
        else:
            # Two steps of Adam from the mean of the training codes.
            assert 0 < (code - mean).abs().max() < 2.1e-2


@pytest.mark.slow
def test_refinement_improves_the_encoders_codes_of_test_objects(tmp_path: Path) -> None:
    """Also with turned training samples; the samples of the refinement are not turned."""
    source: dict[str, Any] = {"kind": "encoder", "train": True}
    trained, coded = micro(tmp_path, source, augment={"turned": 1.0})
    again, refined = micro(tmp_path, source, augment={"turned": 1.0}, test_lr=0.02, test_steps=20)
    assert again.path == trained.path
    assert refined.path != coded.path
    autodecoder.run(trained, threads=1)
    written = []
    for folder in (coded, refined):
        codes.run(folder, threads=1)
        written.append(load_file(folder.path / "codes.safetensors"))
    scenes, ids = autodecoder.training_scenes(trained)
    codec = trained.config.load_codec(trained.path / "model")
    views = trained.config.camera.train_ids
    for name in scenes.ids:
        before, after = (stored[name] for stored in written)
        if name in ids:
            torch.testing.assert_close(after, before, atol=0, rtol=0)
            continue
        assert (after - before).abs().max() > 0
        with torch.no_grad():
            pairs = [
                render_pair(trained.config, scenes[name], codec.decoder(c[None])[0], list(views))
                for c in (before, after)
            ]
        error_before, error_after = (float((pair.rgb - pair.rgb_true).square().mean()) for pair in pairs)
        assert error_after < error_before


def ready(root: Path) -> tuple[StageFolder, SceneStore, list[str]]:
    folder, _ = micro(root / "plain", {"kind": "encoder"})
    scenes, ids = autodecoder.training_scenes(folder)
    return folder, scenes, ids


def test_predicted_codes_are_one_step_of_the_unet(tmp_path: Path) -> None:
    folder, scenes, _ = ready(tmp_path)
    config, source = folder.config, DiffusionCodes(**ONE_STEP)
    config = config.model_copy(update={"unet": Experiment.model_validate({"unet": {"condition_size": 16}}).unet})
    codec, denoiser = config.new_codec(), mixed_up_unet(folder)
    names = list(OBJECTS[:3])
    how = Prediction(source.timestep, source.steps, source.guidance, source.seed, ConditionForm(16))
    actual = Predictor(how, codec, denoiser)(scenes, names)
    beta = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
    a = (1 - beta).cumprod(0)[300].sqrt().float()
    s = (1 - a**2).sqrt()
    for name, code in zip(names, actual, strict=True):
        clean = codec.encode(input_mosaic(scenes[name], 16)[None])
        image = scenes[name].condition(16)[None]
        latent = codec.condition_latent(image)
        keys = [torch.tensor([[5, int_hash(name), i]]) for i in (0, 1)]
        noise, latent_noise = keyed_normal(keys[0], SHAPE), keyed_normal(keys[1], tuple(latent.shape[1:]))
        noisy = a * clean + s * noise
        with torch.no_grad():
            v = denoiser(noisy, torch.tensor([300]), denoiser.condition(latent, image), latent_noise)
            torch.testing.assert_close(code[None], a * noisy - s * v, atol=1e-5, rtol=1e-4)
            assert (code - clean[0]).abs().max() > 0.1


def test_predicted_codes_are_samples_of_the_unet(tmp_path: Path) -> None:
    folder, scenes, _ = ready(tmp_path)
    source = DiffusionCodes(steps=3, guidance=2.0, seed=5)
    defaults = Experiment.model_validate(
        {"unet": {"condition_size": 16}, "infer": {"steps": 3, "guidance": 2.0, "seed": 5}}
    )
    config = folder.config.model_copy(update={"unet": defaults.unet})
    codec, denoiser = config.new_codec(), mixed_up_unet(folder)
    how = Prediction(source.timestep, source.steps, source.guidance, source.seed, ConditionForm(16))
    actual = Predictor(how, codec, denoiser)(scenes, [OBJECTS[1]])
    image = scenes[OBJECTS[1]].condition(16)[None]
    with torch.no_grad():
        condition = denoiser.condition(codec.condition_latent(image), image)
        zero = codec.condition_latent(torch.full((1, 3, 16, 16), 0.5))
    expected = sample_codes(denoiser, condition, zero, SHAPE, defaults.infer, [int_hash(OBJECTS[1])])
    torch.testing.assert_close(actual, expected)


def mixed_up_unet(folder: StageFolder) -> Any:
    """The model's UNet with nonzero output."""
    model = Experiment.model_validate({"model": folder.config.model.model_dump() | SIZES_OF_UNET}).model
    denoiser = model.denoiser().eval()
    with torch.no_grad():
        denoiser.unet.conv_out.weight.normal_(generator=torch.Generator().manual_seed(1))
    return denoiser


SIZES_OF_UNET: dict[str, Any] = {
    "unet_size": {
        "channels": [8, 16], "layers_per_block": 1, "head_dim": 8, "cross_attention_dim": 16, "norm_groups": 4,
    },
    "vision_size": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "heads": 2},
    "prompt_tokens": 4,
}  # fmt: skip


def test_stages_use_predicted_codes_and_a_rerun_only_predicts_missing_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "BATCH", 3)
    trained, coded = micro(tmp_path, ONE_STEP)
    autodecoder.run(trained, threads=1)
    files = sorted((trained.path / FOLDER).iterdir())
    assert [len(load_file(file)) for file in files] == [3, 1]
    files[0].unlink()
    before = load_file(files[1])
    predicted: list[list[str]] = []
    real = Predictor.__call__

    def counted(self: Predictor, scenes: SceneStore, names: list[str]) -> Tensor:
        predicted.append(names)
        return real(self, scenes, names)

    monkeypatch.setattr(Predictor, "__call__", counted)
    autodecoder.run(trained, threads=1)
    assert predicted == [list(OBJECTS[:3])]
    codes.run(coded, threads=1)
    written = load_file(coded.path / "codes.safetensors")
    assert sorted(written) == sorted(OBJECTS[:4])
    torch.testing.assert_close(written[OBJECTS[3]], before[OBJECTS[3]], atol=0, rtol=0)
    torch.testing.assert_close(written[OBJECTS[0]], load_file(files[0])[OBJECTS[0]], atol=0, rtol=0)


def test_optimized_codes_stay_off_the_device() -> None:
    """Moving the module moves neither codes nor moments."""
    book = OptimizedBook(3, (1, 2, 2), 0.1, "uniform", reset=False, seed=0).to("meta")
    assert {t.device.type for t in (book.codes, book.moments, book.visits)} == {"cpu"}
    assert not list(book.parameters())
    assert not list(book.buffers())
