"""The report's numbers by azimuth, by object, and costs."""

import html
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.report_tree import build

from z1g.core.files import write_json
from z1g.report.breakdown import BIN_DEG, azimuth_means, by_object, columns
from z1g.report.collect import Measurements, MetricInfo, Results
from z1g.report.summary import summarize
from z1g.stages import report

SPECS: dict[str, dict[str, Any]] = {
    "base": {"seed": 1, "stage1": "s1", "gain": 0, "config": {"unet": {"lr": 1e-5, "ema": None}}},
    "fast": {"seed": 2, "stage1": "s1", "gain": 1, "config": {"unet": {"lr": 1e-4, "ema": None}}},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    build(root, SPECS, images=32)
    attempt = {"seconds": 1800.0, "finished": True, "nodes": 1, "gpus": ["H100"], "gpu_joules": 1.8e6}
    for stage, identity in (("unet", "un-base"), ("unet", "un-fast"), ("infer", "in-base")):
        joules = 0.9e6 if stage == "infer" else attempt["gpu_joules"]
        record = {"job": stage, "attempts": [{**attempt, "gpu_joules": joules}], "outputs": {}}
        write_json(root / stage / identity / "jobs" / f"{stage}.json", record)
        (root / stage / identity / "benchmark").mkdir(parents=True, exist_ok=True)
        (root / stage / identity / "benchmark" / "a.tsv").write_text("s\tmax_rss\n1800\t1000\n")
    report.run(root, list(SPECS), root / "report.html")
    return root


@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 180), st.one_of(st.none(), st.floats(-50, 50))), max_size=40
    )
)
@settings(max_examples=50, deadline=None)
def test_azimuth_curve_is_the_mean_over_objects_in_each_bin(rows: list[tuple[str, float, float | None]]) -> None:
    wide = [
        {"object": name, "split": "test", "source": "sampled", "view": i, "azimuth_deg": angle, "psnr": value}
        for i, (name, angle, value) in enumerate(rows)
    ]
    other = [{**row, "source": "fitted", "psnr": 1e6} for row in wide]
    actual = azimuth_means(Measurements([*wide, *other], {"psnr": MetricInfo("PSNR")}), "psnr", "test", "sampled")
    expected = []
    for low in range(0, 180, BIN_DEG):
        top = 180.1 if low + BIN_DEG == 180 else low + BIN_DEG
        means = [
            np.mean(values)
            for object_id in "abc"
            if (values := [v for name, angle, v in rows if name == object_id and low <= angle < top and v is not None])
        ]
        if means:
            expected.append((low + BIN_DEG / 2, np.mean(means)))
    np.testing.assert_allclose(np.array(actual).reshape(-1, 2), np.array(expected).reshape(-1, 2), atol=1e-9)


def test_every_object_has_a_row_per_metric(tree: Path) -> None:
    results = Results(tree)
    ablations = results.ablations(list(SPECS))
    summary = summarize(results, ablations)
    tables = by_object(columns(results, ablations, summary), summary)
    assert list(tables) == ["psnr", "ssim", "chamfer"]  # a metric of sets has no objects
    names = [row.name for row in tables["psnr"]]
    assert names == ["chair", "horse", "barrel", "bread", "chicken", "crate"]  # test objects first
    assert tables["psnr"][0].cells == [("20.10", pytest.approx(20.1)), ("21.10", pytest.approx(21.1))]
    assert tables["chamfer"][5].cells == [("–", None), ("–", None)]


def cells(text: str, first: str) -> list[str]:
    """Texts of the cells of the table row whose heading begins with `first`."""
    row = re.search(rf"<tr><th[^>]*>{first}.*?</tr>", text, re.DOTALL)
    assert row is not None
    return [html.unescape(re.sub("<.*?>", "", cell)).strip() for cell in re.findall(r"<td.*?</td>", row[0], re.DOTALL)]


def test_time_and_energy_by_stage_or_unknown(tree: Path) -> None:
    text = (tree / "report.html").read_text()
    assert cells(text, 'unet <span class="sub mono">un-base')[-2:] == ["0.5 h", "0.5 kWh"]
    assert cells(text, 'infer <span class="sub mono">in-base')[-2:] == ["0.5 h", "0.25 kWh"]
    assert cells(text, 'ingest <span class="sub mono">in00')[-2:] == ["unknown", "unknown"]
    assert cells(text, "sampling ") == ["300", "unknown"]  # half an hour for six objects
    assert cells(text, "GPU energy ") == ["unknown", "unknown"]  # other stages have no records


def test_page_has_configurations_azimuth_charts_and_gaps(tree: Path) -> None:
    text = (tree / "report.html").read_text()
    assert '<summary>fast</summary><pre class="mono scroll">unet.lr: 0.0001\nunet.ema: null</pre>' in text
    azimuth = text[text.index('id="azimuth"') : text.index('id="splats"')]
    assert azimuth.count("<polyline") == 4  # two view metrics, two ablations
    assert "Chamfer: 1 object without a value, e.g. crate: no mesh" in text
    extremes = text[text.index('id="extremes"') : text.index('id="azimuth"')]
    assert extremes.count("<img") == 2 * 3 * 6  # ablations × metrics with objects × three at either end
    assert "<summary>FD</summary>" not in extremes


def test_results_without_newer_columns_still_give_a_page(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "results"
    shutil.copytree(tree, root)
    for name in SPECS:
        folder = root / f"metrics/me-{name}"
        (folder / "objects.jsonl").unlink()
        lines = (folder / "metrics.jsonl").read_text()
        (folder / "metrics.jsonl").write_text(re.sub(r', "azimuth_deg": [\d.]+', "", lines))
    report.run(root, list(SPECS), root / "report.html")
    text = (root / "report.html").read_text()
    assert "No view with an azimuth has been measured" in text
    assert "objects.jsonl does not exist" in text
