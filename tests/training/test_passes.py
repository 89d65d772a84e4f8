"""Replayed passes: the same training as with eager passes, and gradients averaged over ranks."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.builders import Toy, toy_options
from torch import Tensor

from z1g.bench.diffusion_size import SIZES
from z1g.bench.unet import _data
from z1g.config.sections import UNetOptions
from z1g.core.seeding import seeded
from z1g.objectives.diffusion import DiffusionObjective
from z1g.training import passes
from z1g.training.data import StepData
from z1g.training.loop import Trainer
from z1g.training.passes import EagerPasses, ReplayedPasses

STEPS = 8


def trained(folder: Path, **speed: bool) -> tuple[Trainer, dict[str, Tensor]]:
    """A small stage 2 with a trained image encoder, after a few steps."""
    size = SIZES["tiny"]
    with seeded(0):
        data = _data(size)
        denoiser = size.model.denoiser()
        torch.nn.init.normal_(denoiser.unet.conv_out.weight, std=0.1)
    train: dict[str, Any] = {"batch_size": 4, "steps": STEPS, "ema": 0.9, "speed": speed, "optimizer": {"lr": 1e-3}}
    options = UNetOptions.model_validate({"train": train})
    denoiser.requires_grad_(True)
    images = torch.rand(len(data.codes), 3, 16, 16, generator=torch.Generator().manual_seed(1))
    objective = DiffusionObjective(options, denoiser, replace(data, embeddings=None, images=images))
    steps = StepData(objective.sample, len(data.codes), 4, options.train.seed)
    trainer = Trainer(objective, steps, options.train, folder)
    trainer.run()
    return trainer, {name: p.detach().cpu() for name, p in objective.named_parameters()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_replayed_training_gives_the_weights_of_eager_training(tmp_path: Path) -> None:
    eager_trainer, eager = trained(tmp_path / "eager", replay=False)
    replayed_trainer, replayed = trained(tmp_path / "replayed", replay=True)
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


def test_micro_batches_are_summed(tmp_path: Path) -> None:
    """Losses and gradients of a batch in pieces equal those of the whole batch."""
    results = []
    for micro in (None, 3):
        toy = Toy(dropout=0)
        options = toy_options(batch_size=4, micro_batch=micro)
        trainer = Trainer(toy, toy.data(options), options, tmp_path / str(micro))
        batch = next(iter(toy.data(options).batches(0, 1, 0, 1, 0)))
        losses = trainer.passes(batch)
        results.append([losses["loss"].detach(), *(p.grad for p in toy.parameters() if p.grad is not None)])
    torch.testing.assert_close(*results)
