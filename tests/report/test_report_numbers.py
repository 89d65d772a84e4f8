"""Means, intervals and tables against numbers computed by hand."""

import csv
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import ttest_1samp
from support.report_tree import METRICS, build

from z1g.core.errors import UserError
from z1g.core.files import read_json, write_json, write_jsonl
from z1g.report.collect import MetricInfo, Results, differences
from z1g.report.replicates import Table
from z1g.report.statistics import estimate
from z1g.report.summary import Row, Summary, best, object_means, summarize, verdict_words
from z1g.report.tables import latex, markdown, number
from z1g.report.verdicts import Figure, figure
from z1g.stages import tables

TWO = {
    "base": {"seed": 1, "stage1": "aaa", "gain": 0.0},
    "more_100%": {"seed": 2, "stage1": "aaa", "gain": 1.0},
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    build(tmp_path, TWO)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics/me-base/metrics.jsonl", '{"psnr": 20}', "it has a row without object, split and source"),
        ("metrics/me-base/objects.jsonl", '{"object": "a", "split": "test", "source": "sampled", "chamfer": "1"}',
         "its chamfer of a is not a number"),
        ("metrics/me-base/metrics.json", '{"metrics": {"psnr": [1]}}', "it does not describe metrics"),
        ("unet/un-base/history.jsonl", '{"step": "one"}', "it has a value that is not a number"),
    ],
)  # fmt: skip
def test_tables_of_something_else_are_named(tree: Path, file: str, content: str, said: str) -> None:
    """In folders without records of jobs, as of earlier versions, nothing else would notice them."""
    assert (tree / file).is_file()
    (tree / file).write_text(content)
    results = Results(tree)
    with pytest.raises(UserError, match=rf"{file} is damaged: {said}"):
        _ = results.measurements("me-base"), results.history("unet", "un-base")


def test_objects_have_equal_weight_regardless_of_views() -> None:
    rows: list[dict[str, Any]] = [{"object": "a", "psnr": x} for x in (10.0, 20.0, 30.0, None)]
    rows.append({"object": "b", "psnr": 40.0})
    assert object_means(rows, "psnr") == {"a": 20.0, "b": 40.0}
    assert figure(estimate(np.array([list(object_means(rows, "psnr").values())]))) == Figure(30.0, None, None, 2, 1)


def test_csv_matches_the_measured_rows(tree: Path) -> None:
    tables.run(tree, list(TWO), tree / "tables")
    lines = list(csv.DictReader(io.StringIO((tree / "tables/ablations.csv").read_text())))
    sampled = [x for x in lines if (x["ablation"], x["source"], x["split"]) == ("base", "sampled", "test")]
    psnr = next(x for x in sampled if x["metric"] == "psnr")
    # chair: 20 + 0 and horse: 20 − 0.7, each plus 0.1 on average over its views 0, 1, 2
    assert float(psnr["mean"]) == pytest.approx(19.75)
    assert (psnr["low"], psnr["high"], psnr["n_objects"], psnr["n_seeds"]) == ("", "", "2", "1")
    assert (psnr["verdict"], psnr["about"]) == ("too few to say", "models")
    assert {x["metric"] for x in lines} == {"psnr", "ssim", "chamfer", "fd"}  # ST-LPIPS has no value anywhere
    assert len(lines) == 2 * 5 * 2 * 4  # ablations × sources × splits × metrics
    # A metric of objects counts the objects with a value: the crate has no mesh.
    chamfer = next(x for x in lines if (x["source"], x["split"], x["metric"]) == ("fitted", "train", "chamfer"))
    assert float(chamfer["mean"]) == pytest.approx(0.2 - 34 / 200 + 0.003)
    assert (chamfer["n_objects"], chamfer["verdict"]) == ("3", "")
    fd = next(x for x in sampled if x["metric"] == "fd")
    assert (fd["mean"], fd["low"], fd["high"], fd["n_objects"], fd["verdict"]) == ("200.0", "", "", "2", "")


def test_markdown_reads_back_and_marks_the_best_sample(tree: Path) -> None:
    tables.run(tree, list(TWO), tree / "tables")
    lines = (tree / "tables/ablations.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0] == ["Split", "Source", "Ablation", "n", "Seeds", "PSNR (dB) ↑", "SSIM ↑", "Chamfer (size) ↓", "FD ↓"]
    assert [row[1].split()[0] for row in rows[2:8]] == [
        "fitted",
        "autodecoder",
        "sampled",
        "sampled",
        "nearest",
        "mean",
    ]
    assert rows[2][2] == "all 2"
    assert rows[4][2:6] == ["base", "2", "1", "19.75"]
    assert rows[5][2:6] == ["more_100%", "2", "1", "20.75"]
    assert "- Test objects: all metrics: too few to say who is best (2 objects, at least 5 are needed)." in lines
    assert any("ST-LPIPS is missing: no weights" in line for line in lines)
    assert "- Chamfer: 1 object without a value, e.g. crate: no mesh" in lines


def test_latex_is_balanced_escaped_and_even(tree: Path) -> None:
    tables.run(tree, list(TWO), tree / "tables")
    text = (tree / "tables/ablations.tex").read_text()
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert [line for line in body if re.search(r"(?<!\\)[%_#]", line)] == []
    rows = [line for line in body if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.split(r"(?<!\\)&", line)) for line in rows} == {8}
    assert r"more\_100\%" in text
    assert r"base & 2 & 1 & 19.75 &" in text
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


def sampled(name: str, values: npt.NDArray[np.float64], metrics: str = "eq") -> Row:
    """A row of samples on six or more test objects."""
    objects = tuple(f"o{i}" for i in range(values.shape[1]))
    tables_by_metric = dict.fromkeys(metrics, Table(values, objects, 0, True))
    figures = {metric: figure(estimate(values)) for metric in metrics}
    return Row((name,), "sampled", "test", len(objects), figures, tables_by_metric)


def test_best_are_those_that_cannot_be_told_from_the_best() -> None:
    info = {"e": MetricInfo("E", higher_is_better=False), "q": MetricInfo("Q")}
    objects = np.arange(8.0)
    close = objects + np.resize([0.2, -0.2], 8)
    rows = [sampled(name, values[None]) for name, values in (("a", objects), ("b", close), ("c", objects + 3))]
    assert best(rows, info) == {(0, "e"), (1, "e")}, "lower is better, and q has no direction"
    words = verdict_words(rows, info)
    assert [words[i, "e"] for i in range(3)] == [
        ("may be the best", "models"), ("may be the best", "models"), ("worse than the best", "models"),
    ]  # fmt: skip
    assert verdict_words(rows[1:], info)[0, "e"] == ("best", "models")
    assert best(rows[:2], info) == set(), "nothing is marked where all may be the best"
    few = [sampled(name, values[None, :4]) for name, values in (("a", objects), ("c", objects + 3))]
    assert best(few, info) == set()
    assert verdict_words(few, info)[0, "e"][0] == "too few to say"


def test_latex_marks_the_best_and_has_intervals() -> None:
    objects = np.arange(8.0)
    rows = [sampled(name, values[None], "e") for name, values in (("a", objects), ("c", objects + 3))]
    text = latex(Summary({"e": MetricInfo("E", higher_is_better=True)}, rows, rows, names=("a", "c")))
    low, high = ttest_1samp(objects + 3, 0).confidence_interval()
    assert rf"c & 8 & 1 & \textbf{{6.500}} {{\scriptsize[{low:.3f}, {high:.3f}]}} \\" in text
    assert "% Test objects, E: c is the best model." in text.splitlines()


def test_special_characters_are_escaped() -> None:
    name = r"a|b\c{d}$&*<x>"
    row = Row((name,), "sampled", "test", 1, {"m": Figure(0.5, None, None, 1)})
    summary = Summary({"m": MetricInfo("M")}, [row], [row], names=(name,))
    line = markdown(summary).splitlines()[2]
    assert len(re.split(r"(?<!\\)\|", line)) == 8
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
