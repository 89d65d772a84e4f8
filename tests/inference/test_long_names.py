"""Photographs and objects whose names are as long as file systems allow, or odd."""

import json
from pathlib import Path

import pytest
from support.finished_tree import SCENES, finished
from support.photographs import disc, saved

from z1g.cli.main import main
from z1g.core.files import read_jsonl

pytestmark = pytest.mark.slow

NAMES = {
    "250 bytes": "p" * 246 + ".png",
    "250 bytes of another script": "写" * 82 + ".png",
    "a line feed": "a\nb.png",
    "not UTF-8": "caf\udce9.png",
    "only signs": "$(touch x);'.png",
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_photograph_with_an_odd_name(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    run = finished(tmp_path_factory.getbasetemp()) / "results/ablations/micro"
    saved(tmp_path, disc())
    photograph, out = (tmp_path / "a.png").rename(tmp_path / NAMES[kind]), tmp_path / "out"
    assert main(["infer", str(photograph), "--run", str(run), "--out", str(out), "--size", "16"]) == 0
    (file,) = out.glob("*.json")
    record = json.loads(file.read_text())
    assert record["photograph"] == str(photograph)
    assert sorted(path.name for path in out.iterdir()) == sorted([*record["outputs"].values(), file.name])
    assert {path.name.split(".")[0] for path in out.iterdir()} == {file.stem}


def test_photographs_with_the_same_long_beginning(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = finished(tmp_path_factory.getbasetemp()) / "results/ablations/micro"
    for i in range(3):
        saved(tmp_path, disc(radius=10 + i), "a.png").rename(tmp_path / f"{'p' * 245}{i}.png")
    assert main(["infer", str(tmp_path), "--run", str(run), "--out", str(tmp_path / "out"), "--size", "16"]) == 0
    records = [json.loads(file.read_text()) for file in sorted((tmp_path / "out").glob("*.json"))]
    assert {Path(record["photograph"]).stem[-1] for record in records} == {"0", "1", "2"}
    assert len({record["outputs"]["splats"] for record in records}) == 3


def test_an_object_with_a_long_name_goes_through_all_stages(tmp_path_factory: pytest.TempPathFactory) -> None:
    results = finished(tmp_path_factory.getbasetemp()) / "results"
    (manifest,), (rows,) = results.glob("ingest/*/manifest.jsonl"), results.glob("ingest/*/chunk-00001.jsonl")
    sources = {row["id"]: row["source"] for row in read_jsonl(manifest)[1:]}
    (long,) = (name for name, source in sources.items() if source.endswith(SCENES[-1]))
    assert long.startswith("s" * 64)
    assert len(long) <= 77
    every = read_jsonl(rows) + [row for file in results.glob("ingest/*/chunk-00000.jsonl") for row in read_jsonl(file)]
    assert {row["id"]: row["status"] for row in every} == dict.fromkeys(sources, "ok")
    measured = {row["object"] for file in results.glob("metrics/*/metrics.jsonl") for row in read_jsonl(file)}
    sampled = {path.stem for path in results.glob("infer/*/chunk-*/*.ply")}
    assert sampled == measured
    assert main(["verify", str(results / "ablations/micro"), "--sample", "0"]) in (0, 1)
