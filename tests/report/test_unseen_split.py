"""Unseen categories in tables, comparisons and on the page: a split of their own where there are some."""

from pathlib import Path

import pytest
from support.report_tree import build

from z1g.core.files import read_jsonl, write_jsonl
from z1g.report.collect import Results
from z1g.report.compare import compare
from z1g.report.html import page
from z1g.report.summary import summarize
from z1g.report.tables import latex, markdown


def tree_of(root: Path, unseen: tuple[str, ...]) -> Results:
    """The synthetic results, in which some training objects are of unseen categories."""
    build(
        root, {"base": {"seed": 0, "stage1": "au00", "gain": 0.0}, "more": {"seed": 1, "stage1": "au01", "gain": 1.0}}
    )
    for file in root.glob("metrics/*/*s.jsonl"):
        rows = read_jsonl(file)
        write_jsonl(file, [{**row, "split": "test_unseen"} if row["object"] in unseen else row for row in rows])
    return Results(root)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return tree_of(tmp_path_factory.mktemp("unseen"), ("bread", "chicken"))


def test_tables_have_rows_of_unseen_categories(tree: Results) -> None:
    summary = summarize(tree, tree.ablations(["base", "more"]))
    rows = [row for row in summary.merged if row.split == "test_unseen" and row.source == "sampled"]
    assert [row.n for row in rows] == [2, 2]
    file = next(tree.root.glob("metrics/me-more/metrics.jsonl"))
    own = [
        row["psnr"] for row in read_jsonl(file) if row["source"] == "sampled" and row["object"] in ("bread", "chicken")
    ]
    assert rows[1].figures["psnr"].value == pytest.approx(sum(own) / len(own))
    assert "| unseen categories |" in markdown(summary)
    assert r"\emph{Unseen categories}" in latex(summary)


def test_the_page_shows_unseen_categories(tree: Results) -> None:
    text = page(tree, ["base", "more"])
    assert "<h3>Unseen categories</h3>" in text
    assert "2 test, 2 unseen categories, 2 train" in text
    assert text.count('tag test_unseen">unseen categories</span>') >= 2
    assert "On 2 unseen-category objects, that is " in text
    assert "PSNR (dB) ↑, unseen categories" in text


def test_without_unseen_categories_nothing_speaks_of_them(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, ())
    text = page(tree, ["base", "more"])
    assert "nseen-categor" not in text
    assert "nseen categor" not in text
    assert "2 test, 4 train" in text


def test_comparisons_can_be_of_unseen_categories(tree: Results) -> None:
    comparison = compare(tree.root, ["base", "more"], "test_unseen", "sampled")
    assert comparison.n_objects == 2
    difference = comparison.entries["psnr"][1].difference
    assert difference is not None
    assert difference.value == pytest.approx(1.0)
