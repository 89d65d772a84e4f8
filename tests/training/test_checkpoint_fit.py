"""Checkpoints contain exactly the trained state of an objective; differences are errors that name the tensors."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.builders import SIZES, CodedToy, Toy, toy_options
from torch import nn

from z1g.core.errors import UserError
from z1g.networks.finetune.lora import Lora
from z1g.networks.weights.scratch import Scratch
from z1g.training import loop
from z1g.training.data import Batch, Draw, Sample, StepData
from z1g.training.loop import Trainer
from z1g.training.objective import Objective
from z1g.training.options import TrainOptions

State = dict[str, Any]
Change = Callable[[State, str], None]


class Adapted(Objective):
    """A denoiser with adapters, and a loss on their weights only."""

    def __init__(self) -> None:
        super().__init__()
        self.denoiser = Scratch(init_seed=3, **SIZES).denoiser()
        Lora(rank=2).prepare(self.denoiser)

    def sample(self, draw: Draw) -> Sample:
        return {"x": torch.zeros(1)}

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": sum(p.square().mean() for p in self.parameters() if p.requires_grad)}

    def data(self, options: TrainOptions) -> StepData:
        return StepData(self.sample, 6, options.batch_size, options.seed)


def trainer(objective: Any, folder: Path, **changes: Any) -> Trainer:
    options = toy_options(**changes)
    return Trainer(objective, objective.data(options), options, folder)


def missing(state: State, name: str) -> None:
    del state[name]


def extra(state: State, name: str) -> None:
    state["net.9.weight"] = torch.ones(2)


def renamed(state: State, name: str) -> None:
    kept = {("renamed.weight" if other == name else other): value for other, value in state.items()}
    state.clear()
    state.update(kept)


def misshapen(state: State, name: str) -> None:
    state[name] = torch.ones(3, 2, 1)


CHANGES: list[tuple[Change, str]] = [
    (missing, r"1 missing \({name}\)"),
    (extra, r"1 extra \(net\.9\.weight\)"),
    (renamed, r"1 missing \({name}\); 1 extra \(renamed\.weight\)"),
    (misshapen, r"1 of another shape \({name} \[3, 2, 1\] instead of \[[\d, ]+\]\)"),
]
OBJECTIVES: dict[str, tuple[Callable[[], Any], str]] = {
    "plain": (Toy, "net.0.weight"),
    "codes": (CodedToy, "layer.weight"),
    "lora": (
        Adapted,
        "denoiser.unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.default.weight",
    ),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each objective with checkpoints of steps 2 and 4."""
    folders = {}
    for name, (build, _) in OBJECTIVES.items():
        folders[name] = tmp_path_factory.mktemp(name)
        trainer(build(), folders[name], steps=4).run()
    return folders


def damaged(folder: Path, into: Path, change: Callable[[State], None]) -> Path:
    """A copy of the folder whose newest checkpoint is changed; that file."""
    (into / "checkpoints").mkdir(parents=True)
    file = sorted((folder / "checkpoints").glob("step-*.pt"))[-1]
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, into / "checkpoints" / file.name)
    return into / "checkpoints" / file.name


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_checkpoint_that_does_not_fit_is_refused(
    stopped: dict[str, Path], tmp_path: Path, objective: str, change: Change, message: str
) -> None:
    build, name = OBJECTIVES[objective]
    file = damaged(stopped[objective], tmp_path, lambda state: change(state["objective"], name))
    words = rf"^{re.escape(str(file))}: tensors do not fit .*{message.format(name=re.escape(name))}\. .*delete "
    objective_module = build()
    before = {key: value.detach().clone() for key, value in objective_module.named_parameters()}
    with pytest.raises(UserError, match=words):
        trainer(objective_module, tmp_path, steps=8).run()
    torch.testing.assert_close(dict(objective_module.named_parameters()), before, atol=0, rtol=0)


def test_codes_that_are_gone_are_named(stopped: dict[str, Path], tmp_path: Path) -> None:
    damaged(stopped["codes"], tmp_path, lambda state: missing(state["objective"], "book._extra_state"))
    with pytest.raises(UserError, match=r"1 missing \(book\._extra_state\)"):
        trainer(CodedToy(), tmp_path, steps=8).run()


def test_tensors_in_another_order_are_refused(stopped: dict[str, Path], tmp_path: Path) -> None:
    """Adam's moments belong to indices in the list of parameters, not to names."""

    def backwards(state: State) -> None:
        state["objective"] = dict(reversed(state["objective"].items()))

    file = damaged(stopped["plain"], tmp_path, backwards)
    with pytest.raises(
        UserError, match=rf"{file.name}: tensors are in another order, starting with net\.0\.weight\. .*delete"
    ):
        trainer(Toy(), tmp_path, steps=8).run()


def test_a_checkpoint_of_another_layout_is_refused(stopped: dict[str, Path], tmp_path: Path) -> None:
    file = damaged(stopped["plain"], tmp_path, lambda state: state.pop("best"))
    with pytest.raises(UserError, match=rf"^{re.escape(str(file))}: best is missing\. .*delete "):
        trainer(Toy(), tmp_path, steps=8).run()


class Validated(Toy):
    def validate(self) -> dict[str, float]:
        return {loop.BEST_BY: 1.0}


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_best_weights_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, message: str
) -> None:
    load_best = loop.CheckpointFolder.load_best

    def changed(self: loop.CheckpointFolder, step: float) -> State:
        state = load_best(self, step)
        change(state, "net.0.weight")
        return state

    monkeypatch.setattr(loop.CheckpointFolder, "load_best", changed)
    words = message.format(name=r"net\.0\.weight")
    with pytest.raises(UserError, match=rf"best-00000006\.pt: tensors do not fit .*{words}\. .*delete "):
        trainer(Validated(), tmp_path, keep="best").run()


def test_frozen_weights_are_in_no_checkpoint(stopped: dict[str, Path]) -> None:
    file = sorted((stopped["lora"] / "checkpoints").glob("step-*.pt"))[-1]
    names = torch.load(file, weights_only=True)["objective"]
    assert names
    assert all(".lora_" in name for name in names)
    assert isinstance(Adapted(), nn.Module)
