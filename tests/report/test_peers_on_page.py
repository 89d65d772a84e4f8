"""Other systems' outputs on the report page, as a browser shows them."""

import base64
import html
import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.browser import needs_chromium, open_page
from support.peer_tree import write_peer
from support.report_tree import build, draw

from z1g.stages import report

SPECS: dict[str, dict[str, Any]] = {
    "base": {"seed": 1, "stage1": "s1", "gain": 0.0},
    "better": {"seed": 2, "stage1": "s1", "gain": 1.5},
}
ORANGE, VALUES = (255, 140, 0), {"chair": 21.75, "barrel": 18.5}
WHY = "mirrored: its mirror image fits the true views with 24.0 dB, itself with 15.0 dB"
COLUMN = """Promise.all([...document.querySelectorAll('article.object:has(.pair)')].map(async (object) => {
  const tiles = [...object.querySelectorAll('figure')];
  const tile = tiles.find((one) => one.querySelector('b').textContent === 'peer: lgm');
  const image = tile.querySelector('img'), first = tiles[0].getBoundingClientRect(), own = tile.getBoundingClientRect();
  if (image) { image.loading = 'eager'; await image.decode(); }
  const beside = Math.abs(own.top - first.top) < 2 && own.left > first.right;
  return [object.id, image ? image.naturalWidth : 0, tile.querySelector('.none')?.textContent ?? '',
          tile.querySelector('figcaption').textContent.trim(), beside];
}))"""
AZIMUTH = "document.querySelector('section:has(#azimuth) .charts svg').querySelectorAll('polyline').length"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a system that has a good chair, an orange barrel and a mirrored horse, asked for no more."""
    root = tmp_path_factory.mktemp("page") / "results"
    build(root, SPECS, images=48)
    images = {"chair": draw(0, 75, 48), "barrel": Image.new("RGB", (48, 48), ORANGE)}
    about = {"n_evaluated": 6, "wanted": ["barrel", "chair", "horse"], "problems": {"horse": WHY}}
    write_peer(root, "lgm", VALUES, train=["barrel"], images=images, **about)
    report.run(root, list(SPECS), root / "report.html")
    return root / "report.html"


@needs_chromium
@pytest.mark.browser
def test_outputs_stand_beside_ours_and_missing_ones_say_why(page: Path, tmp_path: Path) -> None:
    with open_page(page.as_uri(), tmp_path, (1400, 1000)) as browser:
        shown = {name.removeprefix("object-"): rest for name, *rest in browser.evaluate(COLUMN)}
        legend = browser.evaluate("[...document.querySelectorAll('.legend li')].map((x) => x.textContent.trim())")
        lines = browser.evaluate(AZIMUTH)
        assert browser.errors == []
    assert set(shown) == {"chair", "horse", "barrel", "bread", "chicken", "crate"}
    assert shown["chair"] == [48, "", "peer: lgm 21.75 dB", True]
    assert shown["barrel"] == [48, "", "peer: lgm 18.50 dB", True]
    assert shown["horse"] == [0, WHY, "peer: lgm", True]
    assert {tuple(shown[name]) for name in ("bread", "chicken", "crate")} == {
        (0, "not in its list of objects", "peer: lgm", True)
    }
    assert legend[:3] == ["base", "better", "peer: lgm: 1 of 2 objects"]
    assert lines == 3, "a curve for each of the three"


def test_its_image_is_the_one_that_was_measured(page: Path) -> None:
    (address,) = re.findall(r'<img src="(data:[^"]+)" alt="barrel, peer: lgm"', page.read_text())
    image = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB")
    np.testing.assert_allclose(np.asarray(image).reshape(-1, 3).mean(axis=0), ORANGE, atol=4)


def test_values_by_object_have_a_column_for_it(page: Path) -> None:
    text = html.unescape(page.read_text())
    table = text[text.index("<summary>PSNR (dB) ↑</summary>") :].partition("</table>")[0]
    assert re.findall(r'<button type="button">([^<]+)', table) == ["Object", "base", "better", "peer: lgm"]
    last = {re.findall(r'data-key="([^"]*)"', row)[0]: re.findall(r"<td[^>]*>([^<]*)", row)[-1] for row in rows(table)}
    assert last == {"chair": "21.75", "barrel": "18.50"} | dict.fromkeys(("horse", "bread", "chicken", "crate"), "–")


def test_its_best_and_worst_objects_have_thumbnails(page: Path) -> None:
    text = page.read_text()
    part = text[text.index('id="extremes"') :].partition("</table>")[0]
    (row,) = [row for row in rows(part) if "peer: lgm" in row]
    assert re.findall(r'<img src="data:image/webp;base64,[^"]+" alt="(\w+)"', row) == ["chair", "barrel"]


def test_a_changed_image_is_noted_and_not_shown(page: Path, tmp_path: Path) -> None:
    root = tmp_path / "results"
    shutil.copytree(page.parent, root)
    draw(3, 10, 48).save(root / "peers/lgm/images/chair.peer.png")
    (root / "peers/lgm/images/barrel.peer.png").unlink()
    page = root / "report.html"
    report.run(root, list(SPECS), page)
    text = html.unescape(page.read_text())
    assert "peer: lgm: the image of chair cannot be read (it has changed since it was written)" in text
    assert "peer: lgm: the image of barrel cannot be read" in text
    assert 'alt="chair, peer: lgm"' not in text


def rows(table: str) -> list[str]:
    """The rows of a table that have a cell."""
    return [row for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL) if "<td" in row]
