"""Stage 2 in few steps: what is learned against a denoiser whose ways are known, the stage, and models that travel."""

import copy
import shutil
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.builders import TRAIN, experiment, fill, plan, stage_path, without_seconds
from support.die import run_and_die
from support.diffusion import SCHEDULE, SHAPE, micro_denoiser, normal
from support.finished import finish
from support.photographs import disc, saved
from support.running import interrupted, run_stages
from torch import Tensor, nn

from z1g.cli.main import main
from z1g.config.prune import Prune
from z1g.config.resolve import Run
from z1g.config.sections import UNetOptions
from z1g.core.errors import UserError
from z1g.core.files import read_json, read_jsonl
from z1g.core.seeding import keyed_normal
from z1g.inference.method import ImageToSplats
from z1g.inference.models import of_run
from z1g.networks.denoiser import Condition, Denoiser
from z1g.networks.fused.modules import fuse
from z1g.networks.trajectory import CLEAN, shortcut, step, times
from z1g.objectives import purposes
from z1g.objectives.diffusion import DiffusionData
from z1g.objectives.distillation import DistillationObjective, DistillationSamples
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.representations.mosaic.pipeline import Zero1ToGPipeline
from z1g.sampling.options import InferOptions
from z1g.sampling.samplers.ddim import Ddim
from z1g.stages import autodecoder, codes, infer, unet
from z1g.training.data import Draw
from z1g.training.speed import recompute

ZERO = torch.zeros(1, 4, 4, 4)


def tables() -> tuple[Any, Any]:
    """a_t and s_t of all timesteps, and 1 and 0 for the end, at the index -1; by the published betas, float64."""
    kept = np.cumprod(1 - np.linspace(0.00085, 0.012, 1000))
    return np.append(np.sqrt(kept), 1.0), np.append(np.sqrt(1 - kept), 0.0)


ALPHA, SIGMA = tables()


# Steps


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 8, 10, 20, 25, 40, 50])
def test_times_are_those_of_ddim(steps: int) -> None:
    scheduler = Ddim().scheduler()
    scheduler.set_timesteps(steps)
    assert times(steps)[:-1] == scheduler.timesteps.tolist()
    assert times(steps)[-1] == CLEAN
    assert times(4 * steps)[::4] == times(steps)


def test_steps_are_those_of_ddim() -> None:
    scheduler, noisy = Ddim().scheduler(), normal(3, *SHAPE, seed=1)
    scheduler.set_timesteps(5)
    for i, (start, end) in enumerate(pairwise(times(5))):
        velocity = normal(3, *SHAPE, seed=10 + i)
        expected = scheduler.step(velocity, start, noisy, return_dict=False)[0]
        actual = step(SCHEDULE, noisy, velocity, torch.tensor([start] * 3), torch.tensor([end] * 3))
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
        noisy = actual


def test_a_shortcut_leads_where_it_is_told() -> None:
    """In float64, for rows of different times, the last of which arrive at the end."""
    noisy, arrived = normal(4, *SHAPE, seed=1, dtype=torch.float64), normal(4, *SHAPE, seed=2, dtype=torch.float64)
    start, end = [999, 999, 749, 249], [499, CLEAN, 100, CLEAN]
    code = shortcut(SCHEDULE, noisy, arrived, torch.tensor(start), torch.tensor(end)).numpy()
    for i, (t, u) in enumerate(zip(start, end, strict=True)):
        noise = (noisy[i].numpy() - ALPHA[t] * code[i]) / SIGMA[t]
        np.testing.assert_allclose(ALPHA[u] * code[i] + SIGMA[u] * noise, arrived[i].numpy(), atol=1e-9)


# What is learned


class Linear(Denoiser):
    """Denoises codes that are normal, around the condition's latent with a known deviation: exact, and linear.

    x0 = m + (a·d²/(a²d² + s²))·(x - a·m), times a trained factor that is 1.
    """

    deviation = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.vision = nn.Linear(1, 1, bias=False, dtype=torch.float64), nn.Identity()
        nn.init.ones_(self.unet.weight)

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Condition, condition_noise: Tensor) -> Tensor:
        at = [timestep.numpy()[:, None, None, None]]
        a, s = torch.from_numpy(ALPHA[at[0]]), torch.from_numpy(SIGMA[at[0]])
        gain = a * self.deviation**2 / (a**2 * self.deviation**2 + s**2)
        code = condition.latent + gain * (noisy - a * condition.latent)
        return (a * noisy - self.unet.weight * code) / s

    def embed(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :1]

    @property
    def embedding_width(self) -> int:
        return 1


def options(**distill: Any) -> UNetOptions:
    return UNetOptions.model_validate({"distill": distill})


def linear(**distill: Any) -> DistillationObjective:
    data = DiffusionData(
        normal(3, *SHAPE, seed=1), normal(3, *SHAPE, seed=2, dtype=torch.float64),
        torch.full((1, *SHAPE), 0.25, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64),
    )  # fmt: skip
    chosen = options(**distill)
    assert chosen.distill is not None
    return DistillationObjective(chosen, chosen.distill, Linear(), data)


def batch(of: DistillationObjective, at: int = 0) -> dict[str, Tensor]:
    made = of.data.batch(torch.arange(len(of.data.codes)), 0, torch.device("cpu"))
    return {**made, "key": torch.tensor([[7, at, i] for i in range(len(of.data.codes))])}


def ways(mean: Any, zero: float, noise: Any, steps: int, every: int, guidance: float) -> Any:
    """Places [steps+1,...] of the linear denoiser's way with guidance, in `every` steps of DDIM a place, by hand."""
    place, places, deviation = noise, [noise], Linear.deviation
    stops = [round(1000 * (1 - i / (steps * every))) - 1 for i in range(steps * every + 1)]
    for i, (t, u) in enumerate(pairwise(stops)):
        gain = ALPHA[t] * deviation**2 / (ALPHA[t] ** 2 * deviation**2 + SIGMA[t] ** 2)
        guided = zero + guidance * (mean - zero)
        # x0 is linear in the mean, so that guidance moves the mean.
        code = guided + gain * (place - ALPHA[t] * guided)
        place = ALPHA[u] * code + SIGMA[u] * (place - ALPHA[t] * code) / SIGMA[t]
        if (i + 1) % every == 0:
            places.append(place)
    return np.stack(places)


@pytest.mark.parametrize(("steps", "every", "guidance"), [(1, 12, 1.0), (2, 3, 2.5), (4, 2, 1.0), (4, 1, 2.0)])
def test_the_loss_is_the_distance_from_the_teacher_s_way(steps: int, every: int, guidance: float) -> None:
    own = linear(steps=steps, teacher_steps=steps * every, guidance=guidance)
    made = batch(own)
    keys = torch.cat([made["key"], torch.full((3, 1), purposes.NOISE)], dim=1)
    noise, mean = keyed_normal(keys, SHAPE).double().numpy(), own.data.latents.numpy()
    places = ways(mean, 0.25, noise, steps, every, guidance)
    errors = []
    for i in range(steps):
        t, u = (round(1000 * (1 - j / steps)) - 1 for j in (i, i + 1))
        gain = ALPHA[t] * 0.25 / (ALPHA[t] ** 2 * 0.25 + SIGMA[t] ** 2)
        predicted = mean + gain * (places[i] - ALPHA[t] * mean)
        ratio = SIGMA[u] / SIGMA[t]
        target = (places[i + 1] - ratio * places[i]) / (ALPHA[u] - ratio * ALPHA[t])
        errors.append(np.square(predicted - target).mean())
    terms = own(made)
    # The noise is float32, and so are velocities, as in training.
    assert terms["loss"].item() == pytest.approx(np.mean(errors), rel=1e-4)
    assert float(terms["latent"]) == pytest.approx(np.mean(errors), rel=1e-4)


def test_the_optimum_is_the_exact_end_of_the_way() -> None:
    """The ODE of normal codes has a solution: a code is m + d·(x - a·m)/√(a²d² + s²). One step learns to give it.

    Up to the error of the teacher's steps, which is of first order.
    """
    errors = []
    for teacher_steps in (125, 250, 500):
        own = linear(steps=1, teacher_steps=teacher_steps, guidance=1)
        made = batch(own)
        keys = torch.cat([made["key"], torch.full((3, 1), purposes.NOISE)], dim=1)
        noise, mean, d = keyed_normal(keys, SHAPE).double(), own.data.latents, Linear.deviation
        expected = mean + d * (noise - ALPHA[999] * mean) / (ALPHA[999] ** 2 * d**2 + SIGMA[999] ** 2) ** 0.5
        learned = own._compared(made).latents_true
        assert learned is not None
        errors.append(float((learned.double() - expected).abs().max()))
    assert errors[2] < 0.02
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.3)
    assert errors[2] == pytest.approx(errors[1] / 2, rel=0.3)


@pytest.mark.parametrize(("weighting", "first"), [("x0", 1), ("epsilon", 1), ("min_snr", 1), ("v", 2)])
def test_a_step_from_noise_counts(weighting: str, first: float) -> None:
    """Though the signal-to-noise ratio there is 0.0016; later steps have the weights of theirs."""
    losses = {"latent": {"kind": "latent", "weighting": weighting}}
    own = linear(steps=4, teacher_steps=8, guidance=1)
    own.options = own.options.model_validate({**own.options.model_dump(), "losses": losses})
    made = batch(own)
    pair = own._compared(made)
    assert pair.latents is not None
    assert pair.latents_true is not None
    errors = (pair.latents - pair.latents_true).square().unflatten(0, (4, 3)).flatten(1).mean(dim=1).tolist()
    ratio = ALPHA[249] ** 2 / SIGMA[249] ** 2
    last = {"x0": 1, "epsilon": ratio, "min_snr": min(ratio, 5), "v": 1 + ratio}[weighting]
    assert ratio > 1
    expected = np.dot(errors, [first, first, first, last]) / 4
    assert own(made)["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_mixed_conditions_are_between_two_objects() -> None:
    """Each in one share for latent and embedding; the fraction is that of the option; draws depend on the key only."""
    latents, embeddings = normal(5, *SHAPE, seed=2), normal(5, 16, seed=3)
    data = DiffusionData(normal(5, *SHAPE, seed=1), latents, ZERO, embeddings)
    samples, mixed, shares = DistillationSamples(data, mixed=0.5), 0, []
    for slot in range(200):
        sample = samples(Draw(2, 0, (7, 3, slot)))
        again = samples(Draw(2, 9, (7, 3, slot)))
        assert all(torch.equal(sample[name], again[name]) for name in sample)
        away = sample["latent"] - latents[2]
        if not away.any():
            assert torch.equal(sample["embedding"], embeddings[2])
            continue
        mixed += 1
        others = (latents - latents[2]).flatten(1)
        fits = others @ away.flatten() / others.square().sum(dim=1)
        left = (away.flatten() - fits[:, None] * others).square().sum(dim=1).nan_to_num(torch.inf)
        other = int(left.argmin())
        share = float(fits[other])
        assert left[other] < 1e-6
        torch.testing.assert_close(sample["embedding"], embeddings[2] + share * (embeddings[other] - embeddings[2]))
        shares.append(share)
    assert 50 < mixed < 110, "a fifth of the partners is the object itself"
    assert min(shares) > 0
    assert 0.9 < max(shares) < 1


def test_the_teacher_stays_as_it_is() -> None:
    own = linear(steps=2, teacher_steps=4)
    own.train()
    assert not own.teacher.training
    assert own.denoiser.training
    optimizer = torch.optim.SGD([p for p in own.parameters() if p.requires_grad], lr=0.1)
    before = copy.deepcopy(own.teacher.unet.weight)
    own(batch(own))["loss"].backward()
    optimizer.step()
    assert torch.equal(own.teacher.unet.weight, before)
    assert not torch.equal(own.denoiser.unet.weight, before)
    assert own.teacher.distilled_steps is None
    assert own.denoiser.distilled_steps == 2


def test_training_finds_the_best_network() -> None:
    """The factor that is trained has a best value in closed form: one step of a linear network, least squares."""
    own = linear(steps=1, teacher_steps=20, guidance=1.5)
    made = batch(own)
    keys = torch.cat([made["key"], torch.full((3, 1), purposes.NOISE)], dim=1)
    noise, mean = keyed_normal(keys, SHAPE).double().numpy(), own.data.latents.numpy()
    target = ways(mean, 0.25, noise, 1, 20, 1.5)[-1]
    gain = ALPHA[999] * 0.25 / (ALPHA[999] ** 2 * 0.25 + SIGMA[999] ** 2)
    code = mean + gain * (noise - ALPHA[999] * mean)
    best = float((target * code).sum() / (code * code).sum())
    assert abs(best - 1) > 0.1
    weight = own.denoiser.unet.weight
    optimizer = torch.optim.SGD([weight], lr=0.2)
    for _ in range(100):
        optimizer.zero_grad()
        own(made)["loss"].backward()
        optimizer.step()
    assert weight.item() == pytest.approx(best, abs=1e-4)


def test_copies_of_tuned_networks_have_their_own_weights() -> None:
    """Tuning replaces forward passes by functions that hold layers: those of a copy must hold the copy's."""
    teacher, data = micro_denoiser(), DiffusionData(normal(2, *SHAPE), normal(2, 4, 4, 4), ZERO, normal(2, 16))
    fuse(teacher.unet)
    recompute([teacher.unet])
    chosen = options(steps=2, teacher_steps=4)
    assert chosen.distill is not None
    own = DistillationObjective(chosen, chosen.distill, teacher, data)
    assert data.embeddings is not None
    condition, noisy = Condition(data.latents, data.embeddings), normal(2, *SHAPE, seed=5)
    arguments = (noisy, torch.tensor([500, 10]), condition, torch.zeros(2, 4, 4, 4))
    before = own.teacher(*arguments)
    torch.testing.assert_close(own.denoiser(*arguments), before)
    for name, parameter in own.denoiser.unet.named_parameters():
        if "conv_out" not in name:
            parameter.data.zero_()
    assert torch.equal(own.teacher(*arguments), before)
    assert not torch.allclose(own.denoiser(*arguments), before, atol=1e-3)
    inner = [p for name, p in own.denoiser.unet.named_parameters() if "resnets" in name]
    own.denoiser.unet.load_state_dict(own.teacher.unet.state_dict())
    own.denoiser.unet.requires_grad_(True)
    own.denoiser(*arguments).square().sum().backward()
    assert all(p.grad is not None for p in inner)
    assert all(p.grad is None for p in own.teacher.parameters())


def test_validation_is_of_both_sets_and_repeats() -> None:
    own = linear(steps=2, teacher_steps=4)
    assert set(own.validate()) == {"trained_loss"}
    own.held_out = own.data
    figures = own.validate()
    assert figures["trained_loss"] == figures["held_out_loss"] == own.validate()["trained_loss"]


# The configuration

GOOD: dict[str, Any] = {"sampler": {"kind": "ddim"}, "steps": 2, "guidance": 1}


@pytest.mark.parametrize(
    ("distill", "changes", "words"),
    [
        ({"steps": 3}, {}, "steps 3 does not divide 1000"),
        ({"teacher_steps": 5}, {}, "teacher_steps 5 is not a multiple of steps, 2"),
        ({"teacher_steps": 2, "guidance": 1}, {}, "leaves nothing to learn"),
        ({"train": {"precision": "bf16"}}, {}, "train.precision 'bf16' is not that of unet.train, 'fp32'"),
        ({}, {"unet": {"objective": "regression"}}, "no effect with unet.objective 'regression'"),
        ({}, {"unet": {"losses": {"latent": {"weight": 0}}}}, "at least one loss"),
        ({}, {"infer": {"codes": {"kind": "one_step"}}}, "infer.codes 'one_step'"),
        ({}, {"infer": {"steps": 4}}, r"distilled to 2 steps .* steps: 2, guidance: 1"),
        ({}, {"infer": {"guidance": 2}}, "sampled in these only"),
        ({}, {"infer": {"sampler": {"kind": "ddpm"}}}, "kind: ddim"),
        (
            {},
            {"representation": {"kind": "attributes", "denoiser": {"cascade": ["rgb"]}}},
            "generates some attributes before",
        ),
    ],
)
def test_what_cannot_be_distilled(distill: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    own = {"steps": 2, **distill}
    merged = {
        **changes,
        "unet": {"distill": own, **changes.get("unet", {})},
        "infer": {**GOOD, **changes.get("infer", {})},
    }
    with pytest.raises(ValueError, match=words):
        experiment(Path("unused"), **merged)


def test_a_pruned_study_does_not_distill(tmp_path: Path) -> None:
    made = plan(tmp_path, unet=DISTILLED, infer=GOOD).ablations["micro"].ablation
    pruned = replace(made, run=Run("micro", "micro", prune=Prune(), cohort="micro"))
    with pytest.raises(UserError, match="micro is pruned by its UNet"):
        _ = Plan([pruned], tmp_path / "results").pruning
    folder = StageFolder.open(stage_path(plan(tmp_path, unet=DISTILLED, infer=GOOD), "unet"))
    with pytest.raises(UserError, match="before they are distilled"):
        unet.run(folder, threads=1, until=0.5)


def test_without_distillation_nothing_changes(tmp_path: Path) -> None:
    """Stage 1 and its codes are shared by students and teacher; the stage itself is another one."""
    (tmp_path / "teacher").mkdir()
    first, second = plan(tmp_path / "teacher"), plan(tmp_path / "teacher", unet=DISTILLED, infer=GOOD)
    one, two = (planned.ablations["micro"].stages for planned in (first, second))
    assert one["codes"].id == two["codes"].id
    assert one["unet"].id != two["unet"].id


# The stage

DISTILLED: dict[str, Any] = {
    "distill": {"steps": 2, "teacher_steps": 4, "train": {**TRAIN, "steps": 8, "precision": "auto", "ema": 0.5}}
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return finish(tmp_path_factory.mktemp("distilled"), unet=DISTILLED, infer=GOOD)


@pytest.mark.slow
def test_the_history_has_both_trainings(finished: Plan) -> None:
    rows = read_jsonl(stage_path(finished, "unet") / "history.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12, 14]
    assert all("loss" in row and "distill_loss" not in row for row in rows[:3])
    assert all("loss" not in row and "distill_loss" in row for row in rows[3:])
    assert {"distill_trained_loss", "distill_held_out_loss"} <= set(rows[-1])
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)


@pytest.mark.slow
def test_a_model_knows_its_steps(
    finished: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its folder, as a model that travels, and as a pipeline of diffusers; other steps are refused."""
    # Photographs have kernels of their own on some CPUs; see test_onednn.py.
    monkeypatch.setattr("z1g.inference.method.has_bf16_matrices", lambda: False)
    monkeypatch.setattr("z1g.networks.onednn.is_slow_for_mkl", lambda: False)
    pipeline = stage_path(finished, "unet") / "pipeline"
    assert read_json(pipeline / "conditioning" / "config.json")["distilled_steps"] == 2
    run = finished.results / "ablations" / "micro"
    method = ImageToSplats.of(of_run(run))
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    _, splats = method(images, [0, 1])
    published = Zero1ToGPipeline.from_pretrained(pipeline)
    torch.testing.assert_close(published(images).splats, splats, atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="distilled to 2 steps"):
        published(images, num_inference_steps=4)
    photograph = str(saved(tmp_path, disc(), "a.png"))
    assert main(["pack", str(run), "--weights", "int8", "--out", str(tmp_path / "model")]) == 0
    words = ["infer", photograph, "--model", str(tmp_path / "model"), "--size", "16"]
    assert main([*words, "--out", str(tmp_path / "own")]) == 0
    assert read_json(tmp_path / "own" / "a.json")["steps"] == 2
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "other"), "--steps", "4"]) == 2
    assert "distilled to 2 steps" in capsys.readouterr().err


@pytest.mark.slow
def test_results_verify_and_the_card_says_it(finished: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished.results / "ablations" / "micro"
    code = main(["verify", str(run), "--sample", "1"])
    text = capsys.readouterr().out
    assert code == 0, text
    card = (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "distilled to sampling in 2 steps without guidance" in card
    damaged = next((stage_path(finished, "unet") / "distill" / "checkpoints").glob("*.pt"))
    kept = damaged.read_bytes()
    damaged.write_bytes(kept[:-100] + bytes(100))
    assert main(["verify", str(run), "--sample", "1"]) != 0
    assert str(damaged) in capsys.readouterr().out
    damaged.write_bytes(kept)


@pytest.fixture
def begun(finished: Plan, tmp_path: Path) -> Path:
    """The stage's folder in a copy of the tree, before its job."""
    made = stage_path(finished, "unet")
    shutil.copytree(finished.results, tmp_path / "results", ignore=shutil.ignore_patterns(made.name))
    folder = tmp_path / "results" / "unet" / made.name
    folder.mkdir()
    for name in ("stage.json", "manifest.jsonl"):
        if (made / name).exists():
            shutil.copy(made / name, folder / name)
    return folder


def require_same(folder: Path, finished: Plan) -> None:
    """Weights to the bit, and figures, are those of the run that never stopped."""
    other = stage_path(finished, "unet")
    files = sorted((other / "pipeline").rglob("*.safetensors"))
    assert files
    for file in files:
        assert file.read_bytes() == (folder / file.relative_to(other)).read_bytes(), file.name
    ours, theirs = (without_seconds(read_jsonl(x / "history.jsonl")) for x in (folder, other))
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("moment", [{"before": 3}, {"after": 4}])
def test_an_interrupted_teacher_goes_on(moment: dict[str, int], begun: Path, finished: Plan) -> None:
    with interrupted(**moment):
        unet.run(StageFolder.open(begun), threads=1)
    assert not (begun / "distill" / "checkpoints").exists()
    unet.run(StageFolder.open(begun), threads=1)
    require_same(begun, finished)


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "when", "code"), [
    ("SIGKILL", "step-7", -signal.SIGKILL), ("SIGKILL", "write-8", -signal.SIGKILL), ("SIGTERM", "step-6", 75),
])  # fmt: skip
def test_a_killed_distillation_goes_on(sent: str, when: str, code: int, begun: Path, finished: Plan) -> None:
    """The teacher has six steps, so that these are steps of the distillation; the teacher is not trained again."""
    ended = run_and_die(sent, when, "unet", begun)
    assert ended.code == code, ended.output
    assert "Traceback" not in ended.output
    teacher = {file.name: file.stat().st_mtime_ns for file in (begun / "checkpoints").glob("*.pt")}
    assert not (begun / "pipeline").exists()
    unet.run(StageFolder.open(begun), threads=1)
    assert {file.name: file.stat().st_mtime_ns for file in (begun / "checkpoints").glob("*.pt")} == teacher
    require_same(begun, finished)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["joint", "attributes"])
def test_other_representations_know_their_steps(kind: str, tmp_path: Path) -> None:
    """The whole chain to samples, and the networks as a start of training."""
    planned = plan(tmp_path, representation={"kind": kind}, unet=DISTILLED, infer=GOOD)
    fill(planned)
    run_stages(planned, autodecoder, codes, unet, infer)
    folder = stage_path(planned, "unet") / "pipeline"
    images, other = torch.rand(1, 3, 16, 16), InferOptions(sampler=Ddim(), steps=3, guidance=1)
    assert ImageToSplats.from_folder(folder, InferOptions.model_validate(GOOD)).denoiser.distilled_steps == 2
    with pytest.raises(UserError, match="distilled to 2 steps"):
        ImageToSplats.from_folder(folder, other)(images, [0])


@pytest.mark.slow
def test_a_distilled_model_is_trained_before_it_teaches(finished: Plan, tmp_path: Path) -> None:
    """As it is, it is refused; after more training it may be sampled in any number of steps again."""
    model = tmp_path / "model"
    run = finished.results / "ablations" / "micro"
    assert main(["pack", str(run), "--weights", "float32", "--out", str(model)]) == 0
    started = {"kind": "trained", "pretrained": str(model)}
    still = plan(tmp_path / "again", n_objects=3, model=started, unet={"train": {"steps": 0}})
    fill(still)
    run_stages(still, autodecoder, codes)
    with pytest.raises(UserError, match="distilled to 2 steps"):
        unet.run(StageFolder.open(stage_path(still, "unet")), threads=1)
    moved = plan(tmp_path / "again", n_objects=3, model=started)
    run_stages(moved, unet)
    stored = stage_path(moved, "unet") / "pipeline" / "conditioning" / "config.json"
    assert read_json(stored)["distilled_steps"] is None


@pytest.mark.slow
def test_a_trained_model_teaches_as_it_is(tmp_path: Path) -> None:
    """With no steps of either stage, only the UNet of the packed model changes: by the distillation."""
    first = finish(tmp_path / "first")
    model = tmp_path / "model"
    assert main(["pack", str(first.results / "ablations" / "micro"), "--weights", "float32", "--out", str(model)]) == 0
    none = {"train": {**TRAIN, "steps": 0}}
    started: dict[str, Any] = {
        "model": {"kind": "trained", "pretrained": str(model)},
        "autodecoder": {"codes": {"kind": "encoder", "sample": False}, **none},
        "infer": GOOD,
    }
    again = plan(tmp_path / "first", n_objects=3, **started, unet={**none, **DISTILLED, "normalize_codes": False})
    run_stages(again, autodecoder, codes, unet)
    out, changed = stage_path(again, "unet") / "pipeline", set()
    for file in sorted(out.rglob("*.safetensors")):
        before, after = load_file(model / "pipeline" / file.relative_to(out)), load_file(file)
        assert before.keys() == after.keys()
        if any(not torch.equal(before[name], after[name]) for name in before):
            changed.add(file.parent.name)
    assert changed == {"unet"}
    assert [row["step"] for row in read_jsonl(stage_path(again, "unet") / "history.jsonl")] == [2, 4, 6, 8]
