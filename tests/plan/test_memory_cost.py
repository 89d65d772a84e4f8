"""GPU memory in the cost sheet: against sums by hand, and what does not fit before the first job."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import CONFIGS, ROOT

from z1g.cli.main import main
from z1g.config.resolve import resolve
from z1g.config.tree import Experiment
from z1g.config.yaml_file import YamlFile
from z1g.core.files import read_json
from z1g.core.stages import STAGE_NAMES
from z1g.fitting.queue import FitQueue
from z1g.plan.cost import memory
from z1g.plan.cost.memory import Peak, Way, cell, configured, estimate, fitting, ways
from z1g.plan.cost.sizes import key_of
from z1g.plan.named import experiments

TRAINED = 500_000_000
"""Weights of the made-up stage 2: moments of 4 GB, an average of 2 GB, gradients of 2 GB."""


def experiment(**values: object) -> Experiment:
    return resolve([YamlFile(Path("made-up.yaml"), values)])


def unet(**train: object) -> Experiment:
    return experiment(unet={"train": train})


def peak(config: Experiment, objects: int, gb: float, stage: str = "unet", **changes: Any) -> Peak:
    values: dict[str, Any] = {
        "stage": stage, "key": key_of(config, stage), "about": "made up", "finetune": "full",
        "objects": objects, "whole": False, "recompute": False, "state": "float32", "ema": False, "trained": TRAINED,
        "gb": gb, "device": "a GPU",
    }  # fmt: skip
    return Peak(**{**values, **changes})


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> list[Peak]:
    """Stage 2 at full size: 10 GB and 2 for each object, 8 and 1 recomputed; 8 objects of a whole batch take 24."""
    config = experiment()
    rows = [peak(config, n, 10 + 2 * n) for n in (1, 2, 4)]
    rows += [peak(config, n, 8 + n, recompute=True) for n in (1, 2)]
    rows += [peak(config, n, 8 + 2 * n, whole=True) for n in (4, 8)]
    rows += [peak(config, 1, 5.0, recompute=True, finetune=memory.ADAPTERS, trained=1_000_000)]
    monkeypatch.setattr(memory, "measured", lambda: tuple(rows))
    return rows


@pytest.mark.usefixtures("peaks")
def test_figures_match_sums_by_hand() -> None:
    plain = experiment()
    assert estimate(plain, "unet", Way(2, False, False)) == 14
    assert estimate(plain, "unet", Way(8, False, False)) == pytest.approx(26), "the line through 2 and 4 objects"
    assert estimate(plain, "unet", Way(8, True, False)) == 24
    # Moments: 8 bytes become 2 and a scale of 4 bytes for 256 weights, each twice.
    assert estimate(plain, "unet", Way(2, False, False), "int8") == pytest.approx(14 - 0.5 * (6 - 8 / 256))
    assert estimate(unet(optimizer={"state": "bfloat16"}), "unet", Way(2, False, False)) == pytest.approx(12)
    assert estimate(unet(ema=0.99), "unet", Way(2, False, False)) == pytest.approx(16)
    two = experiment(resources={"unet": {"gpus": 2}})
    assert estimate(two, "unet", Way(2, False, False)) == pytest.approx(16), "gradients twice"
    adapters = experiment(unet={"finetune": {"kind": "lora"}})
    assert estimate(adapters, "unet", Way(1, False, True)) == 5
    assert estimate(plain, "unet", Way(1, False, True), "int8", memory.ADAPTERS) == pytest.approx(5 - 0.006, abs=1e-3)


@pytest.mark.usefixtures("peaks")
def test_what_was_not_measured_is_not_known() -> None:
    way = Way(2, False, False)
    for other in (
        {"unet": {"condition_size": 256}},
        {"unet": {"rendered": {"views": 2}}},
        {"unet": {"finetune": {"kind": "lora", "rank": 4}}},
        {"splat": {"size": 64}},
        {"representation": {"kind": "joint"}, "autodecoder": {"codes": {"train": True}}},
        {"model": {"kind": "scratch"}},
        {"unet": {"train": {"precision": "fp32"}}},
        {"unet": {"distill": {}}, "infer": {"sampler": {"kind": "ddim"}, "steps": 4, "guidance": 1}},
    ):
        assert estimate(experiment(**other), "unet", way) is None, other
    assert estimate(experiment(), "autodecoder", way) is None
    for same in (
        {"model": {"pretrained": "/weights"}},
        {"unet": {"train": {"optimizer": {"lr": 1e-6}, "seed": 3}, "losses": {"latent": {"weight": 2}}}},
        {"autodecoder": {"views": 3}, "fit": {"steps": 3}},
    ):
        assert estimate(experiment(**same), "unet", way) == 14, same


@given(
    st.integers(1, 9), st.integers(1, 9), st.floats(1, 50), st.floats(0.1, 5), st.integers(1, 40),
    st.sampled_from(["float32", "bfloat16", "int8"]), st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_two_measurements_give_the_line(
    a: int, b: int, constant: float, each: float, objects: int, state: str, ema: bool
) -> None:
    """Rows measured with any moments and average predict rows with others."""
    moments = {"float32": 4.0, "bfloat16": 2.0, "int8": 1 + 4 / 256}[state] + 2 * ema
    config = experiment()
    rows = [peak(config, n, constant + each * n + moments, state=state, ema=ema) for n in {a, b, a + 1}]
    said = estimate(config, "unet", Way(objects, False, False), among=rows)
    assert said == pytest.approx(constant + each * objects + 4.0, rel=1e-9)


def test_a_discriminator_takes_memory() -> None:
    plain, judged, later, wider, features = (
        key_of(experiment(autodecoder={"adversarial": options}), "autodecoder")
        for options in (None, {}, {"start": 0.5, "lr": 1e-5, "weight": 2}, {"channels": 32}, {"judge": "features"})
    )
    assert judged == later
    assert len({plain, judged, wider, features}) == 4


def test_ways_are_those_of_training() -> None:
    assert list(ways(unet(batch_size=6), "unet")) == [
        Way(6, True, False), Way(3, False, False), Way(2, False, False), Way(1, False, False), Way(1, False, True),
    ]  # fmt: skip
    assert list(ways(unet(batch_size=1), "unet")) == [Way(1, True, False), Way(1, True, True)]
    assert list(ways(unet(micro_batch=2, speed={"recompute": True}), "unet")) == [
        Way(2, False, True),
        Way(1, False, True),
    ]
    shared = experiment(resources={"unet": {"gpus": 2, "nodes": 2}})
    assert configured(shared, "unet") == Way(2, True, False)


@pytest.mark.usefixtures("peaks")
@pytest.mark.parametrize(
    ("gb", "found"),
    [
        (24, (Way(8, True, False), 24)),
        (23.9, (Way(4, False, False), 18)),
        (12, (Way(1, False, False), 12)),
        (11, (Way(1, False, True), 9)),
        (8.9, None),
    ],
)
def test_the_first_way_that_fits(gb: float, found: tuple[Way, float] | None) -> None:
    assert fitting(experiment(), "unet", gb) == found


@pytest.mark.usefixtures("peaks")
def test_the_sheet_has_a_column(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def column(text: str) -> dict[str, str]:
        file = tmp_path / "scale.yaml"
        file.write_text(text)
        assert main(["plan", "--scale", str(file), "--cost", "1000"]) == 0
        rows = [line.split("|") for line in capsys.readouterr().out.split("GPU memory of")[0].splitlines()]
        return {row[1].strip(): row[-2].strip() for row in rows if len(row) > 3}

    plain = column("unet: {}\n")
    assert plain["unet"] == "24.0 (8 at once)"
    assert plain["autodecoder"] == plain["infer"] == "not measured"
    assert plain["ingest"] == "none"
    for limit, said in ((20, "18.0 (4 at once)"), (10, "9.0 (1 at once, recomputed)"), (8, "more than 8")):
        assert column(f"resources: {{unet: {{gpu_memory_gb: {limit}}}}}\n")["unet"] == said


@pytest.mark.usefixtures("peaks")
def test_the_table_of_ways() -> None:
    line = memory.table(experiment()).splitlines()[-1]
    assert line == "| unet | 24.0 | 12.0 | 9.0 | 6.0 | 5.0 | a GPU |"


def test_other_scales_have_the_table_of_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "measured", tuple)
    assert main(["plan", "--scale", "mini", "--cost", "10", "--ablations", "mosaic", "joint"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("## mosaic@seed=0, mosaic@seed=1, mosaic@seed=2, joint@seed=0, joint@seed=1, joint@seed=2\n")
    assert "no hours and disk space: a cost sheet is for meshes" in text
    assert text.count("| unet | ") == 1, "equal sheets are printed once"


@pytest.mark.usefixtures("peaks")
def test_check_names_what_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines that it gives are options that exist, and with which the stage fits."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(CONFIGS)
    (tmp_path / "ablations").mkdir()
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n")
    (tmp_path / "b.obj").write_text("v 0 0 0\nv 0 1 0\nv 0 0 2\nf 1 2 3\n")

    def check(text: str) -> str:
        (tmp_path / "ablations" / "small.yaml").write_text(f"data: {{paths: [.]}}\n{text}")
        assert main(["plan", "--scale", "full", "--check", "--missing", "warn"]) in (0, 2)
        return capsys.readouterr().err

    assert "too little" not in check("resources: {unet: {gpu_memory_gb: 9}, autodecoder: {gpu_memory_gb: 1}}\n")
    said = check("resources:\n  unet: {gpu_memory_gb: 8}\n")
    assert "ablations/small.yaml:3: resources.unet.gpu_memory_gb: 8 GB are too little" in said
    assert "takes 9.0 GB, as measured" in said
    proposed = [line.strip() for line in said.splitlines() if line.startswith("  ")]
    assert [sorted(yaml.safe_load(line)["unet"]) for line in proposed] == [["train"], ["finetune"]]
    for line in proposed:
        assert "too little" not in check(f"resources: {{unet: {{gpu_memory_gb: 8}}}}\n{line}\n")


def test_the_file_of_the_package_is_read() -> None:
    rows = read_json(memory.FILE)["rows"]
    assert [Peak(**row) for row in rows] == list(memory.measured())
    assert len({json.dumps({**row, "gb": 0, "device": ""}) for row in rows}) == len(rows)


def test_what_was_measured_at_full_size_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The keys of the package's rows are those of the configurations of which they are; sheets were not measured."""
    monkeypatch.chdir(ROOT)

    def ways_of(scale: str, *ablations: str) -> list[list[str]]:
        assert main(["plan", "--scale", scale, "--cost", "10", "--ablations", *ablations]) == 0
        rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
        return [row for row in rows if row[0] in ("autodecoder", "unet") and row[1] != "1"]

    for name in ("mosaic", "attributes_published", "joint"):
        stage_1, stage_2 = ways_of("full", name)
        for cells in (stage_1[1:5], stage_2[1:6]):
            assert all(0 < float(cell) < 80 for cell in cells), (name, cells)
        assert float(stage_2[5]) < float(stage_2[4]) < float(stage_2[3])
    stage_1, stage_2 = ways_of("mini", "joint")
    assert all(0 < float(cell) < 6 for cell in (*stage_1[1:5], *stage_2[1:5])), (stage_1, stage_2)
    stage_1, stage_2 = ways_of("mini", "mini_sheet")
    assert set(stage_1[1:5]) == set(stage_2[1:6]) == {"not measured"}


@pytest.mark.parametrize(
    ("changes", "way"),
    [
        ({"resources": {"autodecoder": {"gpu_memory_gb": 24}}}, ("autodecoder", Way(4, False, False))),
        ({"resources": {"unet": {"gpu_memory_gb": 24}}}, ("unet", Way(2, False, False))),
        (
            {
                "resources": {"unet": {"gpu_memory_gb": 16}},
                "unet": {"train": {"optimizer": {"state": "int8"}}},
            },
            ("unet", Way(2, False, False)),
        ),
    ],
)
def test_the_plan_says_what_training_did(changes: dict[str, Any], way: tuple[str, Way]) -> None:
    """With the package's rows: objects at once with which `z1g bench capped` ended on a GPU that was limited so."""
    config, (stage, expected) = experiment(**changes), way
    limit = getattr(config.resources, stage).gpu_memory_gb
    found = fitting(config, stage, limit)
    assert found is not None
    assert found[0] == expected
    assert found[1] <= limit


SCALES = sorted(file.stem for file in CONFIGS.glob("*.yaml"))
ON_A_CPU = {"scratch", "tiny"}
REPRESENTATIONS = ("mosaic", "attributes", "joint")
ATTENTION = ("auto", "flash", "flash4", "cudnn", "xformers")


@pytest.mark.parametrize(
    ("scale", "name"),
    [
        *((scale, None) for scale in SCALES),
        *((scale, name) for scale in ("full", "small", "base", "mini") for name in REPRESENTATIONS),
    ],
)
def test_every_scale_says_what_it_takes(scale: str, name: str | None) -> None:
    """Each stage of the chain has a figure of the package's rows, but those of the scales for CPUs, which have none."""
    for run, config in experiments(scale, name and [name], ROOT / "ablations", CONFIGS):
        cells = {stage: cell(config, stage) for stage in STAGE_NAMES if stage != "ingest"}
        if scale in ON_A_CPU:
            assert set(cells.values()) == {"none"}, run
        else:
            assert all(re.fullmatch(r"\d+\.\d \(\d+ at once\)", said) for said in cells.values()), (run, cells)


@pytest.mark.parametrize("stage", ["unet", "infer"])
def test_kernels_of_attention_take_the_same_memory_but_those_of_xformers(stage: str) -> None:
    """Measured at full size with 48 objects: 113,597 MiB with FlashAttention 4, 113,599 with cuDNN's."""
    keys = {kernels: key_of(experiment(**{stage: {"attention": kernels}}), stage) for kernels in ATTENTION}
    assert keys["auto"] == keys["cudnn"] == keys["flash"] == keys["flash4"]
    assert keys["xformers"] != keys["auto"]


class Counted:
    """A fit on a GPU that notes how many objects it is asked for at once."""

    device = torch.device("cuda")

    def __init__(self, config: Experiment) -> None:
        self.options = config.fit
        self.asked: list[int] = []

    def run(self, scenes: list[Any]) -> list[Any]:
        self.asked.append(len(scenes))
        return scenes


def asked(config: Experiment, objects: int = 40) -> list[int]:
    """Sizes of the batches in which the stage fits objects."""
    fit: Any = Counted(config)
    scenes: list[Any] = [SimpleNamespace(rgba=torch.empty(0), fov_y_deg=30.0) for _ in range(objects)]
    assert len(list(FitQueue(fit).run(scenes))) == objects
    return fit.asked


@pytest.mark.parametrize(
    ("fit", "at_once", "batches"),
    [
        ({}, 32, [32, 8]),
        ({"batch_objects": 16}, 16, [16, 16, 8]),
        ({"batch_objects": 16, "schedule": {"kind": "constant"}}, 16, [16, 16, 8]),
        ({"batch_objects": 16, "schedule": {"kind": "plateau"}}, 1, [1] * 40),
    ],
)
def test_the_plan_counts_objects_as_the_fit_does(
    monkeypatch: pytest.MonkeyPatch, fit: dict[str, Any], at_once: int, batches: list[int]
) -> None:
    config = experiment(fit=fit)
    rows = tuple(peak(config, n, n / 2, stage="fit") for n in range(1, 41))
    monkeypatch.setattr(memory, "measured", lambda: rows)
    assert cell(config, "fit") == f"{at_once / 2} ({at_once} at once)"
    assert asked(config) == batches


@pytest.mark.parametrize(("scale", "said"), [("original", "14.1 (1 at once)"), ("full", "30.1 (32 at once)")])
def test_what_fits_of_a_scale_take(scale: str, said: str) -> None:
    ((_, config),) = experiments(scale, None, ROOT / "ablations", CONFIGS)
    assert cell(config, "fit") == said
    assert f"({asked(config)[0]} at once)" in said
