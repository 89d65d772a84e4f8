"""Replayed passes: the same training as with eager passes, and gradients averaged over ranks."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.builders import Toy, experiment, toy_options
from torch import Tensor

from z1g.bench.diffusion_size import SIZES
from z1g.bench.unet import _data
from z1g.config.sections import Distillation, UNetOptions
from z1g.core.files import read_jsonl
from z1g.core.seeding import seeded
from z1g.objectives.diffusion import DiffusionData, DiffusionObjective
from z1g.objectives.distillation import DistillationObjective
from z1g.training import loop, passes
from z1g.training.data import StepData
from z1g.training.loop import Trainer, one_precision_each
from z1g.training.passes import EagerPasses, ReplayedPasses

STEPS = 8


def trained(folder: Path, distilled: bool = False, **speed: bool) -> tuple[Trainer, dict[str, Tensor]]:
    """A small stage 2 with a trained image encoder, or its distillation, after a few steps."""
    size = SIZES["tiny"]
    with seeded(0):
        data = _data(size)
        denoiser = size.model.denoiser()
        torch.nn.init.normal_(denoiser.unet.conv_out.weight, std=0.1)
    train: dict[str, Any] = {"batch_size": 4, "steps": STEPS, "ema": 0.9, "speed": speed, "optimizer": {"lr": 1e-3}}
    distill = Distillation.model_validate({"steps": 2, "teacher_steps": 4, "train": train})
    options = UNetOptions.model_validate({"train": train, "distill": distill if distilled else None})
    denoiser.requires_grad_(True)
    images = torch.rand(len(data.codes), 3, 16, 16, generator=torch.Generator().manual_seed(1))
    data = replace(data, embeddings=None, images=images)
    objective: DiffusionObjective | DistillationObjective = DiffusionObjective(options, denoiser, data)
    if distilled:
        objective = DistillationObjective(options, distill, denoiser, data)
    steps = StepData(objective.sample, len(data.codes), 4, options.train.seed)
    trainer = Trainer(objective, steps, options.train, folder)
    trainer.run()
    own = {name: p.detach().cpu() for name, p in objective.named_parameters() if name.startswith("denoiser.")}
    return trainer, own


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("distilled", [False, True])
def test_replayed_training_gives_the_weights_of_eager_training(distilled: bool, tmp_path: Path) -> None:
    eager_trainer, eager = trained(tmp_path / "eager", distilled, replay=False)
    replayed_trainer, replayed = trained(tmp_path / "replayed", distilled, replay=True)
    assert isinstance(eager_trainer.passes, EagerPasses)
    assert isinstance(replayed_trainer.passes, ReplayedPasses)
    assert replayed_trainer.passes.replay is not None
    start = trained_from(eager)
    change = sum(float((value - start[name]).norm()) for name, value in eager.items())
    difference = sum(float((value - eager[name]).norm()) for name, value in replayed.items())
    assert change > 0
    assert difference < 0.05 * change


def trained_from(like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The initial weights of `trained`."""
    with seeded(0):
        _data(SIZES["tiny"])
        denoiser = SIZES["tiny"].model.denoiser()
        torch.nn.init.normal_(denoiser.unet.conv_out.weight, std=0.1)
    start = {f"denoiser.{name}": p.detach() for name, p in denoiser.named_parameters()}
    assert start.keys() == like.keys()
    return start


def test_without_a_gpu_passes_are_eager(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    trainer, _ = trained(tmp_path, replay=True)
    assert isinstance(trainer.passes, EagerPasses)


@pytest.mark.parametrize(
    ("replayable", "device", "micro", "replay", "expected"),
    [
        (True, "cuda", None, True, "ReplayedPasses"),
        (False, "cuda", None, True, "EagerPasses"),
        (True, "cpu", None, True, "EagerPasses"),
        (True, "cuda", 2, True, "EagerPasses"),
        (True, "cuda", None, False, "EagerPasses"),
    ],
)
def test_conditions_of_replay(
    replayable: bool, device: str, micro: int | None, replay: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("ReplayedPasses", "EagerPasses"):
        monkeypatch.setattr(passes, kind, lambda *_, kind=kind: kind)
    accelerator: Any = SimpleNamespace(device=torch.device(device))
    actual = passes.passes(SimpleNamespace(replayable=replayable), accelerator, micro, replay=replay)
    assert actual == expected


def test_passes_are_eager_after_a_failed_capture(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: ReplayedPasses, batch: Any) -> None:
        raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(ReplayedPasses, "_capture", fail)
    toy = Toy(dropout=0)
    options = toy_options(batch_size=4, steps=6)
    accelerator: Any = SimpleNamespace(num_processes=1, device=torch.device("cpu"), autocast=nullcontext)
    replayed = ReplayedPasses(toy, accelerator)
    for batch in toy.data(options).batches(0, 6, 0, 1, 0):
        toy.zero_grad()
        assert replayed(batch)["loss"].isfinite()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in toy.parameters())
    assert caplog.text.count("operation not permitted") == 1
    assert "when stream" not in caplog.text


def test_a_batch_of_another_shape_begins_another_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where training goes over to its second phase. Each graph is captured after its own warm-up."""
    captured: list[int] = []

    def capture(self: ReplayedPasses, batch: dict[str, Tensor]) -> None:
        captured.append(batch["x"].shape[1])
        self.inputs = {name: value.clone() for name, value in batch.items()}
        self.replay = lambda: None
        self.losses, self.gradients = {"loss": torch.zeros(())}, [None for _ in self.trained]

    class Wide(Toy):
        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"loss": self.net(batch["x"][:, :4]).square().mean()}

    monkeypatch.setattr(ReplayedPasses, "_capture", capture)
    accelerator: Any = SimpleNamespace(num_processes=1, device=torch.device("cpu"), autocast=nullcontext)
    replayed = ReplayedPasses(Wide(dropout=0), accelerator)
    losses = [float(replayed({"key": torch.zeros(2, 3), "x": torch.ones(2, n)})["loss"]) for n in [4] * 6 + [5] * 6]
    assert captured == [4, 5]
    replays = [step for step, loss in enumerate(losses) if loss == 0]
    assert replays == [3, 4, 5, 9, 10, 11]


# The published method's two phases


def losses_of_phases(
    folder: Path, lr: float = 1e-3, speed: dict[str, bool] | None = None, finetune: str = "full"
) -> tuple[list[float], Trainer]:
    """The losses of all steps of attributes' stage 2, whose first half trains attributes alone."""
    representation = {"kind": "attributes", "denoiser": {"alone_share": 0.5}}
    config = experiment(Path("unused"), representation=representation)
    train = {"batch_size": 4, "steps": 2 * STEPS, "log_every": 1, "optimizer": {"lr": lr}, "precision": "fp32"}
    train |= {"schedule": {"kind": "constant"}, "speed": speed or {}}
    losses = {"latent": {"kind": "latent", "weighting": "min_snr"}}
    options = UNetOptions.model_validate({"losses": losses, "train": train, "finetune": {"kind": finetune}})
    shape = config.representation.code_shape(config.model, config.splat.size)
    with seeded(0):
        denoiser = config.new_denoiser()
        torch.nn.init.normal_(denoiser.unet.conv_out.weight, std=0.1)
        latents, zero = torch.randn(8, *shape[1:]), torch.zeros(1, *shape[1:])
        data = DiffusionData(torch.randn(8, *shape), latents, zero, torch.randn(8, 16))
    options.finetune.prepare(denoiser)
    objective = DiffusionObjective(options, denoiser, data)
    # A process has one precision otherwise.
    one_precision_each()
    trainer = Trainer(objective, StepData(objective.sample, 8, 4, options.train.seed), options.train, folder)
    trainer.run()
    one_precision_each()
    return [row["loss"] for row in read_jsonl(folder / "history.jsonl") if "loss" in row], trainer


def assert_same_training(losses: list[float], eager: list[float], slow: list[float]) -> None:
    """Losses differ by rounding, which training amplifies, and by much less than those of weights that hardly move."""
    difference, moved = (np.array([abs(a / b - 1) for a, b in zip(row, eager, strict=True)]) for row in (losses, slow))
    assert len(eager) == 2 * STEPS
    assert moved[-4:].max() > 0.01, "the test would see weights of an earlier step"
    assert difference.max() < 0.001


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the codes of the batches whose passes were captured. On a CPU, a replay computes them anew.

    It writes to the tensors of the capture, like a graph's.
    """
    shapes: list[tuple[int, ...]] = []
    real = ReplayedPasses._capture

    def emulated(self: ReplayedPasses, batch: dict[str, Tensor]) -> None:
        self.inputs = {name: value.clone() for name, value in batch.items()}

        def compute() -> tuple[dict[str, Tensor], list[Tensor | None]]:
            for parameter in self.trained:
                parameter.grad = None
            losses = {name: value.detach() for name, value in self._passes(self.inputs).items()}
            return losses, [parameter.grad for parameter in self.trained]

        def replay() -> None:
            losses, gradients = compute()
            for name, value in losses.items():
                self.losses[name].copy_(value)
            for static, new in zip(self.gradients, gradients, strict=True):
                assert (static is None) == (new is None)
                if static is not None and new is not None:
                    static.copy_(new)

        (self.losses, self.gradients), self.replay = compute(), replay

    def capture(self: ReplayedPasses, batch: dict[str, Tensor]) -> None:
        (real if torch.cuda.is_available() else emulated)(self, batch)
        shapes.append(tuple(batch["code"].shape))

    monkeypatch.setattr(ReplayedPasses, "_capture", capture)
    return shapes


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the graphs are captured there")
def test_replayed_phases_on_a_cpu(
    tmp_path: Path, captures: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, _ = losses_of_phases(tmp_path / "eager")
    monkeypatch.setattr(loop, "passes", lambda objective, accelerator, *_, **__: ReplayedPasses(objective, accelerator))
    replayed, _ = losses_of_phases(tmp_path / "replayed")
    slow, _ = losses_of_phases(tmp_path / "slow", lr=1e-6)
    assert captures[:2] == [(4, 6, 4, 4, 4), (4, 30, 4, 4, 4)]
    assert_same_training(replayed, eager, slow)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("finetune", ["full", "lora"])
def test_graphs_of_both_phases_give_the_losses_of_eager_passes(
    tmp_path: Path, captures: list[tuple[int, ...]], finetune: str
) -> None:
    """Of fused kernels, replayed and launched, and of plain layers."""
    ways = {
        "replayed": {"fused": True, "replay": True},
        "fused": {"fused": True, "replay": False},
        "plain": {"fused": False, "replay": False},
        "slow": {"fused": False, "replay": False},
    }
    losses, trainers = {}, {}
    with torch.backends.cudnn.flags(allow_tf32=False):
        for name, speed in ways.items():
            lr = 1e-6 if name == "slow" else 1e-3
            losses[name], trainers[name] = losses_of_phases(tmp_path / name, lr, speed, finetune)
    assert captures == [(4, 6, 4, 4, 4), (4, 30, 4, 4, 4)], "one graph a phase"
    assert isinstance(trainers["replayed"].passes, ReplayedPasses)
    assert trainers["replayed"].passes.replay is not None
    assert isinstance(trainers["fused"].passes, EagerPasses)
    for name in ("replayed", "fused"):
        assert_same_training(losses[name], losses["plain"], losses["slow"])


def test_micro_batches_are_summed(tmp_path: Path) -> None:
    """Losses and gradients of a batch in pieces equal those of the whole batch."""
    results = []
    for micro in (None, 3):
        toy = Toy(dropout=0)
        options = toy_options(batch_size=4, micro_batch=micro)
        trainer = Trainer(toy, toy.data(options), options, tmp_path / str(micro))
        batch = next(iter(toy.data(options).batches(0, 1, 0, 1, 0)))
        losses = trainer.passes({name: value.to(trainer.accelerator.device) for name, value in batch.items()})
        results.append([losses["loss"].detach(), *(p.grad for p in toy.parameters() if p.grad is not None)])
    torch.testing.assert_close(*results)
