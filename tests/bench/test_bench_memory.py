"""Benchmarks of GPU memory with tiny networks and a CPU in place of the GPU."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from support.builders import SIZES, experiment
from torch import Tensor

from z1g.bench import capped, memory
from z1g.bench.capped import Run
from z1g.bench.made_up import MadeUpScenes
from z1g.bench.made_up_training import StandIn, making, training, with_random_weights
from z1g.bench.memory import Case
from z1g.bench.untrained import objects_at_once
from z1g.cli.main import main
from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.plan.cost import memory as known
from z1g.plan.cost.memory import Peak, Way
from z1g.plan.cost.sizes import key_of
from z1g.stages.codes import encoded
from z1g.training.loop import Trainer

CPU = torch.device("cpu")
KINDS: dict[str, dict[str, Any]] = {
    "mosaic": {},
    "attributes": {"representation": {"kind": "attributes", "denoiser": {"alone_share": 0.6}}},
    "joint": {"representation": {"kind": "joint"}},
}


def tiny(**changes: Any) -> Experiment:
    """A micro experiment whose networks are treated as published ones."""
    made = experiment(Path("."), data={"renderer": {"resolution": 16}}, **changes)
    return made.model_copy(update={"model": StandIn(**SIZES)})


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> list[Trainer]:
    """A CPU that counts bytes as if each object at once took one GB; trainers, in the order of their measurement."""
    trainers: list[Trainer] = []
    real = Trainer.__init__

    def watched(self: Trainer, *args: Any) -> None:
        real(self, *args)
        trainers.append(self)

    def allocated(device: torch.device) -> tuple[int, int]:
        objects = trainers[-1].passes.micro_batch or trainers[-1].options.batch_size
        return 10**9 * objects, 2 * 10**9 * objects

    monkeypatch.setattr(Trainer, "__init__", watched)
    for module in (memory, capped):
        monkeypatch.setattr(module, "gpu", lambda: CPU)
        monkeypatch.setattr(module, "allocated", allocated)
    return trainers


def plan_reads(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plan take rows for those of the package."""
    rows = tuple(Peak(**row) for row in read_json(file)["rows"])
    monkeypatch.setattr(known, "measured", lambda: rows)


@pytest.mark.parametrize("part", ["memory", "capped"])
def test_a_gpu_is_needed(part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", part]) == 2
    assert "no GPU here" in capsys.readouterr().err


def test_what_is_measured() -> None:
    """At full size: the batch of 8 and half of it, fewer at once, recomputed, 8 bits, and adapters."""
    cases = [str(case) for case in memory.cases(Experiment(), "unet")]
    assert cases == [
        "8 at once (all), float32", "1 at once, float32", "2 at once, float32", "4 at once, float32",
        "1 at once, recomputed, float32", "2 at once, recomputed, float32", "4 at once (all), float32",
        "1 at once, recomputed, int8", "8 at once (all), float32, adapters", "1 at once, float32, adapters",
        "1 at once, recomputed, float32, adapters",
    ]  # fmt: skip
    assert len(list(memory.cases(Experiment(), "autodecoder"))) == 8
    for stage in ("autodecoder", "unet"):
        found = list(memory.cases(tiny(), stage))
        assert len(set(found)) == len(found)
        for needed in known.ways(tiny(), stage):
            assert any(case.way == needed for case in found), "every way of training has its row"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_that_plans_read(
    kind: str, no_gpu: list[Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = tiny(**KINDS[kind], autodecoder={"train": {"batch_size": 3}}), tmp_path / "memory.json"
    chosen = [
        Case(Way(2, True, False), "float32"), Case(Way(1, False, True), "int8"),
        Case(Way(1, False, False), "float32", adapters=True),
    ]  # fmt: skip
    monkeypatch.setattr(memory, "cases", lambda _, stage: chosen[: 3 if stage == "unet" else 2])
    figures = memory.measure([("a", config), ("b", config)], ["autodecoder", "unet"], 600, out)
    assert figures["left_out"] == []
    assert [(row["stage"], row["about"]) for row in figures["rows"]] == [("autodecoder", "a")] * 2 + [("unet", "a")] * 3
    whole, eight, adapters = no_gpu[2:]
    assert (whole.options.batch_size, whole.passes.micro_batch) == (2, None)
    assert (eight.options.batch_size, eight.passes.micro_batch) == (2, 1)
    assert eight.fitted.recomputes
    assert eight.options.optimizer.state == "int8"
    assert sum(p.numel() for p in adapters.trained) < 0.5 * sum(p.numel() for p in whole.trained)
    assert whole.optimizer.state, "moments are there when memory is measured"
    plan_reads(out, monkeypatch)
    assert known.estimate(config, "unet", Way(2, True, False)) == pytest.approx(2)
    assert known.estimate(config, "unet", Way(1, False, False), finetune=known.ADAPTERS) == pytest.approx(1)
    trained = sum(p.numel() for p in eight.trained)
    said = known.estimate(config, "unet", Way(1, False, True))
    assert said == pytest.approx(1 + trained * (8 - 2 - 8 / 256) / 1e9, abs=1e-6)
    monkeypatch.setattr(memory, "cases", lambda *_: [Case(Way(1, False, True), "float32")])
    again = memory.measure([("c", config)], ["unet", "fit"], 600, None)
    assert [row["computed_gb"] for row in again["rows"]] == [round(said, 3), None], "computed from 8 bits, beside 1 GB"
    assert len(memory.markdown(figures).splitlines()) == 2 + 2 + 5 + 1 + 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_fits_and_samples_have_rows(
    kind: str, no_gpu: list[Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = {stage: {"gpus": 1} for stage in ("codes", "infer", "metrics")}
    config = tiny(**KINDS[kind], fit={"batch_objects": 2}, resources=resources)
    monkeypatch.setattr(memory, "allocated", lambda _: (3 * 10**9, 4 * 10**9))
    figures = memory.measure([("a", config)], ["fit", "codes", "infer", "metrics"], 600, tmp_path / "memory.json")
    assert figures["left_out"] == []
    assert [(row["stage"], row["objects"], row["trained"]) for row in figures["rows"]] == [
        ("fit", 2, 0),
        ("codes", 64, 0),
        ("infer", 2, 0),
        ("metrics", 1, 0),
    ]
    plan_reads(tmp_path / "memory.json", monkeypatch)
    said = [known.cell(config, stage) for stage in resources]
    assert said == ["3.0 (64 at once)", "3.0 (2 at once)", "3.0 (1 at once)"]
    other = tiny(**KINDS[kind], infer={"batch_size": 3}, resources={"infer": {"gpus": 1}})
    assert known.cell(other, "infer") == "not measured"
    assert no_gpu == []


@pytest.mark.parametrize(
    "codes",
    [{"codes": {"kind": "optimized"}}, {"codes": {"kind": "encoder"}, "test_lr": 0.1}],
    ids=["optimized", "refined"],
)
def test_searched_codes_have_rows_of_their_own(
    codes: dict[str, Any], no_gpu: list[Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many at once as the stage searches, with steps of Adam."""
    searched = list[int]()
    real = torch.optim.Adam.step

    def counted(self: torch.optim.Adam, *args: Any) -> Any:
        searched.append(len(self.param_groups[0]["params"][0]))
        return real(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    monkeypatch.setattr(memory, "allocated", lambda _: (10**9, 10**9))
    figures = memory.measure([("a", tiny(autodecoder=codes))], ["codes"], 600, None)
    assert [(row["stage"], row["objects"]) for row in figures["rows"]] == [("codes", 4)]
    assert searched == [4] * memory.STEPS
    assert key_of(tiny(autodecoder=codes), "codes") != key_of(tiny(), "codes")


@pytest.mark.parametrize("resolution", [16, 512])
def test_codes_are_measured_of_as_many_objects_as_the_stage_encodes(resolution: int) -> None:
    """The stage on seventy objects, of which a spy notes how many it encodes at once."""
    config = with_random_weights(tiny(representation={"input_size": resolution}))
    scenes, codec = MadeUpScenes(config, 16), config.new_codec()
    scenes.ids, counts = [f"object{i}" for i in range(70)], list[int]()

    def encode(inputs: Tensor) -> Tensor:
        counts.append(len(inputs))
        return torch.zeros(len(inputs), 1)

    codec.encode = encode  # type: ignore[method-assign]
    encoded(codec, scenes)  # type: ignore[arg-type]
    assert counts[0] == objects_at_once(config, "codes") == {16: 64, 512: 4}[resolution]
    assert sum(counts) == 70


def test_a_metric_that_cannot_be_computed_has_no_row(no_gpu: list[Trainer]) -> None:
    config = tiny(metrics={"metrics": {"lpips": {"kind": "lpips"}}})
    figures = memory.measure([("a", config)], ["metrics"], 600, None)
    assert figures["rows"] == []
    assert "metric lpips" in figures["left_out"][0]


@pytest.mark.slow
def test_rows_of_another_run_stay_in_the_file(no_gpu: list[Trainer], tmp_path: Path) -> None:
    out = tmp_path / "memory.json"
    small = tiny(autodecoder={"train": {"batch_size": 1}})
    first = memory.measure([("less", small)], ["autodecoder"], 600, out)["rows"]
    large = tiny(autodecoder={"train": {"batch_size": 1}}, splat={"size": 16})
    second = memory.measure([("more", large)], ["autodecoder"], 600, out)["rows"]
    assert first
    assert second
    about = [row["about"] for row in read_json(out)["rows"]]
    assert about.count("less") == len(first)
    assert about.count("more") == len(second)
    # What is measured again has one row, the later one.
    memory.measure([("again", small)], ["autodecoder"], 600, out)
    about = [row["about"] for row in read_json(out)["rows"]]
    assert "less" not in about
    assert about.count("again") == len(first)


@pytest.mark.parametrize("content", ["{}", "no JSON", '{"rows": [{"stage": "fit"}]}'])
def test_a_file_of_other_things_is_not_replaced(content: str, no_gpu: list[Trainer], tmp_path: Path) -> None:
    out = tmp_path / "memory.json"
    out.write_text(content)
    with pytest.raises(UserError, match="has no rows of z1g bench memory"):
        memory.measure([("a", tiny())], ["autodecoder"], 600, out)
    assert out.read_text() == content


def test_a_way_that_did_not_fit_has_no_row(no_gpu: list[Trainer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "cases", lambda *_: [Case(Way(2, True, False), "float32")])
    real = Trainer._step

    def crowded(self: Trainer, step: int, batch: Any) -> Any:
        if step == 1:
            self.fitted._lower(2)
        return real(self, step, batch)

    monkeypatch.setattr(Trainer, "_step", crowded)
    figures = memory.measure([("a", tiny())], ["unet"], 600, None)
    assert figures["rows"] == []
    assert "fewer objects at once" in figures["left_out"][0]
    assert len(no_gpu) == 1
    assert memory.measure([("a", tiny())], ["unet"], -1, None)["left_out"] == [
        "a, unet, 2 at once (all), float32: no time left; raise --seconds"
    ]


@pytest.mark.slow
def test_losses_beside_those_without_a_limit(
    no_gpu: list[Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 24 GB, one object fits at once: losses differ by rounding. Limits end with their runs."""
    limits: list[int] = []
    monkeypatch.setattr(capped, "limit_gpu_memory", limits.append)
    real = Trainer._step

    def crowded(self: Trainer, step: int, batch: Any) -> Any:
        if step == 0 and limits[-1] == 24:
            self.fitted._lower(2)
        return real(self, step, batch)

    monkeypatch.setattr(Trainer, "_step", crowded)
    runs = [Run("unet", "float32", False, 24), Run("unet", "int8", True, 16)]
    figures = capped.measure(tiny(), 4, 600, tmp_path, runs)
    assert limits == [limit for gb in (100_000, 24, 100_000, 16) for limit in (gb, 100_000)]
    plain, limited, eight, eight_limited = figures["runs"]
    assert (plain["objects_at_once"], limited["objects_at_once"]) == (2, 1)
    # Some processors round both ways alike.
    assert limited["largest_difference"] < 1e-4
    assert eight_limited["largest_difference"] == 0
    assert plain["first_loss"] == pytest.approx(limited["first_loss"], rel=1e-5)
    with (tmp_path / "losses.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3]
    assert float(rows[-1]["stage 2 in 24 GB"]) == pytest.approx(limited["last_loss"], rel=1e-4)
    assert list(rows[0]) == ["step", *(row["name"] for row in figures["runs"])]
    assert read_json(tmp_path / "runs.json")["runs"][0]["first_loss"] == plain["first_loss"]
    assert "| stage 2 in 24 GB | 1 | no | 1.00 |" in capped.markdown(figures)
    assert eight["name"] == "stage 2 adapters 8 bits unrestricted"


@pytest.mark.slow
def test_runs_begin_with_equal_weights() -> None:
    config = with_random_weights(tiny())
    make = making(config, "unet")
    with training(config, "unet", make, 1) as (first, _), training(config, "unet", make, 1) as (second, _):
        torch.testing.assert_close(dict(first.objective.named_parameters()), dict(second.objective.named_parameters()))
        assert not any(p.requires_grad for p in first.objective.denoiser.vision.parameters())  # type: ignore[union-attr]


@pytest.mark.slow
def test_stages_of_other_precision_follow_each_other() -> None:
    """As at the scale of the original, whose stages have bf16 and fp32."""
    for precision, expected in (("bf16", "bf16"), ("fp32", "no"), ("bf16", "bf16")):
        config = with_random_weights(tiny(unet={"train": {"precision": precision}}))
        with training(config, "unet", making(config, "unet"), 1) as (trainer, _):
            assert trainer.accelerator.mixed_precision == expected


@pytest.mark.slow
def test_lpips_needs_no_file() -> None:
    """As at the scale of the original, whose loss has its own trunk."""
    losses = {"rgb": {"kind": "rgb"}, "perceptual": {"kind": "lpips", "resolution": 64, "weight": 0.5}}
    made = experiment(Path("."), autodecoder={"losses": losses}, data={"renderer": {"resolution": 16}})
    config = with_random_weights(made.model_copy(update={"model": StandIn(**SIZES)}))
    assert config.autodecoder.losses["perceptual"].weight == 0.5
    with training(config, "autodecoder", making(config, "autodecoder"), 1) as (trainer, batches):
        trainer._step(0, next(batches))
