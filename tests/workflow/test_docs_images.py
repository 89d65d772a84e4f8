"""Images of the documentation are as the record says, and none is stale."""

import csv
import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from support.paths import ROOT

FOLDER = ROOT / "docs" / "images"
OTHER = {"make.py", "record.json"}


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_images_make", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(folder: Path = FOLDER) -> dict[str, Any]:
    entries: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return entries


def stale(entries: dict[str, Any], folder: Path, versions: dict[str, int]) -> list[str]:
    """What is wrong with the images of a folder, by the record alone."""
    images = {file.name for file in folder.iterdir() if file.is_file()} - OTHER
    problems = [f"{name} is not in the record" for name in sorted(images - entries.keys())]
    problems += [f"{name} does not exist" for name in sorted(entries.keys() - images)]
    for name in sorted(images & entries.keys()):
        entry = entries[name]
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != entry["sha256"]:
            problems.append(f"{name} is not what its command made")
        if versions[entry["recipe"]] != entry["version"]:
            problems.append(f"{name} is of an earlier version of its recipe: {entry['command']}")
        for path, known in entry["repository"].items():
            file = ROOT / path
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != known:
                problems.append(f"{name} was made from another {path}: {entry['command']}")
    return problems


def test_no_image_is_stale(make: ModuleType) -> None:
    assert stale(record(), FOLDER, make.VERSIONS) == []


def test_every_image_is_shown_and_small() -> None:
    pages = "".join(file.read_text() for file in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    for name in record():
        assert f"images/{name}" in pages, f"{name} is on no page"
        assert (FOLDER / name).stat().st_size < 1_500_000


def photographs(folder: Path) -> Path:
    """A folder like those of `z1g infer`, with the views in six colors."""
    for i in range(3):
        Image.new("RGB", (32, 32), (250, 0, 10 * i)).save(folder / f"a{i}.condition.png")
        views = Image.new("RGB", (64, 96), (0, 0, 250))
        views.paste((0, 250, 0), (0, 0, 32, 32))
        views.save(folder / f"a{i}.sheet.png")
        frames = [Image.new("RGB", (64, 64), (10 * k, 20 * k, 0)) for k in range(8)]
        frames[0].save(folder / f"a{i}.turntable.webp", save_all=True, append_images=frames[1:])
        outputs = {"condition": f"a{i}.condition.png", "sheet": f"a{i}.sheet.png", "turntable": f"a{i}.turntable.webp"}
        (folder / f"a{i}.json").write_text(json.dumps({"outputs": outputs}))
    return folder


def test_a_sheet_shows_condition_and_two_views_and_a_change_is_noticed(make: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "in").mkdir()
    source = photographs(tmp_path / "in")
    make.main(["--out", str(out), "--side", "32", "sheet", str(source), "photographs.webp"])
    with Image.open(out / "photographs.webp") as opened:
        image = opened.convert("RGB")
    assert image.size == (3 * (3 * 32 + 8), 32 + make.LABEL)
    for x, expected in ((16, (250, 0, 0)), (48, (0, 250, 0)), (80, (0, 0, 250))):
        assert max(abs(a - b) for a, b in zip(image.getpixel((x, 16)), expected, strict=True)) < 30
    assert stale(record(out), out, make.VERSIONS) == []
    assert stale(record(out), out, {**make.VERSIONS, "sheet": 0})[0].startswith("photographs.webp is of an earlier")
    (out / "photographs.webp").write_bytes(b"other")
    (out / "more.png").write_bytes(b"other")
    assert stale(record(out), out, make.VERSIONS) == [
        "more.png is not in the record", "photographs.webp is not what its command made",
    ]  # fmt: skip


def test_a_film_is_animated(make: ModuleType, tmp_path: Path) -> None:
    source = photographs(tmp_path)
    make.main(["--out", str(tmp_path), "film", str(source / "a0.turntable.webp")])
    with Image.open(tmp_path / "film.webp") as film:
        assert (film.size, film.n_frames) == ((256, 256), 8)


def test_a_strip_has_held_out_objects_from_best_to_worst(make: ModuleType, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (results / "ablations/run").mkdir(parents=True)
    (results / "metrics/1/images").mkdir(parents=True)
    (results / "ablations/run/plan.json").write_text(json.dumps({"stages": {"metrics": "1"}}))
    rows = []
    for i, split in enumerate(("test", "test_unseen", "train")):
        name = f"object{i}-0000"
        for source, psnr in (("sampled", 20 + i), ("autodecoder", 5)):
            rows.append({"object": name, "split": split, "source": source, "view": 0, "psnr": psnr})
        for kind in ("condition", "truth", "sampled", "autodecoder"):
            Image.new("RGB", (16, 16), (80 * i, 0, 0)).save(results / f"metrics/1/images/{name}.{kind}.png")
    (results / "metrics/1/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    make.main(["--out", str(tmp_path), "held_out", str(results), "run"])
    with Image.open(tmp_path / "held_out.webp") as strip:
        assert strip.size == (2 * (3 * 128 + 8), 128 + make.LABEL)
        assert strip.convert("RGB").getpixel((64, 64))[0] > 50  # the better one, object1, is first
    make.main(["--out", str(tmp_path), "--side", "64", "demo", str(results), "run"])
    with Image.open(tmp_path / "demo.webp") as strip:
        assert strip.size == (2 * (4 * 64 + 8), 2 * (64 + make.LABEL))


def test_the_curve_has_a_line_for_each_kind_of_budget(
    make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(make, "ROOT", tmp_path)
    with (tmp_path / "docs" / make.CURVE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["objects", "equal", "seed", "psnr"])
        for objects in (200, 600, 1800):
            for equal in ("steps", "epochs"):
                for seed in range(2):
                    writer.writerow([objects, equal, seed, 15 + objects / 600 + seed])
    make.main(["--out", str(tmp_path), "curve"])
    lines = ElementTree.parse(tmp_path / "learning_curve.svg").getroot().findall("{*}polyline")
    assert [len(line.get("points", "").split()) for line in lines] == [3, 3]
    heights = [float(point.split(",")[1]) for point in lines[0].get("points", "").split()]
    assert heights == sorted(heights, reverse=True)
    assert record(tmp_path)["learning_curve.svg"]["repository"].keys() == {f"docs/{make.CURVE}"}


def test_the_figure_of_kinds_has_seeds_and_intervals_where_the_table_has_them(
    make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(make, "ROOT", tmp_path)
    rows: list[list[object]] = [["metric", "kind", "seed_0", "seed_1", "margin", "low", "high"]]
    for metric, unit in (("psnr", 1), ("st_lpips", 0.01)):
        rows.append([metric, "mosaic", 18 * unit, 20 * unit, "", "", ""])  # mean 19
        for kind, value in (("attributes", 17), ("joint", 19), ("regression", 22)):
            difference = (value + 1 - 19) * unit
            rows.append(
                [metric, kind, value * unit, (value + 2) * unit, unit, difference - 2 * unit, difference + 3 * unit]
            )
        rows.append([metric, "nearest", 15 * unit, 15 * unit, "", "", ""])
    with (tmp_path / "docs" / make.KINDS).open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    make.main(["--out", str(tmp_path), "kinds"])
    svg = ElementTree.parse(tmp_path / "representations.svg").getroot()
    circles = svg.findall("{*}circle")
    assert len(circles) == 2 * 4 * 2
    x = [float(circle.get("cx", "")) for circle in circles[:8]]  # 18, 20, 17, 19, 19, 21, 22, 24 dB
    a_decibel = (x[1] - x[0]) / 2
    bars = [path.get("d", "") for path in svg.findall("{*}path") if "H" in path.get("d", "")]
    assert len(bars) == 2 * 3 * 2
    ends = [[float(word) for word in (bar[1:].split(" ")[0], bar.split("H")[1])] for bar in bars[:2]]
    attributes = (x[2] + x[3]) / 2
    assert ends[0] == pytest.approx([attributes - 2 * a_decibel, attributes + 3 * a_decibel], abs=0.2)
    assert ends[1] == pytest.approx([attributes - a_decibel, attributes + a_decibel], abs=0.2)
    assert record(tmp_path)["representations.svg"]["repository"].keys() == {f"docs/{make.KINDS}"}
