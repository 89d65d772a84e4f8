"""Published figures: the file that comes with z1g, its schema, and that none of them is in a column of the table."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.peer_tree import write_peer
from support.report_tree import build

from z1g.core.errors import UserError
from z1g.report.collect import Results
from z1g.report.compare import compare
from z1g.report.compare_text import FORMATS
from z1g.report.html import page
from z1g.report.published import FILE, HEADING, read_published
from z1g.report.summary import summarize
from z1g.report.tables import csv_text, latex, markdown

GOOD: dict[str, Any] = {
    "systems": {"Made up": {"psnr": 99.125}}, "protocol": {"data": "nothing", "measured_by": "nobody"},
    "source": "arXiv:0000.00000", "read_from": "paper",
}  # fmt: skip


def test_every_figure_that_comes_with_z1g_has_its_source() -> None:
    published = read_published()
    assert published
    for one in published:
        assert re.search(r"arXiv:\d{4}\.\d{5}", one.source)
        assert "measured by" in one.protocol.text()
        if one.read_from != "paper":
            assert one.source_text() != one.source, "it says what was read"


@pytest.mark.parametrize("system", ["InstantMesh", "LGM"])
def test_the_page_says_how_far_papers_differ(system: str) -> None:
    tables = [one for one in read_published() if one.protocol.data.startswith("GSO") and system in one.systems]
    found = sorted((one.systems[system]["psnr"] for one in tables), reverse=True)
    *others, last = (f"{psnr:.1f}" for psnr in found)
    text = " ".join((FILE.parent / "peers.md").read_text().split())
    assert re.search(rf"{system}[a-zA-Z ]* {', '.join(others)} and {last} dB in ", text)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"source": "a blog"}, r"published\[1\]\.: Value error, source 'a blog' has no arXiv:, doi: or https://"),
        ({"source": None}, r"published\[1\]\.source"),
        ({"systems": {}}, r"published\[1\]\.systems"),
        ({"systems": {"LGM": {}}}, r"published\[1\]\.systems\.LGM"),
        ({"systems": {"LGM": {"PSNR": 1.0}}}, r"published\[1\]\.systems\.LGM\.PSNR"),
        ({"protocol": {"data": "GSO"}}, r"published\[1\]\.protocol\.measured_by"),
        ({"read_from": "memory"}, r"published\[1\]\.read_from"),
        ({"psnr": 1}, r"published\[1\]\.psnr: Extra inputs"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, change: dict[str, Any], where: str) -> None:
    entry = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    (tmp_path / "peers.yaml").write_text(yaml.safe_dump({"published": [GOOD, entry]}))
    with pytest.raises(UserError, match=where):
        read_published(tmp_path / "peers.yaml")


def test_a_missing_file_has_no_figures(tmp_path: Path) -> None:
    assert read_published(tmp_path / "peers.yaml") == []
    (tmp_path / "peers.yaml").write_text("figures: []\n")
    with pytest.raises(UserError, match="expected a list under `published`"):
        read_published(tmp_path / "peers.yaml")


def test_they_are_below_the_tables_with_their_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, {"base": {"seed": 1, "stage1": "s1", "gain": 0.0}})
    assert FILE.name == "peers.yaml"
    results = Results(tmp_path)
    summary = summarize(results, results.ablations(["base"]))
    text, first = markdown(summary), read_published()[0]
    table, _, below = text.partition(HEADING)
    assert f"{first.systems['DiffSplat']['psnr']:g}" in below
    assert "measured by" in below
    assert first.source not in table
    assert all(f"% {name}: " in latex(summary) for one in read_published() for name in one.systems)
    assert "DiffSplat" not in csv_text(summary.single, summary.metrics)
    html = page(results, ["base"])
    assert '<details class="published">' in html
    assert first.source in html


def test_costs_of_other_systems_are_shown_as_given(tmp_path: Path) -> None:
    build(tmp_path, {"base": {"seed": 1, "stage1": "s1", "gain": 0.0}})
    cost = {"seconds": 2.5, "parameters": 415_000_000.0, "memory_gb": None, "hardware": "one H100"}
    write_peer(tmp_path, "lgm", {"chair": 20.0, "horse": 21.0}, cost=cost)
    write_peer(tmp_path, "free", {"chair": 20.0, "horse": 21.0})
    results = Results(tmp_path)
    summary = summarize(results, results.ablations(["base"]))
    said = "peer: lgm, as given: 2.5 s/object, 415,000,000 parameters, on one H100."
    assert said in markdown(summary)
    html = page(results, ["base"])
    assert "Other systems, as given</th><th>peer: lgm</th></tr>" in html
    assert "<td>415,000,000</td>" in html
    comparison = compare(tmp_path, ["base", "lgm"], "test", "sampled")
    lines = [line for line in FORMATS["md"](comparison).splitlines() if line.startswith("| all networks (parameters)")]
    assert lines == ["| all networks (parameters) | unknown | 415,000,000 |"]
    assert said in comparison.notes
