"""Stage 2 by regression: one pass without noise, its losses, its configuration, and the whole chain."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.builders import experiment, stage_path
from support.diffusion import PUBLISHED, SHAPE, condition_of, micro_denoiser, normal
from support.finished import finish
from support.photographs import disc, saved
from torch import Tensor

from z1g.cli.main import main
from z1g.codes.predictions import one_step
from z1g.config.resolve import Ablation
from z1g.config.sections import UNetOptions
from z1g.core.errors import UserError
from z1g.core.files import read_json, read_jsonl
from z1g.gaussians import files as splat_files
from z1g.inference.method import ImageToSplats
from z1g.networks import reference_attention
from z1g.networks.conditioning import Conditioning
from z1g.networks.denoiser import Condition, Denoiser
from z1g.networks.graphs import Replayed
from z1g.networks.regression import regress
from z1g.objectives.diffusion import DiffusionData, DiffusionObjective
from z1g.plan.plan import Plan
from z1g.representations.mosaic.pipeline import Zero1ToGPipeline
from z1g.sampling.options import InferOptions
from z1g.sampling.sample import sample_codes
from z1g.sampling.samplers.ddim import Ddim

ZERO = torch.zeros(1, 4, 4, 4)


def last_sigma() -> float:
    """Standard deviation of the noise at the last timestep, by the product of the published betas."""
    betas = torch.linspace(PUBLISHED["beta_start"], PUBLISHED["beta_end"], 1000, dtype=torch.float64)
    return float((1 - (1 - betas).prod()).sqrt())


def regressor() -> Denoiser:
    denoiser = micro_denoiser()
    denoiser.objective = "regression"
    return denoiser


# One pass


def test_the_network_is_asked_once_for_zeros_with_a_clean_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, seen = regressor(), []
    run = reference_attention.run

    def watched(unet: Any, sample: Tensor, timestep: Tensor, tokens: Tensor, **memory: Any) -> Tensor:
        output = run(unet, sample, timestep, tokens, **memory)
        seen.append((next(iter(memory)), sample, timestep, output))
        return output

    monkeypatch.setattr(reference_attention, "run", watched)
    condition = condition_of(denoiser, 3)
    code = regress(denoiser, denoiser.schedule, condition, SHAPE)
    (first, latent, written_at, _), (second, noisy, read_at, velocity) = seen
    assert (first, second) == ("write", "read")
    torch.testing.assert_close(latent, condition.latent, atol=1e-5, rtol=0)
    assert torch.equal(noisy, torch.zeros(3, *SHAPE))
    assert written_at.tolist() == read_at.tolist() == [999] * 3
    torch.testing.assert_close(code.double(), -last_sigma() * velocity.double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("replayed", [False, True])
def test_sampling_of_a_regressor_has_no_randomness(replayed: bool) -> None:
    denoiser = regressor()
    predict = Replayed(denoiser) if replayed else denoiser
    condition = condition_of(denoiser, 2)
    expected = regress(denoiser, denoiser.schedule, condition, SHAPE)
    for options, seeds in ((InferOptions(steps=3), [1, 2]), (InferOptions(sampler=Ddim(), steps=1, seed=4), [5, 6])):
        assert torch.equal(sample_codes(predict, condition, ZERO, SHAPE, options, seeds), expected)
    denoiser.objective = "diffusion"
    assert not torch.allclose(
        sample_codes(denoiser, condition, ZERO, SHAPE, InferOptions(steps=3), [1, 2]), expected, atol=0.01
    )


def test_a_regressor_does_not_denoise() -> None:
    denoiser, code = regressor(), normal(1, *SHAPE)
    with pytest.raises(UserError, match="trained by regression"):
        one_step(denoiser, code, torch.tensor([3]), condition_of(denoiser, 1), code, normal(1, 4, 4, 4))


# The objective


def objective(**options: Any) -> DiffusionObjective:
    data = DiffusionData(normal(3, *SHAPE, seed=1), normal(3, 4, 4, 4, seed=2), ZERO, normal(3, 16, seed=3))
    changes = {"objective": "regression", "condition_dropout": 0.9, **options}
    return DiffusionObjective(UNetOptions.model_validate(changes), micro_denoiser().requires_grad_(True), data)


def batch(of: DiffusionObjective, step: int) -> dict[str, Tensor]:
    data = of.data
    assert data.embeddings is not None
    keys = torch.tensor([[7, step, i] for i in range(3)])
    return {"code": data.codes, "latent": data.latents, "embedding": data.embeddings, "key": keys}


@pytest.mark.parametrize("weighting", ["x0", "v"])
def test_the_loss_is_the_error_of_the_only_pass(weighting: str) -> None:
    """At every step the same: nothing is drawn, and no condition is dropped."""
    own = objective(losses={"latent": {"kind": "latent", "weight": 3.0, "weighting": weighting}})
    first, second = (own(batch(own, step)) for step in (0, 1))
    assert first["loss"] == second["loss"]
    data = own.data
    assert data.embeddings is not None
    condition = Condition(data.latents, data.embeddings)
    predicted = regress(own.denoiser, own.denoiser.schedule, condition, SHAPE)
    expected = (predicted.double() - data.codes.double()).square().mean()
    torch.testing.assert_close(first["latent"].double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(first["loss"].double(), 3 * expected, atol=1e-5, rtol=0)


def test_gradients_are_those_of_the_error() -> None:
    own = objective()
    own(batch(own, 0))["loss"].backward()
    other = micro_denoiser().requires_grad_(True)
    data = own.data
    assert data.embeddings is not None
    alpha, sigma = (1 - last_sigma() ** 2) ** 0.5, last_sigma()
    noise = data.latents * (1 - alpha) / sigma
    velocity = other(torch.zeros(3, *SHAPE), torch.tensor([999] * 3), Condition(data.latents, data.embeddings), noise)
    (-sigma * velocity - data.codes).square().mean().backward()
    for (name, mine), theirs in zip(own.denoiser.unet.named_parameters(), other.unet.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-3, msg=name)


# The configuration


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"infer": {"codes": {"kind": "one_step"}}}, "infer.codes 'one_step'"),
        ({"unet": {"rendered": {"below": 300}}}, "unet.rendered.below"),
        ({"unet": {"losses": {"latent": {"weighting": "min_snr"}}}}, "min_snr"),
        ({"unet": {"losses": {"latent": {"weighting": "epsilon"}}}}, "epsilon"),
        ({"unet": {"losses": {"latent": None}}}, "unet.losses needs at least one loss"),
    ],
)
def test_what_regression_cannot_be_combined_with(changes: dict[str, Any], words: str) -> None:
    unet = {"objective": "regression", **changes.pop("unet", {})}
    with pytest.raises(ValueError, match=words):
        experiment(Path("unused"), unet=unet, **changes)


def test_renders_alone_may_teach_a_regressor_but_no_denoiser() -> None:
    options: dict[str, Any] = {"losses": {"latent": None}, "rendered": {"views": 1}}
    assert experiment(Path("unused"), unet={"objective": "regression", **options}).unet.losses == {}
    with pytest.raises(ValueError, match=r"unet\.losses needs at least one loss"):
        experiment(Path("unused"), unet=options)


def test_an_objective_of_a_later_version_is_named() -> None:
    with pytest.raises(UserError, match="'flow'"):
        _ = Conditioning(4, 16, (4, 4, 4), (4, 6, 4), "flow").objective  # type: ignore[arg-type]


# The chain


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The chain, with losses on renders and splats only."""
    losses = {name: {"kind": name} for name in ("rgb", "alpha", "splat")}
    unet = {"objective": "regression", "losses": {"latent": None}, "rendered": {"views": 1, "losses": losses}}
    return finish(tmp_path_factory.mktemp("regression"), unet=unet)


@pytest.mark.slow
def test_renders_and_splats_are_what_it_learns_from(finished: Plan) -> None:
    rows = [row for row in read_jsonl(stage_path(finished, "unet") / "history.jsonl") if "loss" in row]
    assert all({"rgb", "alpha", "splat"} <= set(row) and "latent" not in row for row in rows)
    assert all(row["loss"] == pytest.approx(row["rgb"] + row["alpha"] + row["splat"], rel=1e-4) for row in rows)
    unet = stage_path(finished, "unet") / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    assert load_file(unet)["conv_out.weight"].abs().max() > 0


@pytest.mark.slow
def test_stage_1_is_that_of_diffusion(finished: Plan, tmp_path: Path) -> None:
    """So that both are compared on the same codes."""
    shutil.copytree(finished.results.parent / "meshes", tmp_path / "meshes")
    diffusion, regression = (
        experiment(tmp_path / "meshes", unet={"objective": x}) for x in ("diffusion", "regression")
    )
    both = Plan([Ablation(x.unet.objective, "", "micro", {}, x) for x in (diffusion, regression)], tmp_path / "results")
    first, second = (both.ablations[name].stages for name in ("diffusion", "regression"))
    assert first["codes"].id == second["codes"].id
    assert first["unet"].id != second["unet"].id


@pytest.mark.slow
def test_a_folder_knows_that_it_is_asked_once(finished: Plan, tmp_path: Path) -> None:
    """Also as a model that travels, in int8, and as a pipeline of diffusers; sampling options do not matter."""
    pipeline = stage_path(finished, "unet") / "pipeline"
    assert read_json(pipeline / "conditioning" / "config.json")["objective"] == "regression"
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    codes, splats = ImageToSplats.from_folder(pipeline, InferOptions(steps=2))(images, [1, 2])
    again, _ = ImageToSplats.from_folder(pipeline, InferOptions(steps=7, seed=3))(images, [8, 9])
    assert torch.equal(codes, again)
    published = Zero1ToGPipeline.from_pretrained(pipeline)(images)
    torch.testing.assert_close(published.splats, splats, atol=1e-5, rtol=0)
    run = finished.results / "ablations" / "micro"
    photograph = str(saved(tmp_path, disc(), "a.png"))
    out: dict[str, Tensor] = {}
    assert main(["pack", str(run), "--weights", "float32", "--out", str(tmp_path / "model")]) == 0
    for name, words in {
        "run": ["--run", str(run)],
        "model": ["--model", str(tmp_path / "model"), "--seed", "5"],
    }.items():
        assert main(["infer", photograph, *words, "--out", str(tmp_path / name), "--size", "16"]) == 0
        out[name] = splat_files.read(tmp_path / name / "a.ply")
    assert torch.equal(out["run"], out["model"])


@pytest.mark.slow
def test_results_verify_and_say_what_they_are(finished: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished.results / "ablations" / "micro"
    code = main(["verify", str(run), "--sample", "1"])
    text = capsys.readouterr().out
    assert code == 0, text
    assert "micro holds" in text
    rows = read_jsonl(stage_path(finished, "metrics") / "metrics.jsonl")
    assert {"sampled", "autodecoder"} <= {row["source"] for row in rows}
    card = (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "mean of what is possible" in card
    assert "Representation `mosaic`, stage 2 by regression." in card
