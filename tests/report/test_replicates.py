"""Replicates: runs of an arm with different seeds, folds, missing objects, and pruned runs."""

import csv
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.report_tree import build

from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.core.files import read_json, read_jsonl, write_jsonl
from z1g.report.card import model_card
from z1g.report.collect import Results
from z1g.report.compare import compare
from z1g.report.compare_text import FORMATS
from z1g.report.explain import explained
from z1g.report.replicates import Replicates, Table, arms
from z1g.report.summary import summarize
from z1g.stages import ablation, report, tables

TEST = ("arch", "bench", "chair", "door", "easel", "fence")
GAINS = {"base": (0.0, 0.1, -0.1), "fast": (4.0, 4.3, 3.7)}


def spec(name: str, arm: str, seed: int | None, gain: float, **plan: Any) -> dict[str, Any]:
    """A run: its stage 1 is its own, and so is its samples' gain in dB."""
    keys = {"study": arm, "arm": arm, "seed": seed, "replicated": ["autodecoder", "unet"], **plan}
    return {"seed": seed or 0, "stage1": f"s-{name}", "gain": gain, "gain1": gain, "plan": keys}


def runs() -> dict[str, dict[str, Any]]:
    return {
        f"{arm}@seed={seed}": spec(f"{arm}{seed}", arm, seed, gain)
        for arm, gains in GAINS.items()
        for seed, gain in enumerate(gains)
    }


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("support.report_tree.TEST", TEST)
    build(tmp_path / "results", {**runs(), "old": {"seed": 9, "stage1": "s-old", "gain": 1.0}})
    return tmp_path / "results"


def test_an_arm_is_compared_over_its_seeds(tree: Path) -> None:
    comparison = compare(tree, ["base", "fast"], "test", "sampled")
    entry = comparison.entries["psnr"][1]
    assert entry.difference is not None
    assert entry.judged is not None
    # The gains are the same for all objects, so only seeds count: t of two degrees of freedom, deviations 0.1 and 0.3.
    reach = 4.30265 * math.sqrt((0.1**2 + 0.3**2) / 3)
    assert entry.difference.value == pytest.approx(4.0)
    assert (entry.difference.low, entry.difference.high) == pytest.approx((4 - reach, 4 + reach), abs=1e-4)
    assert (entry.difference.n, entry.difference.seeds) == (6, 3)
    assert (entry.judged.verdict, entry.judged.about) == ("better", "methods")
    chamfer = comparison.entries["chamfer"][1].judged
    assert chamfer is not None
    assert chamfer.verdict == "better", "lower is better"
    text = "\n".join(explained(comparison))
    assert "Means over 6 objects, each over its views. base, fast: 3 seeds (repeated: autodecoder, unet)." in text
    assert "trained with one seed" not in text
    assert "with these 3 seeds no number of objects would do, and with these 6 objects it takes about" in text


def test_one_run_of_an_arm_is_about_a_model(tree: Path) -> None:
    comparison = compare(tree, ["base", "fast@seed=0", "old"], "test", "sampled")
    words = [(one.verdict, one.about) for entry in comparison.entries["psnr"] if (one := entry.judged)]
    # The seeds of base are known, but those of the others are not.
    assert words == [("better", "models"), ("better", "models")]
    text = FORMATS["md"](comparison)
    assert "better (these models)" in text
    assert "fast@seed=0, old: trained with one seed, so how much results change" in text
    assert "PSNR: fast@seed=0 is the best model." in text
    document = json.loads(FORMATS["json"](comparison))
    assert document["rankings"]["psnr"]["may_be_best"] == ["fast@seed=0"]
    assert document["results"][0]["seeds"] == [0, 1, 2]
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](comparison))))
    assert [r["n_seeds"] for r in rows if r["metric"] == "psnr"] == ["3", "1", "1"]


def test_splats_without_training_have_no_training_noise(tree: Path) -> None:
    comparison = compare(tree, ["base", "old"], "test", "fitted")
    entry = comparison.entries["psnr"][1]
    assert entry.judged is not None
    assert (entry.judged.verdict, entry.judged.about) == ("equal", "splats")
    assert not any("training noise" in sentence for sentence in explained(comparison))


def test_tables_have_one_row_an_arm(tree: Path, tmp_path: Path) -> None:
    names = [*runs(), "old"]
    summary = summarize(results := Results(tree), results.ablations(names))
    assert summary.names == ("base", "fast", "old")
    sampled = [row for row in summary.merged if (row.source, row.split) == ("sampled", "test")]
    assert [(row.ablations, row.seeds, row.n) for row in sampled] == [
        (("base",), 3, 6), (("fast",), 3, 6), (("old",), 1, 6),
    ]  # fmt: skip
    fitted = next(row for row in summary.merged if row.source == "fitted")
    assert (fitted.ablations, fitted.seeds) == (("base", "fast", "old"), 1)
    tables.run(tree, names, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "ablations.csv").read_text())))
    words = {
        r["ablation"]: r["verdict"]
        for r in rows
        if (r["source"], r["split"], r["metric"]) == ("sampled", "test", "psnr")
    }
    assert words == {"base": "worse than the best", "fast": "best", "old": "worse than the best"}
    assert "- Test objects, PSNR: fast is the best model." in (tmp_path / "ablations.md").read_text()
    report.run(tree, names, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "PSNR: fast is the best model." in text
    assert 'verdict-better">+4.00 [+3.21, +4.79]<span class="sub">better</span>' in text
    assert "better (these models)</span>" in text


def test_pruned_runs_are_named_and_never_averaged(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pruned = {"rung": 0.1, "value": 21.3, "by": "validation_psnr"}
    build(tree, {"fast@seed=3": spec("fast3", "fast", 3, -90.0, pruned=pruned)})
    comparison = compare(tree, ["base", "fast"], "test", "sampled")
    difference = comparison.entries["psnr"][1].difference
    assert difference is not None
    assert difference.value == pytest.approx(4.0)
    why = "stopped after 10 % of its training at validation_psnr 21.3; its values are in no mean"
    assert f"fast@seed=3 is left out: {why}" in comparison.notes
    summary = summarize(results := Results(tree), results.ablations([*runs(), "fast@seed=3"]))
    assert summary.pruned == {"fast@seed=3": why}
    assert main(["compare", "base", "fast@seed=3", "--results", str(tree)]) == 2
    assert "every run of fast@seed=3 was pruned" in capsys.readouterr().err


def test_unmeasured_seeds_are_named(tree: Path) -> None:
    shutil.rmtree(tree / "metrics/me-fast@seed=1")
    comparison = compare(tree, ["base", "fast"], "test", "sampled")
    assert "fast@seed=1 is left out: not measured yet" in comparison.notes
    assert len(comparison.contenders[1].replicates.members) == 2
    for seed in (0, 2):
        shutil.rmtree(tree / f"metrics/me-fast@seed={seed}")
    with pytest.raises(UserError, match="fast has not been measured yet: none of its 3 runs"):
        compare(tree, ["base", "fast"], "test", "sampled")


def test_objects_that_a_seed_lacks_are_left_out(tree: Path) -> None:
    path = tree / "metrics/me-fast@seed=1/metrics.jsonl"
    write_jsonl(path, [row for row in read_jsonl(path) if row["object"] != "door"])
    comparison = compare(tree, ["base", "fast"], "test", "sampled")
    difference = comparison.entries["psnr"][1].difference
    assert difference is not None
    assert (difference.n, difference.value) == (5, pytest.approx(4.0))
    assert "fast: 1 object left out of PSNR, because not every seed has them." in explained(comparison)


def test_folds_of_a_seed_are_one_replicate(tree: Path) -> None:
    """Two folds with three test objects each make one replicate of six objects."""
    for fold, kept in enumerate((TEST[:3], TEST[3:])):
        name = f"split@fold={fold}"
        build(tree, {name: spec(name, "split", None, 2.0, fold=fold)})
        path = tree / f"metrics/me-{name}/metrics.jsonl"
        write_jsonl(path, [row for row in read_jsonl(path) if row["object"] in kept])
    comparison = compare(tree, ["base", "split"], "test", "sampled")
    entry = comparison.entries["psnr"][1]
    assert entry.difference is not None
    assert (entry.difference.n, entry.difference.seeds, entry.difference.value) == (6, 1, pytest.approx(2.0))


def test_the_card_names_the_arm(tree: Path) -> None:
    ablation.run(tree, "fast@seed=1")
    text = (tree / "ablations/fast@seed=1/MODEL_CARD.md").read_text()
    assert "This is seed 1 of autodecoder, unet of `fast`" in text
    assert "`z1g compare fast` has means and intervals over all seeds" in text
    assert "[low, high] is the 95 % interval over objects" in text


def test_the_card_names_the_model_that_training_started_from(tree: Path) -> None:
    ablation.run(tree, "fast@seed=1")
    facts = read_json(tree / "ablations/fast@seed=1/reproduce.json")
    (run,) = Results(tree).ablations(["fast@seed=1"])
    for model, named in (({"kind": "trained", "pretrained": "my_base"}, True), ({"kind": "scratch"}, False)):
        text = model_card(replace(run, config={"model": model}), facts, None, [])
        assert ("Finetuned from the trained model `my_base`; its `README.md` says" in text) == named


def test_old_plans_are_arms_of_their_own(tree: Path) -> None:
    grouped = arms((results := Results(tree)).ablations(["old", "fast@seed=2", "fast@seed=0"]))
    assert [(arm.name, [run.name for run in arm.runs]) for arm in grouped] == [
        ("old", ["old"]), ("fast", ["fast@seed=2", "fast@seed=0"]),
    ]  # fmt: skip
    assert results.arms()["base"] == ["base@seed=0", "base@seed=1", "base@seed=2"]


def test_the_same_result_twice_is_one_seed() -> None:
    table = Table.of([{"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 5.0}])
    assert table.values.tolist() == [[1.0, 2.0], [3.0, 5.0]]
    only = table.only(["b", "z"])
    assert (only.values.tolist(), only.objects, only.left_out) == ([[2.0], [5.0]], ("b",), 1)
    empty = Replicates(()).table("psnr", "test", "sampled")
    assert np.array(empty.values).shape == (0, 0)
