"""Means, intervals and tables against numbers computed by hand."""

import csv
import io
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.report_tree import METRICS, build

from z1g.core.errors import UserError
from z1g.core.files import read_json, write_json, write_jsonl
from z1g.report.collect import MetricInfo, Results, differences
from z1g.report.summary import Figure, Row, Summary, best, bootstrap_interval, figure, object_means, summarize
from z1g.report.tables import latex, markdown, number
from z1g.stages import tables

TWO = {
    "base": {"seed": 1, "stage1": "aaa", "gain": 0.0},
    "more_100%": {"seed": 2, "stage1": "aaa", "gain": 1.0},
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    build(tmp_path, TWO)
    return tmp_path


def test_bootstrap_of_two_values_spans_them() -> None:
    assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)


def test_bootstrap_of_many_normal_values_is_the_textbook_interval() -> None:
    values = np.random.default_rng(3).normal(5, 2, size=2000)
    low, high = bootstrap_interval(list(values)) or (math.nan, math.nan)
    error = 1.96 * values.std() / math.sqrt(2000)
    assert low == pytest.approx(values.mean() - error, abs=0.01)
    assert high == pytest.approx(values.mean() + error, abs=0.01)


def test_bootstrap_coverage() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = bootstrap_interval(list(generator.normal(size=40)), seed=trial, samples=500) or (1.0, -1.0)
        hits += low <= 0 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_bootstrap_is_deterministic_and_needs_two_values() -> None:
    assert bootstrap_interval([1.0, 2.0, 4.0]) == bootstrap_interval([1.0, 2.0, 4.0])
    assert bootstrap_interval([1.0]) is None
    assert figure([3.0]) == Figure(3.0, None, None, 1)


def test_objects_have_equal_weight_regardless_of_views() -> None:
    rows: list[dict[str, Any]] = [{"object": "a", "psnr": x} for x in (10.0, 20.0, 30.0, None)]
    rows.append({"object": "b", "psnr": 40.0})
    assert object_means(rows, "psnr") == {"a": 20.0, "b": 40.0}
    assert figure(list(object_means(rows, "psnr").values())).value == 30.0


def test_csv_matches_the_measured_rows(tree: Path) -> None:
    tables.run(tree, list(TWO), tree / "tables")
    lines = list(csv.DictReader(io.StringIO((tree / "tables/ablations.csv").read_text())))
    sampled = [x for x in lines if (x["ablation"], x["source"], x["split"]) == ("base", "sampled", "test")]
    psnr = next(x for x in sampled if x["metric"] == "psnr")
    # chair: 20 + 0 and horse: 20 − 0.7, each plus 0.1 on average over its views 0, 1, 2
    assert float(psnr["value"]) == pytest.approx(19.75)
    assert (float(psnr["low"]), float(psnr["high"])) == pytest.approx((19.4, 20.1))
    assert psnr["n"] == "2"
    assert {x["metric"] for x in lines} == {"psnr", "ssim", "chamfer", "fd"}  # ST-LPIPS has no value anywhere
    assert len(lines) == 2 * 5 * 2 * 4  # ablations × sources × splits × metrics
    # A metric of objects has an interval over objects with a value (the crate has no mesh), a metric of sets has none.
    chamfer = next(x for x in lines if (x["source"], x["split"], x["metric"]) == ("fitted", "train", "chamfer"))
    assert float(chamfer["value"]) == pytest.approx(0.2 - 34 / 200 + 0.003)
    assert chamfer["n"] == "3"
    assert chamfer["low"]
    fd = next(x for x in sampled if x["metric"] == "fd")
    assert (fd["value"], fd["low"], fd["high"], fd["n"]) == ("200.0", "", "", "2")


def test_markdown_reads_back_and_marks_the_best_sample(tree: Path) -> None:
    tables.run(tree, list(TWO), tree / "tables")
    lines = (tree / "tables/ablations.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0] == ["Split", "Source", "Ablation", "n", "PSNR (dB) ↑", "SSIM ↑", "Chamfer (size) ↓", "FD ↓"]
    assert [row[1].split()[0] for row in rows[2:8]] == [
        "fitted",
        "autodecoder",
        "sampled",
        "sampled",
        "nearest",
        "mean",
    ]
    assert rows[2][2] == "all 2"
    assert rows[4][2:5] == ["base", "2", "19.75 [19.40, 20.10]"]
    assert rows[5][2:5] == ["more_100%", "2", "**20.75** [20.40, 21.10]"]
    assert any("ST-LPIPS is missing: no weights" in line for line in lines)
    assert "- Chamfer: 1 object without a value, e.g. crate: no mesh" in lines


def test_latex_is_balanced_escaped_and_even(tree: Path) -> None:
    tables.run(tree, list(TWO), tree / "tables")
    text = (tree / "tables/ablations.tex").read_text()
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert [line for line in body if re.search(r"(?<!\\)[%_#]", line)] == []
    rows = [line for line in body if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.split(r"(?<!\\)&", line)) for line in rows} == {7}
    assert r"more\_100\%" in text
    assert r"\textbf{20.75} {\scriptsize[20.40, 21.10]}" in text
    assert r"PSNR (dB) $\uparrow$" in text


def test_shared_rows_merge_only_where_they_agree(tree: Path) -> None:
    results = Results(tree)
    merged = summarize(results, results.ablations(list(TWO))).merged
    assert [r.ablations for r in merged if r.source == "autodecoder"] == [("base", "more_100%")] * 2
    path = tree / "ablations/base/plan.json"
    plan = read_json(path)
    write_json(path, {**plan, "stages": {**plan["stages"], "autodecoder": "other"}})
    rows = Results(tree).measurements(plan["stages"]["metrics"]).rows
    changed = [{**r, "psnr": r["psnr"] + 0.001 * (r["source"] == "autodecoder")} for r in rows]
    write_jsonl(tree / "metrics" / plan["stages"]["metrics"] / "metrics.jsonl", changed)
    results = Results(tree)
    merged = summarize(results, results.ablations(list(TWO))).merged
    assert [r.ablations for r in merged if r.source == "autodecoder"] == [("base",), ("more_100%",)] * 2


def test_best_follows_the_direction_and_needs_two_values() -> None:
    info = {"e": MetricInfo("E", higher_is_better=False), "q": MetricInfo("Q")}
    low, high = Figure(1.0, None, None, 1), Figure(2.0, None, None, 1)
    rows = [
        Row(("a",), "sampled", "test", 1, {"e": high, "q": high}),
        Row(("b",), "sampled", "test", 1, {"e": low, "q": low}),
        Row(("a",), "fitted", "test", 1, {"e": Figure(0.0, None, None, 1)}),
        Row(("a",), "sampled", "train", 1, {"e": low}),
    ]
    assert best(rows, info) == {(1, "e")}


def test_special_characters_are_escaped() -> None:
    name = r"a|b\c{d}$&*<x>"
    row = Row((name,), "sampled", "test", 1, {"m": Figure(0.5, None, None, 1)})
    summary = Summary({"m": MetricInfo("M")}, [row], [row], names=(name,))
    line = markdown(summary).splitlines()[2]
    assert len(re.split(r"(?<!\\)\|", line)) == 7
    assert r"a|b\textbackslash{}c\{d\}\$\&*\textless{}x\textgreater{}" in latex(summary)


def test_unmeasured_metrics_are_noted_and_unknown_names_rejected(tree: Path) -> None:
    results = Results(tree)
    summary = summarize(results, results.ablations(["base"]))
    assert summary.missing == {"ST-LPIPS": "no weights in the cache"}
    assert set(summary.metrics) == set(METRICS) - {"st_lpips"}
    with pytest.raises(UserError, match='did you mean "base"'):
        tables.run(tree, ["bsae"], tree / "tables")


def test_differences_by_key_path() -> None:
    a, b = {"x": {"y": 1, "z": [1]}, "w": None}, {"x": {"y": 2, "z": [1]}, "w": {"v": 3}}
    assert differences([a, b]) == {"x.y": [1, 2], "w": [None, ...], "w.v": [..., 3]}
    assert number(-0.0001, 2) == "0.00"


def test_tables_and_report_start_without_torch() -> None:
    code = "import sys, z1g.stages.tables, z1g.stages.report, z1g.stages.ablation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
