"""Training that stops at a rung: what it measures and leaves, and that it continues as if it had never stopped."""

import math
from pathlib import Path

import pytest
import torch
from support.builders import Toy, toy_options, without_seconds
from torch import nn

from z1g.core.files import read_json, read_jsonl
from z1g.training.checkpoint import CheckpointFolder
from z1g.training.loop import Diverged, Trainer
from z1g.training.rungs import Pause, rung_file, rung_step, write_rung


def trainer(folder: Path, toy: Toy, **changes: object) -> Trainer:
    options = toy_options(**changes)
    return Trainer(toy, toy.data(options), options, folder)


def whole(folder: Path, **changes: object) -> Toy:
    toy = Toy()
    trainer(folder, toy, **changes).run()
    return toy


def assert_same(first: nn.Module, second: nn.Module) -> None:
    torch.testing.assert_close(dict(first.named_parameters()), dict(second.named_parameters()), atol=0, rtol=0)


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "one_cycle"])
def test_stopped_at_rungs_equals_never_stopped(tmp_path: Path, schedule: str) -> None:
    """Also between checkpoints and inside of logging intervals; steps of the toy: 12, logged every 3, saved every 2."""
    changes = {"schedule": {"kind": schedule, **({"patience": 1} if schedule == "plateau" else {})}}
    expected = whole(tmp_path / "whole", **changes)
    for step in (1, 5, 12):
        trainer(tmp_path / "part", Toy(), **changes).run_to(Pause(step, dict))
        assert CheckpointFolder(tmp_path / "part/checkpoints").steps()[-1] == step
        assert not (tmp_path / "part/history.jsonl").exists(), "an output of the finished run"
    resumed = Toy()
    trainer(tmp_path / "part", resumed, **changes).run()
    assert_same(resumed, expected)
    histories = [without_seconds(read_jsonl(tmp_path / name / "history.jsonl")) for name in ("whole", "part")]
    assert histories[0] == histories[1]


def test_a_rung_measures_averaged_weights_in_evaluation_mode(tmp_path: Path) -> None:
    toy = Toy()
    seen: list[tuple[bool, bool, torch.Tensor]] = []

    def measure() -> dict[str, float]:
        seen.append((toy.training, torch.is_grad_enabled(), toy.net[0].weight.clone()))
        return {"validation_psnr": 7.0}

    assert trainer(tmp_path, toy).run_to(Pause(6, measure)) == {"validation_psnr": 7.0}
    ((training, gradients, weight),) = seen
    assert not training
    assert not gradients
    state = torch.load(CheckpointFolder(tmp_path / "checkpoints").file(6), weights_only=True)
    torch.testing.assert_close(weight, state["average"][0], atol=0, rtol=0)
    assert not torch.equal(weight, state["objective"]["net.0.weight"])
    torch.testing.assert_close(toy.net[0].weight.detach(), state["objective"]["net.0.weight"], atol=0, rtol=0)


def test_a_rung_is_measured_again_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a kill between the checkpoint and the rung's file."""
    toys = [Toy(), Toy()]
    norms = []
    for toy in toys:
        result = trainer(tmp_path, toy).run_to(Pause(5, lambda toy=toy: {"norm": float(toy.net[0].weight.norm())}))
        norms.append(result["norm"])
        monkeypatch.setattr(Trainer, "_step", lambda *_: pytest.fail("took a step"))
    assert norms[0] == norms[1]


def test_training_beyond_the_rung_is_refused(tmp_path: Path) -> None:
    whole(tmp_path)
    with pytest.raises(ValueError, match="step 12 is beyond step 5"):
        trainer(tmp_path, Toy()).run_to(Pause(5, dict))


def test_divergence_has_its_own_error(tmp_path: Path) -> None:
    toy = Toy(broken=range(30))
    options = toy_options(steps=40)
    with pytest.raises(Diverged):
        Trainer(toy, toy.data(options), options, tmp_path).run_to(Pause(20, dict))


@pytest.mark.parametrize(
    ("fraction", "steps", "expected"), [(0.1, 350, 35), (0.3, 10, 3), (0.1, 3, 1), (0.07, 100, 7), (1.0, 6, 6)]
)
def test_rungs_in_steps_are_rounded_up_exactly(fraction: float, steps: int, expected: int) -> None:
    """0.07 · 100 is 7.000000000000001 in floating point."""
    assert rung_step(fraction, steps) == expected


def test_figures_that_are_not_finite_are_null(tmp_path: Path) -> None:
    write_rung(tmp_path, 0.3, 10, {"validation_psnr": math.nan, "held_out_psnr": 3.5})
    record = {"rung": 0.3, "step": 3, "steps": 10, "figures": {"validation_psnr": None, "held_out_psnr": 3.5}}
    assert read_json(rung_file(tmp_path, 0.3)) == record
    write_rung(tmp_path, 0.3, 10, None)
    assert read_json(tmp_path / "rungs/0.3.json")["figures"] is None
