"""Sparse files of a terabyte, which take no disk, in place of every input: refused, in little memory."""

from pathlib import Path

import pytest
from support.finished_tree import finished
from support.gaussians import gaussians
from support.hostile import HUGE_BYTES
from support.paths import ROOT
from support.watched import run_all

from z1g.core.errors import UserError
from z1g.gaussians import files as splat_files

pytestmark = pytest.mark.slow

MOST_MB = 500.0
HEADER = b"ply\nformat binary_little_endian 1.0\nelement vertex 19999999999\n"
CALLS = {
    "splats": [["export", f"huge.{ending}", "--out", "b.ply"] for ending in ("ply", "splat", "spz")]
    + [["mesh", "huge.ply"], ["view", "huge.splat", "--no-browser"], ["export", "header.ply", "--out", "b.spz"]]
    + [["film", "huge.ply"], ["film", "huge.spz", "--path", "huge.jsonl"]],
    "photographs": [["infer", f"huge.{e}", "--run", "{run}", "--out", "out"] for e in ("png", "jpg", "webp", "tif")],
    "lists": [["list", f"huge.{ending}", "--out", "list.jsonl"] for ending in ("jsonl", "csv")],
    "configurations": [
        ["config", "show", "--ablation", "huge.yaml", "--scale", "scratch"],
        ["plan", "--scale", "huge.yaml"],
        ["plan", "--scale", "scratch", "--objects", "huge.jsonl", "--missing", "warn"],
    ],
    "results": [["compare", "huge.jsonl", "micro", "--results", "results"]],
}


@pytest.mark.parametrize("kind", CALLS)
def test_a_terabyte_is_refused(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    run = finished(tmp_path_factory.getbasetemp()) / "results/ablations/micro"
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "results").symlink_to(run.parents[1])
    (folder / "ablations").mkdir()
    for ending in ("ply", "splat", "spz", "png", "jpg", "webp", "tif", "jsonl", "csv", "zip", "yaml"):
        with (folder / f"huge.{ending}").open("wb") as file:
            file.truncate(HUGE_BYTES)
    names = [f"property float {name}\n" for name in ("x", "y", "z", "opacity")]
    with (folder / "header.ply").open("wb") as file:
        file.write(HEADER + "".join(names).encode() + b"end_header\n")
        file.truncate(HUGE_BYTES)
    calls = [[word.format(run=run) for word in call] for call in CALLS[kind]]
    for call, ended in zip(calls, run_all(calls, [folder], _nothing), strict=True):
        assert not ended.what, f"{call}: {ended.what}"
        assert (ended.code, "Traceback" in ended.output) == (2, False), f"{call}: {ended.output[-2000:]}"
        assert ended.output.splitlines()[-1].strip(), call
        assert ended.peak_mb < MOST_MB, f"{call}: {ended.peak_mb:.0f} MB"


@pytest.mark.parametrize("ending", ["obj", "glb", "gltf", "stl", "blend", "fbx", "zip"])
def test_a_mesh_of_a_terabyte_is_listed_and_not_read(tmp_path: Path, ending: str) -> None:
    """Ingest sets it aside: it is above `data.limits`."""
    folder = tmp_path / "work"
    folder.mkdir()
    with (folder / f"huge.{ending}").open("wb") as file:
        file.truncate(HUGE_BYTES)
    (folder / "small.obj").write_text("v 0 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n")
    (ended,) = run_all([["list", ".", "--out", "list.jsonl"]], [folder], _nothing)
    assert (ended.code, ended.what) == (0, ""), ended.output
    assert "2 objects" in ended.output
    assert "1 not read" in ended.output
    assert ended.peak_mb < MOST_MB


def test_files_that_are_larger_than_their_header_says_are_refused(tmp_path: Path) -> None:
    """Otherwise a damaged number of rows, or another type of a property, would be other splats without a word."""
    splat_files.write(tmp_path / "a.ply", gaussians(20))
    with (tmp_path / "a.ply").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match="4 bytes more than its header says"):
        splat_files.read(tmp_path / "a.ply")


def _nothing() -> None:
    pass
