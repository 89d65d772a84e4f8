"""The whole chain at a micro scale, run through Snakemake.

One command of each verb that is cheap to start is a process as users start it, others are forked. The tests on SLURM start
all verbs as users do.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from plyfile import PlyData
from support.paths import ROOT

pytestmark = pytest.mark.slow
STARTED = ("ingest", "fit", "ablation", "tables", "report")


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--profile", "local", *arguments]
    command += ["--config", "scale=micro.yaml", "ablations=encoder_mix,optimized_splat"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "Z1G_TEST_STARTED": str(folder / "started")}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=540)


def z1g(verbs: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*verbs.split(), *arguments], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, verbs: str) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("workflow", "ablations", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    text, n = re.subn(r"(?m)^Z1G = .*$", f"Z1G = {verbs!r}", (ROOT / "Snakefile").read_text())
    assert n == 1
    (folder / "Snakefile").write_text(text)
    shutil.copy(ROOT / "tests/support/micro.yaml", folder)
    for verb in STARTED:
        (folder / "started" / verb).mkdir(parents=True)
    (folder / "local").symlink_to("workflow/profiles/local")
    (folder / "broken").mkdir()
    (folder / "broken/cut.obj").write_text("v 0 0 0\nv 1 0")
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def test_verbs_were_processes_of_their_own(finished: Path) -> None:
    assert list((finished / "started").iterdir()) == []


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tables_report_and_splats_are_written(finished: Path) -> None:
    results = finished / "results"
    for name in ("ablations.csv", "ablations.md", "ablations.tex"):
        assert (results / "tables" / name).stat().st_size > 100
    page = (results / "report.html").read_text()
    assert "encoder_mix" in page
    assert "optimized_splat" in page
    plys = sorted(results.glob("infer/*/chunk-*/*.ply"))
    assert plys
    vertices = PlyData.read(str(plys[0]))["vertex"]
    assert len(vertices) == 6 * 16 * 16


def test_every_source_has_rows_in_the_table(finished: Path) -> None:
    for file in (finished / "results").glob("metrics/*/metrics.jsonl"):
        table = rows(file)
        assert {row["source"] for row in table} == {"sampled", "autodecoder", "mean_code", "nearest", "fitted"}
        assert {row["split"] for row in table} == {"train", "test"}
        assert all(row[name] is not None for row in table for name in ("psnr", "ssim", "st_lpips", "alpha_iou"))
        objects = rows(file.parent / "objects.jsonl")
        assert all(row[name] is not None for row in objects for name in ("chamfer", "f_score"))
        # The rasterizer's depth and trimesh's surface agree to within one of 16 pixels.
        fitted = [row for row in objects if row["source"] == "fitted"]
        assert all(row["chamfer"] < 0.06 and row["depth_error"] < 0.08 for row in fitted), fitted


def test_a_broken_mesh_is_quarantined_with_its_reason(finished: Path) -> None:
    results = finished / "results"
    table = [row for file in results.glob("ingest/*/chunk-*.jsonl") for row in rows(file)]
    broken = [row for row in table if row["status"] == "quarantined"]
    assert [row["id"].partition("-")[0] for row in broken] == ["cut"]
    assert broken[0]["reason"]
    assert broken[0]["reason"][:20] in (results / "report.html").read_text()


def test_stage_one_and_data_are_shared_where_they_agree(finished: Path) -> None:
    results = finished / "results"
    assert len(list(results.glob("ingest/*"))) == len(list(results.glob("fit/*"))) == 1
    assert len(list(results.glob("autodecoder/*"))) == 2


@pytest.mark.parametrize("name", ["encoder_mix", "optimized_splat"])
def test_an_ablation_can_be_verified_and_compared(finished: Path, verbs: str, name: str) -> None:
    results = finished / "results"
    done = z1g(verbs, "verify", str(results / "ablations" / name), "--sample", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name} holds: 16 of 16 checks are good" in done.stdout
    compared = z1g(verbs, "compare", "encoder_mix", name, "--results", str(results), "--format", "md")
    assert compared.returncode == 0, compared.stderr
    assert "| PSNR (dB) ↑ |" in compared.stdout


def test_the_same_command_again_has_nothing_to_do(finished: Path) -> None:
    again = snakemake(finished)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout + again.stderr


def test_no_temporary_files_are_left(finished: Path) -> None:
    assert not list((finished / "results").rglob("*.tmp"))
