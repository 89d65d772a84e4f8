"""The report's part on studies: what it says, that it stays small and offline, and that its charts are drawn."""

import html
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import Page, needs_chromium, open_page
from support.report_tree import build
from support.study_tree import grid, write_run, write_study

from z1g.stages import report

pytestmark = pytest.mark.slow  # the chart library takes seconds to load
LR, GUIDANCE = "unet.train.lr", "infer.guidance"
NETWORK = """performance.getEntriesByType("resource").map((entry) => entry.name)"""
DRAWN = """[...document.querySelectorAll("[data-chart]")].filter((place) => !place.closest("details:not([open])"))
  .every((place) => place.querySelector("svg.marks path"))"""


def psnr(point: dict[str, Any]) -> float:
    return 20 + math.log10(point[LR] / 1e-5) - 0.3 * (point[GUIDANCE] - 2) ** 2


def write(root: Path) -> list[str]:
    """A grid of 12 points and 3 seeds, a random search of 20 points in which 4 were pruned, and a set with an x."""
    points = grid(unet__train__lr=[1e-5, 3e-5, 1e-4, 3e-4], infer__guidance=[1, 2, 4])
    names = write_study(root, "guided", points, psnr, seeds=3, noise=0.2)
    draw = np.random.default_rng(4)
    points = [{LR: float(10 ** draw.uniform(-5, -3)), GUIDANCE: float(draw.uniform(1, 5))} for _ in range(20)]
    names += write_study(root, "searched", points, psnr, noise=0.2, pruned=[2, 5, 11, 17])
    for n in (50, 500):
        for seed in range(2):
            plan = {"set": "few_objects", "x": n, "study": f"few_{n}", "arm": f"few_{n}", "seed": seed}
            write_run(root, f"few_{n}@seed={seed}", 18 + n / 500 + 0.1 * seed, plan)
            names.append(f"few_{n}@seed={seed}")
    return names


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    report.run(root, write(root), root / "report.html")
    return root


def test_page_says_what_matters(tree: Path) -> None:
    text = html.unescape((tree / "report.html").read_text()).replace("\N{NO-BREAK SPACE}", " ")
    assert "12 arms in 36 runs; varied: unet.train.lr (4 values), infer.guidance (3 values)." in text
    assert re.search(r"Variance between runs: ((lr|guidance) \d\d %, ){2}noise \(replicates\) \d+ %", text)
    assert "lr × guidance <small>not told from noise</small>" in text
    best = re.findall(r"<td>([\d.]+)</td><td>([\d.]+) to ([\d.]+)</td><td>3</td>", text)
    assert len(best) >= 8
    assert all(len(value) == 6 for row in best[:8] for value in row), "PSNR has zeros at its end: 21.300"
    assert "20 arms in 20 runs" in text
    assert "4 pruned, which no figure of a metric includes; 4 not measured" in text
    assert "few_objects: learning curves by training objects" in text
    assert "1 curve of 4 runs against training objects." in text
    assert "60 runs were planned." in text
    assert text.count("<dt>guided@") == 8, "other sections show a run of each of the best arms"
    assert text.count("<dt>searched@") == 8


def test_tables_are_written_beside_the_page(tree: Path) -> None:
    files = {"guided.csv", "guided.effects.csv", "searched.csv", "searched.effects.csv"}
    assert {file.name for file in (tree / "studies").iterdir()} == files
    text = (tree / "report.html").read_text()
    assert all(f'href="studies/{name}"' in text for name in files)
    assert len((tree / "studies/guided.csv").read_text().splitlines()) == 37


def test_page_with_charts_fetches_nothing(tree: Path) -> None:
    text = (tree / "report.html").read_text()
    assert text.count('id="vega"') == 1, "the library is in the page once"
    data = re.findall(r'<script type="application/json" id="study-data-\d">(.*?)</script>', text)
    assert len(data) == 3
    rest = re.sub(r'<script type="application/json".*?</script>', "", text)
    assert not re.search(r"https?://|@import|url\(", rest)
    addresses = set(re.findall(r'https?://[^"]*', "".join(data)))
    assert addresses == {"https://vega.github.io/schema/vega-lite/v6.json"}, "names of a format, which nothing fetches"
    assert "default-src 'none'" in text
    assert "unsafe-eval" not in text
    assert len(text) < 1e6


def test_charts_are_valid_specifications(tree: Path) -> None:
    """Vega-Lite compiles every chart without a warning, and every chart has a place in the page."""
    import vl_convert

    text = (tree / "report.html").read_text()
    for number, data in enumerate(re.findall(r'id="study-data-\d">(.*?)</script>', text)):
        charts = json.loads(data)["charts"]
        for chart in charts:
            compiled = vl_convert.vegalite_to_vega(chart, vl_version="6.4")
            assert compiled["marks"]
        places = re.findall(rf'data-study="{number}" data-chart="(\d+)"', text)
        assert list(map(int, places)) == list(range(len(charts)))


def test_page_without_a_study_has_no_chart_library(tmp_path: Path) -> None:
    build(tmp_path, {"base": {"seed": 1, "stage1": "s1", "gain": 0}, "fast": {"seed": 2, "stage1": "s1", "gain": 1}})
    report.run(tmp_path, ["base", "fast"], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert 'id="vega"' not in text
    assert 'id="studies"' not in text
    assert not (tmp_path / "studies").exists()


def test_names_cannot_end_a_script(tmp_path: Path) -> None:
    """Values of options are texts that a user chose."""
    names = []
    for number, value in enumerate(("</script><b>", "<!--", "x")):
        names.append(f"odd@{number}")
        write_run(tmp_path, names[-1], 20.0, {"study": "odd", "arm": names[-1], "point": {"kind": value}})
    report.run(tmp_path, names, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<b>" not in text.split('id="study-data-0"')[1].split("</section>")[0]
    (data,) = re.findall(r'id="study-data-0">(.*?)</script>', text)
    assert [row[2] for row in json.loads(data)["tables"]["runs"]["rows"]] == ["</script><b>", "<!--", "x"]


def test_study_without_measurements(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path, f"s@x={name}", None, {"study": "s", "arm": f"s@x={name}", "point": {"x": name}})
    report.run(tmp_path, ["s@x=a", "s@x=b"], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "No run of this study has been measured." in text
    assert "2 not measured" in text


def test_page_of_three_hundred_arms_stays_small(tmp_path: Path) -> None:
    draw = np.random.default_rng(7)
    points = [{LR: float(10 ** draw.uniform(-5, -3)), GUIDANCE: float(draw.uniform(1, 5))} for _ in range(300)]
    names = write_study(tmp_path, "wide", points, psnr, noise=0.2)
    report.run(tmp_path, names, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert len(text) < 1.2e6
    assert text.count("<tr>") < 600
    assert text.count("<svg") < 40


def emulate(page: Page, scheme: str) -> None:
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


@needs_chromium
@pytest.mark.browser
def test_charts_are_drawn_in_both_schemes(tree: Path, tmp_path: Path) -> None:
    with open_page((tree / "report.html").as_uri(), tmp_path, size=(1100, 1000)) as page:
        emulate(page, "light")
        assert page.evaluate("document.querySelectorAll('svg.marks').length") == 0, "charts are drawn when seen"
        page.call("Emulation.setDeviceMetricsOverride", width=1100, height=6000, deviceScaleFactor=1, mobile=False)
        page.until(DRAWN)
        top = "document.getElementById('studies').getBoundingClientRect().top"
        light = page.screenshot().crop((0, int(page.evaluate(top)), 1100, int(page.evaluate(top)) + 3000))
        bars = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--c0')")
        filled = f"[...document.querySelectorAll('path')].some((path) => path.getAttribute('fill') === '{bars}')"
        assert page.evaluate(filled)
        emulate(page, "dark")
        page.until(f"getComputedStyle(document.documentElement).getPropertyValue('--c0') !== '{bars}' && !({filled})")
        page.until(DRAWN)
        dark = page.screenshot().crop((0, int(page.evaluate(top)), 1100, int(page.evaluate(top)) + 3000))
        gray = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--faint').trim()")
        pruned = f"document.querySelectorAll('path[stroke=\"{gray}\"]').length"
        assert page.evaluate(pruned) >= 4, "a line for each pruned arm"
        assert page.evaluate(NETWORK) == []
        assert page.errors == []
    assert np.asarray(light.convert("L")).mean() > 200
    assert np.asarray(dark.convert("L")).mean() < 60
    for image in (light, dark):
        saturation = np.asarray(image.convert("HSV"))[..., 1]
        assert (saturation > 100).mean() > 0.004, "bars, lines and dots are there"


@needs_chromium
@pytest.mark.browser
def test_closed_metrics_are_drawn_when_they_are_opened(tree: Path, tmp_path: Path) -> None:
    second = "document.querySelectorAll('#study-0 ~ details')[1]"
    with open_page((tree / "report.html").as_uri(), tmp_path) as page:
        assert page.evaluate(f"{second}.querySelectorAll('svg.marks').length") == 0
        page.evaluate(f"{second}.open = true; {second}.querySelector('[data-chart]').scrollIntoView()")
        page.until(f"{second}.querySelector('[data-chart] svg.marks path') !== null")
        assert page.errors == []
