"""Other systems in tables, report and comparisons: their rows, their ranks, and what is said about gaps."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.peer_tree import write_peer
from support.report_tree import build

from z1g.core.errors import UserError
from z1g.core.files import read_json, read_jsonl, write_json, write_jsonl
from z1g.report.collect import Results
from z1g.report.compare import compare
from z1g.report.compare_text import FORMATS
from z1g.report.html import page
from z1g.report.summary import rankings, summarize
from z1g.report.tables import csv_text, latex, markdown
from z1g.report.verdict_tables import verdict_tables

SPECS: dict[str, dict[str, Any]] = {
    "base": {"seed": 1, "stage1": "s1", "gain": 0.0},
    "better": {"seed": 2, "stage1": "s1", "gain": 1.5},
}
MANY = tuple(f"object{i:02d}" for i in range(12))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two ablations measured on twelve test objects: the second is about 1.5 dB better on each."""
    root = tmp_path / "results"
    build(root, SPECS)
    for name, spec in SPECS.items():
        folder = root / "metrics" / f"me-{name}"
        draw = np.random.default_rng(len(name))
        values = {o: 18 + i % 5 + spec["gain"] + 0.1 * draw.normal() for i, o in enumerate(MANY)}
        rows = [
            {
                "object": o,
                "split": "test",
                "source": "sampled",
                "view": v,
                "azimuth_deg": 60.0 * v,
                "psnr": x + 0.1 * (v - 1),
            }
            for o, x in values.items()
            for v in range(3)
        ]
        write_jsonl(folder / "metrics.jsonl", rows)
        write_jsonl(
            folder / "objects.jsonl",
            [{"object": o, "split": "test", "source": "sampled", "chamfer": 0.1} for o in MANY],
        )
        about = read_json(folder / "metrics.json")
        write_json(folder / "metrics.json", {**about, "truth": {o: f"truth-{o}" for o in MANY}, "sets": []})
    return root


def means(root: Path, name: str) -> dict[str, float]:
    """Mean PSNR by object of an ablation."""
    values: dict[str, list[float]] = {}
    for row in read_jsonl(root / "metrics" / f"me-{name}" / "metrics.jsonl"):
        values.setdefault(row["object"], []).append(row["psnr"])
    return {o: float(np.mean(x)) for o, x in values.items()}


def test_a_system_is_a_row_with_an_interval_and_is_ranked(tree: Path) -> None:
    write_peer(tree, "lgm", {o: x + 3 + 0.05 * (i % 3) for i, (o, x) in enumerate(means(tree, "base").items())})
    summary = summarize(results := Results(tree), results.ablations(SPECS))
    (index,) = [i for i, row in enumerate(summary.merged) if row.source == "peer"]
    row = summary.merged[index]
    assert (row.ablations, row.n, summary.served(row)) == (("peer: lgm",), 12, "peer: lgm")
    figure = row.figures["psnr"]
    assert figure.low is not None
    assert figure.low < figure.value < (figure.high or 0)
    ranked, ranking = rankings(summary.merged, summary.metrics)["test", "psnr"]
    assert len(ranked) == 3
    assert ranked[ranking.leader] == index
    assert ranking.tied == [ranking.leader], "3 dB with a spread of a tenth"
    lines = [line for line in markdown(summary).splitlines() if "peer: lgm" in line]
    assert lines[0].startswith(f"| test | another system's outputs | peer: lgm | 12 | 1 | **{figure.value:.2f}** [")
    assert "peer: lgm" in latex(summary)
    table = list(csv.DictReader(io.StringIO(csv_text(summary.single, summary.metrics))))
    (psnr,) = [line for line in table if line["ablation"] == "peer: lgm" and line["metric"] == "psnr"]
    assert (psnr["source"], psnr["verdict"], psnr["about"]) == ("peer", "best", "models")


def test_a_system_with_three_objects_is_compared_on_those_and_says_so(tree: Path) -> None:
    base = means(tree, "base")
    write_peer(
        tree, "few", {o: base[o] - 9 for o in MANY[:3]}, n_evaluated=12, wanted=list(MANY),
        problems=dict.fromkeys(MANY[3:], "missing: there is no file"),
    )  # fmt: skip
    summary = summarize(results := Results(tree), results.ablations(SPECS))
    ranked, ranking = rankings(summary.merged, summary.metrics)["test", "psnr"]
    assert [summary.merged[i].source for i in ranked] == ["sampled", "sampled"]
    assert not ranking.why, "the ablations are ranked over all twelve"
    text = markdown(summary)
    assert (
        "peer: few: 3 of 12 objects were measured; its row and its differences are about 3 objects only. "
        "object03: missing: there is no file;" in text
    )
    assert "and 6 more in its peer.json." in text
    (table,) = verdict_tables(summary)
    (name, cells) = table.rows[-1]
    assert name == "peer: few"
    psnr = cells[table.head.index("PSNR (dB) ↑")]
    assert psnr.text == "-9.00"
    assert psnr.verdict == "too few to say"
    comparison = compare(tree, ["base", "few"], "test", "sampled")
    difference = comparison.entries["psnr"][1].difference
    assert difference is not None
    assert (difference.n, round(difference.value, 6)) == (3, -9.0)
    assert comparison.rankings == {}
    assert any("3 of 12 objects were measured" in note for note in comparison.notes)


def test_compare_takes_systems_by_name_or_folder(tree: Path) -> None:
    write_peer(tree, "lgm", {o: x + 3 for o, x in means(tree, "base").items()}, registered=True)
    for target in ("lgm", "peer: lgm", str(tree / "peers" / "lgm")):
        comparison = compare(tree, ["base", target, "better"], "test", "sampled")
        assert [contender.name for contender in comparison.contenders] == ["base", "peer: lgm (registered)", "better"]
        entry = comparison.entries["psnr"][1]
        assert entry.judged is not None
        assert (entry.judged.verdict, entry.judged.about) == ("better", "models")
        assert set(comparison.rankings) >= {"psnr"}
        for write in FORMATS.values():
            assert "peer: lgm (registered)" in write(comparison)
    with pytest.raises(UserError, match='did you mean "lgm"'):
        compare(tree, ["base", "lgn"], "test", "sampled")


def test_a_system_that_was_measured_on_other_images_is_left_out_and_not_compared(tree: Path) -> None:
    base = means(tree, "base")
    write_peer(tree, "old", base, truth=dict.fromkeys(base, "another digest"))
    write_peer(tree, "elsewhere", {"unknown": 20.0})
    summary = summarize(results := Results(tree), results.ablations(SPECS))
    assert not [row for row in summary.merged if row.source == "peer"]
    for name in ("old", "elsewhere"):
        assert f"peer: {name} is left out: it was measured on other objects, views or images" in results.notes
    with pytest.raises(UserError, match="with other ground-truth images"):
        compare(tree, ["base", "old"], "test", "sampled")
    with pytest.raises(UserError, match="no object is in both"):
        compare(tree, ["base", "elsewhere"], "test", "sampled")
    write_peer(tree, "views", base, views=(0, 1))
    with pytest.raises(UserError, match="measured on other views"):
        compare(tree, ["base", "views"], "test", "sampled")


def test_two_systems_may_have_different_objects(tree: Path) -> None:
    base = means(tree, "base")
    write_peer(tree, "one", {o: base[o] + 1 for o in MANY[:8]})
    write_peer(tree, "two", {o: base[o] + 2 for o in MANY[2:]})
    entries = compare(tree, ["one", "two", "base"], "test", "sampled").entries["psnr"]
    assert [entry.difference and entry.difference.n for entry in entries] == [None, 6, 8]


def test_the_page_shows_it_and_what_is_unknown_about_it(tree: Path) -> None:
    write_peer(tree, "lgm", means(tree, "base"), unknown=["how large it is"])
    html = page(Results(tree), list(SPECS))
    assert "peer: lgm" in html
    assert "peer: lgm: unknown about its frame lgm: how large it is." in html


def test_damaged_measurements_are_noted_and_do_not_stop_the_table(tree: Path) -> None:
    write_peer(tree, "lgm", means(tree, "base"))
    with (tree / "peers" / "lgm" / "metrics.jsonl").open("a") as file:
        file.write("{}\n")
    summarize(results := Results(tree), results.ablations(SPECS))
    assert any("metrics.jsonl has changed since it was written" in note for note in results.notes)
