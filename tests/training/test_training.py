"""The training loop: draws, resuming, preemption, non-finite losses, checkpoints, schedules and history."""

import io
import math
import os
import pickle
import signal
from collections import Counter
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.builders import OBJECTS, CodedToy, Toy, fill, plan, stage_path, toy_options, without_seconds
from support.die import run_and_die
from support.running import interrupted
from torch import Tensor, nn

from z1g.core.errors import Preempted, UserError
from z1g.core.files import read_jsonl
from z1g.core.locks import exclusive
from z1g.core.seeding import keyed_normal
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.stages import autodecoder, codes, unet
from z1g.training import average as training_average
from z1g.training import data as training_data
from z1g.training import loop
from z1g.training.average import Average
from z1g.training.checkpoint import KEEP, CheckpointFolder
from z1g.training.data import StepData, draw
from z1g.training.loop import MAX_SKIPPED, Trainer
from z1g.training.outcome import Outcome
from z1g.training.schedules import Schedule
from z1g.training.schedules.cosine import Constant, Cosine
from z1g.training.schedules.cosine_restarts import CosineRestarts
from z1g.training.schedules.one_cycle import OneCycle
from z1g.training.schedules.plateau import Plateau
from z1g.training.schedules.step import Step


def train(folder: Path, toy: Toy | CodedToy | None = None, **changes: Any) -> Toy | CodedToy:
    toy = toy or Toy()
    options = toy_options(**changes)
    Trainer(toy, toy.data(options), options, folder).run()
    return toy


def assert_same(first: nn.Module, second: nn.Module) -> None:
    torch.testing.assert_close(dict(first.named_parameters()), dict(second.named_parameters()), atol=0, rtol=0)


def history(folder: Path) -> list[dict[str, Any]]:
    return without_seconds(read_jsonl(folder / "history.jsonl"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Toy]:
    """Twelve steps without interruption."""
    folder = tmp_path_factory.mktemp("straight")
    toy = train(folder)
    assert isinstance(toy, Toy)
    return folder, toy


# Draws


def test_draw_is_a_pure_function() -> None:
    assert draw(1, 5, 2, 4, 10) == draw(1, 5, 2, 4, 10)
    assert draw(1, 5, 2, 4, 10).key == (1, 5, 2)
    orders = [[draw(seed, step, 0, 1, 50).object_index for step in range(50)] for seed in (1, 2)]
    assert orders[0] != orders[1]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 25])
def test_every_object_comes_once_an_epoch(batch_size: int) -> None:
    n = 10
    draws = [draw(3, step, slot, batch_size, n) for step in range(100) for slot in range(batch_size)]
    for epoch in range(len(draws) // n):
        part = draws[epoch * n : (epoch + 1) * n]
        assert {d.epoch for d in part} == {epoch}
        assert Counter(d.object_index for d in part) == dict.fromkeys(range(n), 1)
    first, second = ([d.object_index for d in draws[i * n : (i + 1) * n]] for i in (0, 1))
    assert first != second


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_the_batch(world: int) -> None:
    data = Toy().data(toy_options(batch_size=4))
    ranks = [data.batches(2, 5, rank, world, workers=0) for rank in range(world)]
    for step, pieces in enumerate(zip(*ranks, strict=True), 2):
        keys = torch.cat([piece["key"] for piece in pieces]).tolist()
        assert keys == [[42, step, slot] for slot in range(4)]
        expected = [draw(42, step, slot, 4, 10) for slot in range(4)]
        assert torch.cat([piece["object_index"] for piece in pieces]).tolist() == [d.object_index for d in expected]
        assert torch.cat([piece["epoch"] for piece in pieces]).tolist() == [d.epoch for d in expected]


def test_keyed_noise_belongs_to_the_sample() -> None:
    batch = {"key": torch.tensor([[1, 2, 3], [1, 2, 4]])}
    noise = training_data.batch_noise(batch, (5,), 7, torch.device("cpu"))
    torch.testing.assert_close(noise[1:], keyed_normal(torch.tensor([[1, 2, 4, 7]]), (5,)), atol=0, rtol=0)
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise, training_data.batch_noise(batch, (5,), 8, torch.device("cpu")))
    uniform = training_data.batch_uniform(
        {"key": torch.tensor([[0, i, 0] for i in range(500)])}, 1, torch.device("cpu")
    )
    assert 0 <= uniform.min() < 0.02 < 0.98 < uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.05)


def test_micro_batches_are_shares_of_the_whole() -> None:
    batch = {"key": torch.zeros(7, 3), "x": torch.arange(7)}
    pieces = list(training_data.micro_batches(batch, 3))
    assert [piece["x"].tolist() for piece, _ in pieces] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [share for _, share in pieces] == pytest.approx([3 / 7, 3 / 7, 1 / 7])
    assert [share for _, share in training_data.micro_batches(batch, None)] == [1.0]


def test_global_randomness_does_not_matter(tmp_path: Path, straight: tuple[Path, Toy]) -> None:
    torch.manual_seed(98765)
    assert_same(train(tmp_path), straight[1])


def test_dropout_is_on(tmp_path: Path, straight: tuple[Path, Toy]) -> None:
    other = train(tmp_path, Toy(dropout=0.0))
    assert not torch.equal(other.net[0].weight, straight[1].net[0].weight)


# Resuming


@pytest.mark.slow
def test_resumed_in_process(tmp_path: Path, straight: tuple[Path, Toy], monkeypatch: pytest.MonkeyPatch) -> None:
    """At every step except the last, whether or not a checkpoint or an interval ends there."""
    real = Trainer._step
    for stop_at in range(12):

        def step(self: Trainer, at: int, batch: Any, stop_at: int = stop_at) -> dict[str, float]:
            if at == stop_at:
                raise KeyboardInterrupt
            return real(self, at, batch)

        monkeypatch.setattr(Trainer, "_step", step)
        folder = tmp_path / str(stop_at)
        with pytest.raises(KeyboardInterrupt):
            train(folder)
        monkeypatch.setattr(Trainer, "_step", real)
        assert_same(train(folder), straight[1])
        assert history(folder) == history(straight[0])


@pytest.mark.slow
def test_killed_twice(tmp_path: Path, straight: tuple[Path, Toy]) -> None:
    """SIGKILL between checkpoints, then while a checkpoint is written."""
    first = run_and_die("SIGKILL", "step-5", "toy", tmp_path)
    assert first.code == -signal.SIGKILL, first.output
    assert CheckpointFolder(tmp_path / "checkpoints").steps() == [2, 4]
    second = run_and_die("SIGKILL", "write-8", "toy", tmp_path)
    assert second.code == -signal.SIGKILL, second.output
    assert "from step 4" in second.output or CheckpointFolder(tmp_path / "checkpoints").steps() == [4, 6]
    leftovers = list((tmp_path / "checkpoints").glob(".step-00000008.pt.*.tmp"))
    assert len(leftovers) == 1
    assert_same(train(tmp_path), straight[1])
    assert history(tmp_path) == history(straight[0])


def test_done_is_done(tmp_path: Path, straight: tuple[Path, Toy], monkeypatch: pytest.MonkeyPatch) -> None:
    """Running the same command again changes nothing and takes no step."""
    train(tmp_path)
    before = (tmp_path / "history.jsonl").read_bytes()
    monkeypatch.setattr(Trainer, "_step", lambda *_: pytest.fail("took a step"))
    assert_same(train(tmp_path), straight[1])
    assert (tmp_path / "history.jsonl").read_bytes() == before


def test_codes_resume(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", CodedToy(), ema=None)
    with interrupted(after=4):
        train(tmp_path / "part", CodedToy(), ema=None)
    resumed = train(tmp_path / "part", CodedToy(), ema=None)
    assert_same(resumed, whole)
    assert isinstance(resumed, CodedToy)
    assert isinstance(whole, CodedToy)
    torch.testing.assert_close(resumed.book.codes, whole.book.codes, atol=0, rtol=0)
    torch.testing.assert_close(resumed.book.moments, whole.book.moments, atol=0, rtol=0)
    assert not torch.equal(whole.book.codes, whole.starts)


def test_plateau_resumes(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"schedule": {"kind": "plateau", "patience": 1, "factor": 0.5}, "log_every": 1}
    whole = train(tmp_path / "whole", **changes)
    rates = [row["lr"] for row in history(tmp_path / "whole")]
    assert min(rates) < max(rates), "the schedule did something"
    with interrupted(before=7):
        train(tmp_path / "part", **changes)
    assert_same(train(tmp_path / "part", **changes), whole)
    assert history(tmp_path / "part") == history(tmp_path / "whole")


# The real stages at micro size


def micro(root: Path, **changes: Any) -> Plan:
    planned = plan(root, **changes)
    fill(planned)
    return planned


def tensors(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.rglob("*.safetensors"))
    assert files
    return {f"{file.relative_to(folder)}:{k}": v for file in files for k, v in load_file(file).items()}


def assert_same_stage(first: Path, second: Path, output: str) -> None:
    torch.testing.assert_close(tensors(first / output), tensors(second / output), atol=0, rtol=0)
    assert history(first) == history(second)


@pytest.mark.slow
def test_autodecoder_stopped_by_sigterm(tmp_path: Path) -> None:
    """SIGTERM saves a checkpoint and exits with 75; the same command then resumes with the same results."""
    changes: dict[str, Any] = {"autodecoder": {"codes": {"kind": "optimized"}, "train": {"checkpoint_every": 100}}}
    whole, part = (stage_path(micro(tmp_path / name, **changes), "autodecoder") for name in ("whole", "part"))
    stopped = run_and_die("SIGTERM", "step-2", "autodecoder", part)
    assert stopped.code == 75, stopped.output
    assert "stopped after step 3" in stopped.output
    assert "Traceback" not in stopped.output
    assert CheckpointFolder(part / "checkpoints").steps() == [3]
    assert not (part / "model").exists()
    for folder in (whole, part):
        autodecoder.run(StageFolder.open(folder), threads=1)
    assert_same_stage(whole, part, "model")
    assert f"codes.safetensors:{OBJECTS[1]}" in tensors(whole / "model")


@pytest.mark.slow
def test_unet_killed(tmp_path: Path) -> None:
    folders = {}
    for name in ("whole", "part"):
        planned = micro(tmp_path / name, unet={"train": {"ema": 0.7}})
        for stage in (autodecoder, codes):
            stage.run(StageFolder.open(stage_path(planned, stage.__name__.split(".")[-1])), threads=1)
        folders[name] = stage_path(planned, "unet")
    killed = run_and_die("SIGKILL", "step-3", "unet", folders["part"])
    assert killed.code == -signal.SIGKILL, killed.output
    assert not (folders["part"] / "pipeline").exists()
    for folder in folders.values():
        unet.run(StageFolder.open(folder), threads=1)
    assert_same_stage(folders["whole"], folders["part"], "pipeline")


@pytest.mark.slow
def test_regression_resumes(tmp_path: Path) -> None:
    folders = []
    for name in ("whole", "part"):
        planned = micro(tmp_path / name, unet={"objective": "regression", "rendered": {"views": 1}})
        for stage in (autodecoder, codes):
            stage.run(StageFolder.open(stage_path(planned, stage.__name__.rpartition(".")[2])), threads=1)
        folders.append(stage_path(planned, "unet"))
    with interrupted(after=4):
        unet.run(StageFolder.open(folders[1]), threads=1)
    for folder in folders:
        unet.run(StageFolder.open(folder), threads=1)
    assert_same_stage(*folders, "pipeline")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"codes": {"kind": "encoder"}},
        {"mix_diffusion": {"interval": 2}, "render_inputs": True},
        {"codes": {"kind": "optimized", "start": "uniform", "reset_optimizer": True}},
    ],
)
def test_autodecoder_resumes(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, part = (stage_path(micro(tmp_path / n, autodecoder=changes), "autodecoder") for n in ("whole", "part"))
    autodecoder.run(StageFolder.open(whole), threads=1)
    with interrupted(after=4):
        autodecoder.run(StageFolder.open(part), threads=1)
    autodecoder.run(StageFolder.open(part), threads=1)
    assert_same_stage(whole, part, "model")


def test_samples_travel_to_loading_processes(tmp_path: Path) -> None:
    """The data set can be pickled for worker processes, contains no network and gives the same samples."""
    planned = micro(tmp_path, autodecoder={"mix_diffusion": {"interval": 1}})
    folder = StageFolder.open(stage_path(planned, "autodecoder"))
    scenes, ids = autodecoder.training_scenes(folder)
    codec = folder.config.new_codec()
    book = folder.config.autodecoder.codes.book(ids, (4, 24, 16))
    objective = autodecoder.AutodecoderObjective(
        folder.config, codec, book, scenes, ids, folder.config.model.denoiser()
    )  # fmt: skip
    steps = StepData(objective.sample, len(ids), 2, 0)
    sent = steps[3]
    buffer = io.BytesIO()
    ForkingPickler(buffer).dump(steps)
    assert buffer.tell() < 50_000
    restored = pickle.loads(buffer.getvalue())[3]
    assert sent.keys() == restored.keys()
    torch.testing.assert_close(restored, sent, atol=0, rtol=0)


# Non-finite losses


def test_a_broken_step_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    toy = train(tmp_path, Toy(broken=range(4, 6)))
    assert all(bool(p.isfinite().all()) for p in toy.parameters())
    assert caplog.text.count("skipped") == 2
    assert all(math.isfinite(value) for row in history(tmp_path) for value in row.values())
    assert not torch.equal(toy.net[0].weight, Toy().net[0].weight)


def test_a_whole_interval_may_be_broken(tmp_path: Path) -> None:
    train(tmp_path, Toy(broken=range(3, 6)))
    rows = history(tmp_path)
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert ["loss" in row for row in rows] == [True, False, True, True]
    train(tmp_path / "plateau", Toy(broken=range(3, 6)), schedule={"kind": "plateau"})


def test_too_many_broken_steps_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"10 consecutive steps up to step 12 .*step-00000012\.pt"):
        train(tmp_path, Toy(broken=range(3, 30)), steps=40)
    toy = Toy()
    options = toy_options(steps=40)
    trainer = Trainer(toy, toy.data(options), options, tmp_path)
    trainer._restore()
    assert all(bool(p.isfinite().all()) for p in toy.parameters())


def test_broken_from_the_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none was written yet"):
        train(tmp_path, Toy(broken=range(30)), steps=40, checkpoint_every=100)


def test_a_good_step_resets_the_count(tmp_path: Path) -> None:
    class AllButEveryTenth:
        def __contains__(self, step: int) -> bool:
            return step % MAX_SKIPPED != 0

    toy = train(tmp_path, Toy(broken=AllButEveryTenth()), steps=3 * MAX_SKIPPED, log_every=MAX_SKIPPED)  # type: ignore[arg-type]
    assert all(bool(p.isfinite().all()) for p in toy.parameters())


class Large(Toy):
    """Needs memory for each object, and for random layers' masks; `fits` objects fit."""

    def __init__(self, fits: int, **options: Any) -> None:
        super().__init__(**options)
        self.fits = fits
        self.sizes: list[int] = []

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.sizes.append(len(batch["key"]))
        if self.sizes[-1] > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(batch)


def test_too_little_memory_is_explained(tmp_path: Path) -> None:
    """With lines for the ablation, of the stage whose folder it is."""
    with pytest.raises(
        UserError, match=r"memory with 1 object at once, though activations are recomputed\. Use"
    ) as said:
        train(tmp_path / "unet" / "1", Large(0), ema=0.9)
    proposed = [yaml.safe_load(line) for line in str(said.value).splitlines()[1:]]
    assert proposed == [{"unet": {"train": {"optimizer": {"state": "int8"}}}}, {"unet": {"train": {"ema": None}}}]
    adaptable = Large(0)
    adaptable.adaptable = True
    with pytest.raises(UserError, match=r"id:\n  unet: \{finetune: \{kind: lora\}\}"):
        train(tmp_path / "unet" / "2", adaptable, ema=None, batch_size=1, optimizer={"lr": 0.02, "state": "int8"})


def test_idle_networks_leave_the_gpu(tmp_path: Path) -> None:
    """Also after passes were made anew, for which `prepare` moves everything to the device."""

    class Idle(nn.Linear):
        places: list[str] = []

        def cpu(self) -> "Idle":
            self.places.append("cpu")
            return self

        def to(self, *args: Any, **kwargs: Any) -> "Idle":
            self.places.append("device")
            return self

    class WithIdle(Large):
        def __init__(self, fits: int) -> None:
            super().__init__(fits, dropout=0)
            self.other = Idle(2, 2).requires_grad_(False)

        def idle(self) -> list[nn.Module]:
            return [self.other]

        def to(self, *args: Any, **kwargs: Any) -> "WithIdle":
            self.other.to()
            return super().to(*args, **kwargs)

    toy, plain = (
        train(tmp_path / "idle", WithIdle(1), batch_size=4),
        train(tmp_path / "plain", Large(1, dropout=0), batch_size=4),
    )
    assert Idle.places[-1] == "cpu"
    assert_same(toy.net, plain.net)


def test_memory_of_the_optimizer_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Trainer, finite: Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "_update", full)
    with pytest.raises(UserError, match=r"beside the passes.*\n  unet: \{train: \{optimizer: \{state: int8\}\}\}"):
        train(tmp_path / "unet" / "1")


def test_training_goes_on_with_fewer_objects_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The batch is 8 objects: 4, then 2 fit. Weights are those of enough memory."""
    plain = train(tmp_path / "plain", Large(8, dropout=0), batch_size=8, steps=5)
    little = train(tmp_path / "little", Large(2, dropout=0), batch_size=8, steps=5)
    assert little.sizes == [8, 4] + [2] * 4 * 5
    for (name, value), other in zip(little.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-6, msg=name)
    said = [record.getMessage() for record in caplog.records if "memory" in record.getMessage()]
    assert [text.partition(" at once")[0][-9:] for text in said] == ["8 objects", "4 objects"]


def test_optimized_codes_are_updated_once_after_a_second_attempt(tmp_path: Path) -> None:
    class LargeAfterLookup(CodedToy):
        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            losses = super().forward(batch)
            if len(batch["key"]) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return losses

    plain = train(tmp_path / "plain", CodedToy(), batch_size=4, micro_batch=1)
    little = train(tmp_path / "little", LargeAfterLookup(), batch_size=4)
    assert_same(plain, little)
    for name in ("codes", "moments", "visits"):
        torch.testing.assert_close(getattr(little.book, name), getattr(plain.book, name), atol=0, rtol=0)


# Checkpoints


def test_old_checkpoints_go(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in range(1, 6):
        folder.save(step, {"value": step})
    assert folder.steps() == [4, 5]
    assert len(folder.steps()) == KEEP
    assert folder.load() == (5, {"value": 5})


def test_no_checkpoint(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "new").load() is None


def test_leftovers_are_ignored(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(3, {"value": 3})
    (tmp_path / ".step-00000009.pt.abcd1234.tmp").write_bytes(b"half a checkpoint")
    (tmp_path / "step-best.pt").write_bytes(b"somebody's own")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    assert folder.load() == (3, {"value": 3})


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage"])
def test_a_corrupt_checkpoint_falls_back(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (2, 4):
        folder.save(step, {"weights": torch.full((1000,), float(step))})
    file = folder.file(4)
    file.write_bytes({"empty": b"", "cut": file.read_bytes()[:-500], "garbage": b"\x00garbage" * 40}[damage])
    step, state = folder.load() or (0, {})
    assert step == 2
    torch.testing.assert_close(state["weights"], torch.full((1000,), 2.0))
    assert "step-00000004.pt cannot be read" in caplog.text


def test_training_goes_on_from_the_older_checkpoint(tmp_path: Path, straight: tuple[Path, Toy]) -> None:
    train(tmp_path)
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.steps() == [10, 12]
    folder.file(12).write_bytes(b"")
    assert_same(train(tmp_path), straight[1])
    assert history(tmp_path) == history(straight[0])


def test_only_corrupt_checkpoints_are_an_error(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.file(4).write_bytes(b"garbage")
    with pytest.raises(UserError, match="none of 1 checkpoint can be read"):
        folder.load()


def test_checkpoints_cannot_execute(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path}/executed",)

    folder = CheckpointFolder(tmp_path)
    torch.save({"x": Evil()}, folder.file(1))
    with pytest.raises(UserError, match="can be read"):
        folder.load()
    assert not (tmp_path / "executed").exists()


def test_a_second_run_on_a_folder_is_refused(tmp_path: Path) -> None:
    with exclusive(tmp_path / ".lock"), pytest.raises(UserError, match=rf"written by .* process {os.getpid()} job"):
        train(tmp_path)
    train(tmp_path)


# Schedules


def rates(schedule: Schedule, steps: int, base: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=base)
    built = schedule.build(optimizer, steps)
    results = []
    for _ in range(steps):
        results.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        built.step()
    return results


def test_constant_with_warmup() -> None:
    assert rates(Constant(warmup_steps=4), 8) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])
    assert rates(Constant(), 3) == [1, 1, 1]


def test_a_step_changes_the_rate_once() -> None:
    assert rates(Step(warmup_steps=1, at=0.45, factor=0.25), 6) == pytest.approx([0.5, 1, 1, 0.25, 0.25, 0.25])


def test_cosine() -> None:
    actual = rates(Cosine(warmup_steps=2, final_share=0.1), 12, base=0.5)
    expected = []
    for step in range(12):
        warm = min((step + 1) / 3, 1)
        done = max(step - 2, 0) / 10
        expected.append(0.5 * warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))))
    assert actual == pytest.approx(expected)
    assert actual[2] == 0.5


def test_plateau() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = Plateau(patience=2, factor=0.5, min_lr=0.2).build(optimizer, 100)
    results = []
    for loss in [1.0, 0.9, 0.9, 0.9, 0.9, 0.8, *[0.8] * 9]:
        schedule.step(loss)  # type: ignore[arg-type]
        results.append(optimizer.param_groups[0]["lr"])
    # Reduced after more than two intervals without improvement, never below the minimum.
    assert results == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2, 0.2, 0.2]


def test_warmup_reaches_the_optimizer(straight: tuple[Path, Toy]) -> None:
    assert [row["step"] for row in history(straight[0])] == [3, 6, 9, 12]
    lr = [row["lr"] for row in history(straight[0])]
    expected = [0.02 * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - 3) / 9))) for step in (3, 6, 9, 12)]
    assert lr == pytest.approx(expected)


# Averages, accumulation, history


@pytest.mark.parametrize("at_once", [1, 5, 2**24])
def test_averages_are_updated_in_parts(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_average, "AT_ONCE", at_once)
    parameters = [nn.Parameter(torch.full((n,), float(n))) for n in (2, 3, 1, 4)]
    average = Average(parameters, 0.75)
    for parameter in parameters:
        parameter.data.zero_()
    average.update(torch.tensor(1.0))
    assert [value.tolist() for value in average.values] == [[0.75 * n] * n for n in (2, 3, 1, 4)]


def test_average_formula() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    average = Average([parameter], 0.9)
    expected = torch.tensor([1.0, 2.0])
    for value in (3.0, -1.0, 5.0):
        parameter.data.fill_(value)
        average.update(torch.tensor(1.0))
        expected = 0.9 * expected + 0.1 * value
        average.update(torch.tensor(0.0))
    with average.applied():
        torch.testing.assert_close(parameter.detach(), expected)
    assert parameter.tolist() == [5.0, 5.0]


def test_trained_weights_are_the_average(tmp_path: Path) -> None:
    averaged, last = train(tmp_path / "a", ema=0.8), train(tmp_path / "b", ema=None)
    assert not torch.equal(averaged.net[0].weight, last.net[0].weight)
    state = CheckpointFolder(tmp_path / "a" / "checkpoints").load()
    assert state is not None
    torch.testing.assert_close(state[1]["objective"]["net.0.weight"], last.net[0].weight.detach(), atol=0, rtol=0)
    torch.testing.assert_close(state[1]["average"][0], averaged.net[0].weight.detach(), atol=0, rtol=0)


@pytest.mark.parametrize("size", [1, 2])
def test_accumulation_equals_the_whole_batch(tmp_path: Path, size: int) -> None:
    whole = train(tmp_path / "whole", Toy(dropout=0), steps=5, ema=None)
    pieces = train(tmp_path / "pieces", Toy(dropout=0), steps=5, ema=None, micro_batch=size)
    torch.testing.assert_close(dict(pieces.named_parameters()), dict(whole.named_parameters()), atol=1e-6, rtol=0)
    first, second = (history(tmp_path / name)[-1] for name in ("whole", "pieces"))
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)


def test_training_is_adamw_with_clipping(tmp_path: Path) -> None:
    """Three steps against torch's own optimizer, written out."""
    schedule = {"kind": "constant"}
    optimizer = {"lr": 0.1, "weight_decay": 0.3, "betas": [0.8, 0.9], "clip_norm": 0.05}
    trained = train(tmp_path, Toy(dropout=0), steps=3, ema=None, schedule=schedule, optimizer=optimizer)
    toy = Toy(dropout=0)
    reference = torch.optim.AdamW(toy.parameters(), lr=0.1, weight_decay=0.3, betas=(0.8, 0.9))
    for step in range(3):
        rows = [draw(42, step, slot, 3, 10).object_index for slot in range(3)]
        loss = (toy.net(toy.inputs[rows]) - toy.targets[rows]).square().mean()
        reference.zero_grad()
        loss.backward()
        norm = torch.sqrt(sum(p.grad.square().sum() for p in toy.parameters()))
        for p in toy.parameters():
            p.grad *= min(1.0, 0.05 / (norm.item() + 1e-6))
        reference.step()
    torch.testing.assert_close(dict(trained.named_parameters()), dict(toy.named_parameters()), atol=1e-5, rtol=0)


def test_parameters_may_have_rates_of_their_own(tmp_path: Path) -> None:
    """Adam's first step changes every weight by the learning rate."""

    class Faster(Toy):
        def rate_factor(self, name: str) -> float:
            return 10.0 if name.startswith("net.3.") else 1.0

    plain = {"lr": 1e-3, "weight_decay": 0.0, "clip_norm": 1e9}
    toy = train(tmp_path, Faster(dropout=0), steps=1, ema=None, schedule={"kind": "constant"}, optimizer=plain)
    start = dict(Toy(dropout=0).named_parameters())
    for name, value in toy.named_parameters():
        change = (value - start[name]).abs()
        assert change[change > 0].mean().item() == pytest.approx(1e-2 if name.startswith("net.3.") else 1e-3, rel=0.02)


def test_rates_of_their_own_survive_a_resume(tmp_path: Path) -> None:
    class Faster(Toy):
        def rate_factor(self, name: str) -> float:
            return 3.0 if name == "net.0.bias" else 1.0

    whole = train(tmp_path / "whole", Faster())
    train(tmp_path / "part", Faster())
    file = sorted((tmp_path / "part" / "checkpoints").glob("step-*.pt"))[-1]
    file.unlink()
    resumed = train(tmp_path / "part", Faster())
    torch.testing.assert_close(dict(resumed.named_parameters()), dict(whole.named_parameters()), atol=0, rtol=0)


def test_history_rows_are_means_of_their_interval(tmp_path: Path) -> None:
    train(tmp_path / "each", log_every=1)
    train(tmp_path / "every5", log_every=5)
    each = {row["step"]: row for row in history(tmp_path / "each")}
    rows = history(tmp_path / "every5")
    assert [row["step"] for row in rows] == [5, 10, 12]
    for row, steps in zip(rows, ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12]), strict=True):
        for name in ("loss", "error", "gradient_norm"):
            assert row[name] == pytest.approx(sum(each[step][name] for step in steps) / len(steps)), name
    seconds = [row["seconds"] for row in read_jsonl(tmp_path / "every5" / "history.jsonl")]
    assert seconds == sorted(seconds)


def test_validation_joins_its_row(tmp_path: Path) -> None:
    class Validated(Toy):
        def validate(self) -> dict[str, float]:
            assert not self.training
            return {"validation_error": 7.0}

        def images(self) -> dict[str, Tensor]:
            return {"views/x": torch.zeros(3, 4, 4)}

    toy = train(tmp_path, Validated(), validate_every=4)
    assert toy.training
    rows = {row["step"]: row.get("validation_error") for row in history(tmp_path)}
    assert rows == {3: None, 4: 7.0, 6: None, 8: 7.0, 9: None, 12: 7.0}


def test_loss_falls(straight: tuple[Path, Toy], tmp_path: Path) -> None:
    train(tmp_path, Toy(dropout=0), steps=80)
    rows = history(tmp_path)
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]


def test_preempted_in_process(tmp_path: Path, straight: tuple[Path, Toy], monkeypatch: pytest.MonkeyPatch) -> None:
    real, before = Trainer._step, signal.getsignal(signal.SIGTERM)

    def step(self: Trainer, at: int, batch: Any) -> dict[str, float]:
        if at == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, at, batch)

    monkeypatch.setattr(Trainer, "_step", step)
    with pytest.raises(Preempted, match="after step 5"):
        train(tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
    assert CheckpointFolder(tmp_path / "checkpoints").steps() == [4, 5]
    monkeypatch.setattr(Trainer, "_step", real)
    assert_same(train(tmp_path), straight[1])
    assert history(tmp_path) == history(straight[0])


def test_batch_must_divide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.Accelerator, "num_processes", property(lambda _: 2))
    with pytest.raises(UserError, match=r"batch_size 3 does not divide over 2"):
        train(tmp_path)


def test_cosine_restarts() -> None:
    actual = rates(CosineRestarts(period=4, growth=2, min_lr=0.1), 13)
    expected = [
        0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * t / period))
        for period, ts in ((4, range(4)), (8, range(8)), (16, range(1)))
        for t in ts
    ]
    assert actual == pytest.approx(expected)
    assert (CosineRestarts().period, CosineRestarts().min_lr) == (3000, 1e-6)


def test_one_cycle() -> None:
    actual = rates(OneCycle(warmup_steps=5, first_share=0.1, final_share=0.01), 20, base=2.0)
    assert actual[0] == pytest.approx(0.2)
    assert actual.index(max(actual)) == 5
    assert max(actual) == pytest.approx(2.0)
    for step in range(20):
        up = 0.1 + 0.9 * 0.5 * (1 - math.cos(math.pi * step / 5))
        down = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - 5) / 15))
        assert actual[step] == pytest.approx(2.0 * (up if step <= 5 else down)), step
    short = rates(OneCycle(warmup_steps=3000), 7)
    assert short == sorted(short)
    assert len(rates(OneCycle(warmup_steps=1), 1)) == 1


@pytest.mark.parametrize(
    "schedule", [{"kind": "cosine_restarts", "period": 5}, {"kind": "one_cycle", "warmup_steps": 4}]
)
def test_other_schedules_resume(schedule: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole", schedule=schedule, log_every=1)
    real = Trainer._step

    def step(self: Trainer, at: int, batch: Any) -> Any:
        if at == 7:
            raise KeyboardInterrupt
        return real(self, at, batch)

    monkeypatch.setattr(Trainer, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", schedule=schedule, log_every=1)
    monkeypatch.setattr(Trainer, "_step", real)
    assert_same(train(tmp_path / "part", schedule=schedule, log_every=1), whole)
    assert history(tmp_path / "part") == history(tmp_path / "whole")


# Prefetched batches


def test_batches_ahead_are_the_same() -> None:
    data = Toy().data(toy_options())
    plain, early = (list(data.batches(0, 5, 0, 1, 0)) for _ in range(2))
    early = list(training_data.ahead(iter(early), pin=False))
    assert len(early) == 5
    for expected, actual in zip(plain, early, strict=True):
        torch.testing.assert_close(actual, expected, atol=0, rtol=0)


def test_an_error_ahead_arrives() -> None:
    def batches() -> Iterator[dict[str, Tensor]]:
        yield {"key": torch.zeros(1, 3)}
        raise UserError("no more")

    actual = training_data.ahead(batches(), pin=False)
    next(actual)
    with pytest.raises(UserError, match="no more"):
        next(actual)


def test_memory_needs_no_loading_processes() -> None:
    data = Toy().data(toy_options())
    data.in_memory = True
    assert data.batches(0, 2, 0, 1, workers=1).num_workers == 0
    data.in_memory = False
    assert data.batches(0, 2, 0, 1, workers=1).num_workers == 1


def test_the_host_reads_a_step_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses of a step are read after the next step has started, unless an interval ends with it."""
    order: list[tuple[str, int]] = []
    real_step, real_read = Trainer._step, Outcome.read

    def step(self: Trainer, at: int, batch: Any) -> Any:
        order.append(("start", at))
        return real_step(self, at, batch)

    def read(self: Outcome) -> dict[str, float]:
        order.append(("read", self.step))
        return real_read(self)

    monkeypatch.setattr(Trainer, "_step", step)
    monkeypatch.setattr(Outcome, "read", read)
    train(tmp_path, steps=4, log_every=4, checkpoint_every=4, validate_every=4)
    assert order == [
        ("start", 0), ("start", 1), ("read", 0), ("start", 2), ("read", 1), ("start", 3), ("read", 2), ("read", 3),
    ]  # fmt: skip
