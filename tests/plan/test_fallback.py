"""Machines without OpenGL: Blender renders instead, under identities of its own, or one line says what is missing."""

import logging
import shutil
from pathlib import Path

import pytest
from support.meshes import cuboid
from support.paths import ROOT
from support.raster import rasterizer

from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.data.shards import read_objects, shard_path, table_path
from z1g.meshes import executable
from z1g.meshes.renderers import Raster, raster
from z1g.plan import fallback
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.stages import ingest

NO_EGL = "OpenGL without a screen (EGL) is not available here"
ABLATION = """
data: {{paths: [{meshes}], renderer: {{resolution: 16}}, split: {{test_fraction: 0.5}}}}
camera: {{train_views: 1, validation_views: 1, test_views: 1}}
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two meshes and an ablation that does not name a renderer."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "meshes").mkdir()
    for i in (1, 2):
        (tmp_path / f"meshes/box{i}.obj").write_text(cuboid((0, 0, 0), (1, 1, i)))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations/one.yaml").write_text(ABLATION.format(meshes="meshes"))
    (tmp_path / "ablations/two.yaml").write_text("base: one\nunet: {condition_dropout: 0.3}\n")
    return tmp_path


@pytest.fixture
def opengl(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """`set_opengl` sets whether this machine has it."""
    set_opengl(monkeypatch, works=True)
    return monkeypatch


def set_opengl(monkeypatch: pytest.MonkeyPatch, works: bool) -> None:
    for module in (raster, fallback):
        monkeypatch.setattr(module, "opengl_problem", lambda: None if works else f"{NO_EGL} (why)")


def set_blender(monkeypatch: pytest.MonkeyPatch, works: bool) -> None:
    def find(*_: object) -> list[str]:
        if not works:
            raise UserError("no Blender found")
        return ["blender"]

    for module in (raster, fallback):
        monkeypatch.setattr(module, "find_blender", find)


def load(missing: str | None) -> Plan:
    folders = Path("results"), Path("ablations"), Path("configs")
    return Plan.load("scratch", None, *folders, missing=missing)  # type: ignore[arg-type]


def ingest_of(plan: Plan, name: str = "one") -> tuple[str, str]:
    planned = plan.ablations[name]
    return planned.ablation.experiment.data.renderer.kind, planned.stages["ingest"].id  # type: ignore[attr-defined]


def test_opengl_is_tried_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rasterizer(16)
    monkeypatch.setattr(raster, "opengl_problem", raster.opengl_problem.__wrapped__)
    assert raster.opengl_problem() is None
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", "/dev/null")
    assert str(raster.opengl_problem()).startswith(NO_EGL)
    monkeypatch.setattr(raster, "CONTEXT", "faulthandler_is_no_module")
    assert "exit code 1" in str(raster.opengl_problem())


def test_blender_renders_with_ids_of_its_own(
    workspace: Path, opengl: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_blender(opengl, works=True)
    by_raster = load("stop")
    assert ingest_of(by_raster)[0] == "raster"
    set_opengl(opengl, works=False)
    with caplog.at_level(logging.WARNING):
        by_blender = load("stop")
    said = [record.getMessage() for record in caplog.records if "OpenGL" in record.getMessage()]
    assert len(said) == 1, "one line for both ablations"
    assert f"data.renderer.kind: {NO_EGL}" in said[0]
    assert "Blender renders, with ids of its own" in said[0]
    kind, stage_id = ingest_of(by_blender)
    assert kind == "blender"
    assert ingest_of(by_blender, "two") == (kind, stage_id)
    first, second = (by_blender.ablations[name].ablation.experiment.data for name in ("one", "two"))
    assert first is second
    assert not set(by_raster.stages) & by_blender.stages.keys()
    # The same ids as of a configuration that names Blender.
    text = (workspace / "ablations/one.yaml").read_text()
    (workspace / "ablations/one.yaml").write_text(text.replace("{resolution: 16}", "{kind: blender, resolution: 16}"))
    set_opengl(opengl, works=True)
    assert ingest_of(load("stop")) == (kind, stage_id)


def test_jobs_and_other_commands_follow_the_start_of_the_run(workspace: Path, opengl: pytest.MonkeyPatch) -> None:
    set_blender(opengl, works=True)
    set_opengl(opengl, works=False)
    assert ingest_of(load(None))[0] == "blender", "before the first run, as the start of one would decide"
    started = load("stop")
    started.write()
    config = read_json(workspace / "results/ablations/one/config.json")
    assert config["data"]["renderer"]["kind"] == "blender"
    set_opengl(opengl, works=True)
    assert ingest_of(load(None)) == ingest_of(started), "a job on a machine with OpenGL"
    again = load("stop")
    assert ingest_of(again)[0] == "raster"
    again.write()
    set_opengl(opengl, works=False)
    assert ingest_of(load(None)) == ingest_of(again), "a job on a machine without OpenGL"
    assert ingest_of(load("warn")) == ingest_of(again), "jobs run elsewhere"


def test_what_is_rendered_needs_no_opengl(workspace: Path, opengl: pytest.MonkeyPatch) -> None:
    set_blender(opengl, works=True)
    finished = load("stop")
    finished.write()
    folder = finished.folder(*finished.ablations["one"].stages["ingest"].key)
    for chunk in range(finished.ablations["one"].stages["ingest"].n_chunks):
        table_path(folder, chunk).touch()
    set_opengl(opengl, works=False)
    assert ingest_of(load("stop")) == ingest_of(finished)


def test_neither_is_one_line_before_the_first_job(workspace: Path, opengl: pytest.MonkeyPatch) -> None:
    set_opengl(opengl, works=False)
    set_blender(opengl, works=False)
    with pytest.raises(UserError) as caught:
        load("stop")
    lines = [line for line in str(caught.value).splitlines() if "OpenGL" in line]
    assert len(lines) == 1
    assert "Nor is there Blender, which would render instead: `make blender`" in lines[0]
    assert ingest_of(load(None))[0] == ingest_of(load("warn"))[0] == "raster"


@pytest.mark.blender
def test_blenders_renders_are_not_taken_for_the_rasterizers(
    workspace: Path, blender_command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rasterizer(16)
    monkeypatch.setenv(executable.ENVIRONMENT_VARIABLE, blender_command[0])
    raster.opengl_problem.cache_clear()
    with monkeypatch.context() as patch:
        patch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", "/dev/null")
        fallen = load("stop")
        fallen.write()
        rendered = {"blender": run_ingest(fallen)}
    raster.opengl_problem.cache_clear()
    plan = load("stop")
    plan.write()
    rendered["raster"] = run_ingest(plan)
    assert {kind: {name.split()[0].strip(",") for name in names} for kind, names in rendered.items()} == {
        "blender": {"Blender"}, "raster": {"raster"},
    }  # fmt: skip
    assert isinstance(plan.ablations["one"].ablation.experiment.data.renderer, Raster)  # type: ignore[attr-defined]


def run_ingest(plan: Plan) -> list[str]:
    """Run the first chunk; what rendered each object."""
    folder = StageFolder.open(plan.folder(*plan.ablations["one"].stages["ingest"].key))
    ingest.run(folder, chunk=0, threads=1)
    return [item.info["renderer"] for item in read_objects(shard_path(folder.path, 0))]
