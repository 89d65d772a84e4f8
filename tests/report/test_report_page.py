"""The report page: self-contained, small, with notes on missing files and working scripts."""

import html
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.browser import needs_chromium, open_page
from support.report_tree import build

from z1g.core.files import read_json, write_json
from z1g.report.curves import MAX_LABEL, Series, chart, linear_ticks, log_ticks, shorten, thin, tick_text
from z1g.stages import report

SPECS: dict[str, dict[str, Any]] = {
    "base": {"seed": 1, "stage1": "s1", "gain": 0, "config": {"unet": {"lr": 1e-5}}, "description": "As <published>."},
    "fast": {"seed": 2, "stage1": "s1", "gain": 1, "config": {"unet": {"lr": 1e-4}}},
    "own": {"seed": 3, "stage1": "s2", "gain": -1, "gain1": 2, "config": {"unet": {"lr": 1e-5}}},
}


class Page(HTMLParser):
    """Collects addresses that a browser would fetch, and checks that tags are closed."""

    VOID = {"meta", "link", "img"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.fetched += [values[name] for name in ("src", "srcset", "poster", "data") if name in values]
        if tag == "link":
            self.fetched.append(values["href"])
        if tag == "a":
            self.anchors.append(values["href"])
        self.ids += [values["id"]] if "id" in values else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    build(root, SPECS, images=48)
    report.run(root, list(SPECS), root / "report.html")
    return root


def test_page_fetches_nothing_and_is_well_formed(tree: Path) -> None:
    text = (tree / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.fetched
    assert all(address.startswith("data:") for address in page.fetched)
    assert not re.search(r"https?://|@import|url\(", text)
    assert len(page.ids) == len(set(page.ids))
    assert {anchor.removeprefix("#") for anchor in page.anchors if anchor.startswith("#")} <= set(page.ids)
    logs = {anchor for anchor in page.anchors if not anchor.startswith("#")}
    folders = {f"{folder.parent.parent.name}/{folder.parent.name}/logs/" for folder in tree.glob("*/*/benchmark")}
    assert logs
    assert logs == folders, "each stage that Snakemake ran has its logs linked"


def test_page_contents(tree: Path) -> None:
    text = html.unescape((tree / "report.html").read_text())
    assert "On 2 held-out test objects, the samples of fast have the highest mean: PSNR 20.75 dB." in text
    assert "That is too few to say who is best: it takes at least 5 objects." in text
    assert '+1.00<span class="sub">too few to say</span>' in text
    assert "base, fast, own: trained with one seed, so how much results change" in text
    assert "As &lt;published&gt;." in (tree / "report.html").read_text()
    assert "ST-LPIPS is missing: no weights in the cache" in text
    assert "unreadable mesh (1)" in text
    assert "1 fit is below the configured minimum" in text
    assert "CC0 1.0: 2 objects" in text
    assert "1\N{NO-BREAK SPACE}min 02\N{NO-BREAK SPACE}s" in text  # from the benchmark file
    assert "unet.\u200blr" in text
    assert "same as base" in text  # the image of a shared autodecoder is shown once
    assert 'id="missing"' not in text


@pytest.mark.slow
def test_page_stays_small_with_eight_objects_and_five_ablations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.report_tree.TRAIN", tuple(f"object{i}" for i in range(6)))
    specs = {f"a{i}": {"seed": i, "stage1": f"s{i}", "gain": i} for i in range(5)}
    build(tmp_path, specs, images=96)
    report.run(tmp_path, list(specs), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 3e6


@pytest.mark.parametrize("removed", ["metrics", "infer", "unet", "ingest", "fit", "everything"])
def test_missing_results_are_noted(tree: Path, tmp_path: Path, removed: str) -> None:
    root = tmp_path / "results"
    shutil.copytree(tree, root)
    for stage in (
        ("ingest", "fit", "autodecoder", "unet", "infer", "metrics") if removed == "everything" else (removed,)
    ):
        shutil.rmtree(root / stage)
    if removed == "everything":
        (root / "ablations/base/config.json").unlink()
    report.run(root, list(SPECS), root / "report.html")
    text = (root / "report.html").read_text()
    assert Page(text).open == []
    messages = {
        "infer": "There are no turntables or mosaics",
        "unet": "There is no training history",
        "metrics": "Nothing has been measured",
    }
    assert messages.get(removed, 'id="missing"') in text


def test_partial_and_damaged_files_are_noted(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "results"
    shutil.copytree(tree, root)
    history = root / "unet/un-base/history.jsonl"
    history.write_text(history.read_text()[:-20])
    (root / "metrics/me-base/images/chair.sampled.png").write_bytes(b"no image")
    (root / "metrics/me-base/images/horse.truth.png").unlink()
    report.run(root, list(SPECS), root / "report.html")
    text = (root / "report.html").read_text()
    assert "unet/un-base/history.jsonl cannot be read" in text
    assert "chair.sampled.png cannot be read" in text
    assert "some comparison images are missing" in text


def test_page_of_one_ablation(tree: Path, tmp_path: Path) -> None:
    report.run(tree, ["own"], tmp_path / "one.html")
    text = (tmp_path / "one.html").read_text()
    assert "There is only one ablation." in text
    assert "the samples of own reach: PSNR 18.75 dB" in text
    assert 'class="best"' not in text


def test_plan_without_data_stages(tree: Path, tmp_path: Path) -> None:
    """Data with given splats have no ingest and no fit stage."""
    root = tmp_path / "results"
    shutil.copytree(tree, root)
    path = root / "ablations/base/plan.json"
    plan = read_json(path)
    write_json(path, {**plan, "stages": {k: v for k, v in plan["stages"].items() if k not in ("ingest", "fit")}})
    report.run(root, ["base"], root / "report.html")
    assert "No object was quarantined" in (root / "report.html").read_text()


def test_ticks_are_round_and_inside() -> None:
    assert linear_ticks(0, 10_000, 5) == [0, 2000, 4000, 6000, 8000, 10_000]
    assert linear_ticks(14.2, 22.9, 5) == [16, 18, 20, 22]
    assert linear_ticks(3, 3, 5) == [3]
    assert log_ticks(0.03, 0.6) == [0.05, 0.1, 0.2, 0.5]
    assert log_ticks(1e-5, 2.0) == [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0]
    assert log_ticks(0.42, 0.42) == [0.42]
    assert [tick_text(x) for x in (0, 2500, 1e-5, 0.05, 3e6)] == ["0", "2.5k", "1e-5", "0.05", "3M"]


def test_chart_of_invalid_values() -> None:
    assert chart([Series("none", [], 0)], "step", "loss") == ""
    odd = [(1.0, float("nan")), (2.0, -1.0), (3.0, 0.5)]
    assert "<circle" in chart([Series("a & b", odd, 9)], "step", "loss", log_y=True)
    assert thin([(float(i), 1.0) for i in range(1000)], 10)[0] == (49.5, 1.0)


@needs_chromium
@pytest.mark.browser
def test_clicks_sort_the_table_in_both_directions(tree: Path, tmp_path: Path) -> None:
    click = """(() => {
    const table = document.querySelector("table.sortable"), head = table.querySelectorAll("th")[1];
    head.querySelector("button").click();
    return [[...table.tBodies[0].rows].map((row) => row.cells[1].dataset.key), head.getAttribute("aria-sort")];
    })()"""
    with open_page((tree / "report.html").as_uri(), tmp_path) as page:
        down, first = page.evaluate(click)
        up, second = page.evaluate(click)
        assert page.errors == []
    down, up = ([float(key) for key in keys] for keys in (down, up))
    assert down == sorted(down, reverse=True)
    assert up == sorted(up)
    assert (first, second) == ("descending", "ascending")


def test_labels_of_a_sweep_stay_different() -> None:
    names = [f"rate_and_guidance@lr={lr},guidance={g}" for lr in ("3e-4", "1e-3", "3e-3") for g in (1, 2, 4)]
    labels = [shorten(name) for name in names]
    assert len(set(labels)) == len(names)
    assert all(len(label) <= MAX_LABEL for label in labels)
    assert [shorten("rate@lr=1e-3"), shorten("without_sweep_and_long")] == ["rate@lr=1e-3", "without_…and_long"]


def test_data_section_shows_objects_and_creators(tree: Path, tmp_path: Path) -> None:
    text = page_text(tree, tmp_path)
    assert "1 file is a copy of another and was skipped" in text
    assert re.search(r"contact\s+sheet of <code>[^<]*/ingest/in00</code>", text)
    assert "CC BY 3.0: 2 objects by 2 creators" in text
    assert "<b>Ann &lt;b&gt;</b>: Chair" in text
    assert "CC0 1.0: 2 objects by 1 creator<" in text
    assert (
        "no license recorded: 1 object by 1 creator<" in text
    )  # Bread has a creator, Crate has neither license nor creator


def test_missing_data_is_noted(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "results"
    shutil.copytree(tree, copy)
    (copy / "ingest/in00/manifest.jsonl").write_text("{")
    (copy / "ingest/in00/chunk-00000.png").write_text("no image")
    text = page_text(copy, tmp_path)
    assert "ingest/in00/manifest.jsonl cannot be read" in text
    assert "ingest/in00/chunk-00000.png cannot be read" in text
    assert "The data set records no licenses." in text


def page_text(root: Path, folder: Path) -> str:
    report.run(root, list(SPECS), folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")
