"""States of jobs and stages from hand-made results, and hours by hand."""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.builders import plan, stage_path
from support.status_tree import mark, write_beat, write_log, write_output, write_record

from z1g.core.errors import UserError
from z1g.core.files import read_json, write_json
from z1g.core.sealed import write_sealed
from z1g.core.stages import STAGE_NAMES
from z1g.jobs.squeue import SlurmJob
from z1g.plan.plan import Plan
from z1g.plan.status import Evidence, StageStatus, Status, nodes_of_plan, nodes_on_disk, status
from z1g.plan.status.estimates import seconds_to_the_end
from z1g.plan.status.evidence import Mark

GONE = 2**22 + 1
"""A process id above what Linux gives."""
QUIET = Evidence(now=time.time())


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Four objects in two chunks; fit asks for one GPU, stage 1 for two."""
    resources = {name: {"gpus": {"fit": 1, "autodecoder": 2}.get(name, 0)} for name in STAGE_NAMES}
    return plan(tmp_path_factory.mktemp("planned"), resources=resources)


@pytest.fixture
def micro(planned: Plan, tmp_path: Path) -> Plan:
    """The plan, in a results folder of its own."""
    own = planned.of(planned.ablations)
    own.results = tmp_path / "results"
    shutil.copytree(planned.results, own.results)
    return own


def look(planned: Plan, seen: Evidence | None = None) -> Status:
    return status(planned.results, nodes_on_disk(planned.results), seen or Evidence(now=time.time()))


def stage(planned: Plan, name: str, seen: Evidence | None = None) -> StageStatus:
    return next(stage for stage in look(planned, seen).stages if stage.node.stage == name)


def finish(planned: Plan, *names: str, seconds: float = 60.0, **attempt: Any) -> None:
    """Outputs and records of all jobs of some stages."""
    for name in names:
        folder = stage_path(planned, name)
        chunked = name in ("ingest", "fit", "infer")
        for chunk in range(planned.ablations["micro"].stages[name].n_chunks):
            write_output(folder, chunk)
            write_record(folder, f"chunk-{chunk:05d}" if chunked else name, {"seconds": seconds, **attempt})


def sealed(file: Path, content: dict[str, Any]) -> None:
    """A `plan.json` with its checksum."""
    write_sealed(file, {k: v for k, v in content.items() if k != "checksum"}, f"ablations/{file.parent.name}")


# States


def test_nothing_has_begun(micro: Plan) -> None:
    found = look(micro)
    assert [stage.node.stage for stage in found.stages] == list(STAGE_NAMES)
    assert {stage.state for stage in found.stages} == {"waiting"}
    assert not found.finished
    assert nodes_of_plan(micro) == nodes_on_disk(micro.results), "a plan and its records name the same stages"


def test_everything_is_done(micro: Plan) -> None:
    finish(micro, *STAGE_NAMES)
    found = look(micro)
    assert found.counts == {"done": 7}
    assert found.finished
    assert found.gpu_hours_left == 0


def test_outputs_that_were_deleted_are_not_done(micro: Plan) -> None:
    finish(micro, "ingest", "codes")
    (stage_path(micro, "codes") / "codes.safetensors").unlink()
    assert stage(micro, "codes").state == "waiting"
    assert stage(micro, "ingest").state == "done"


def test_a_running_training(micro: Plan) -> None:
    progress = {"task": "autodecoder", "step": 431, "of": 1000, "rate": 2.0, "figures": {"loss": 0.25}}
    write_beat(stage_path(micro, "autodecoder"), "autodecoder", gpus=2, progress=progress)
    found = stage(micro, "autodecoder")
    assert found.state == "running"
    assert found.left_s == (1000 - 431) / 2
    assert found.gpu_hours == pytest.approx(2 * 100 / 3600, rel=0.05), "two GPUs for 100 s"
    assert found.gpu_hours_left == pytest.approx(2 * 284.5 / 3600)


def test_a_dead_process_does_not_run(micro: Plan) -> None:
    folder = stage_path(micro, "autodecoder")
    progress = {"task": "autodecoder", "step": 431, "of": 1000, "rate": 2.0}
    write_beat(folder, "autodecoder", pid=GONE, gpus=2, progress=progress)
    for step in (200, 400):
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / f"checkpoints/step-{step:08d}.pt").touch()
    found = stage(micro, "autodecoder")
    assert found.state == "failed"
    (job,) = found.jobs
    assert job.detail == (
        f"killed on {socket.gethostname()} after 100 s, at 431 of 1000 (autodecoder); it continues from step 400, "
        "31 steps are lost"
    )
    assert job.gpu_hours == pytest.approx(200 / 3600)
    assert job.left_s is None


def test_a_killed_chunk_starts_again(micro: Plan) -> None:
    write_beat(stage_path(micro, "fit"), "chunk-00001", pid=GONE, progress={"task": "fit chunk 1", "step": 1, "of": 2})
    found = stage(micro, "fit")
    assert [job.state for job in found.jobs] == ["waiting", "failed"]
    assert found.jobs[1].detail.endswith("at 1 of 2 (fit chunk 1); it starts again")


@pytest.mark.parametrize(("age", "state"), [(10, "running"), (300, "failed")])
def test_a_job_on_another_node(age: float, state: str, micro: Plan) -> None:
    """Without SLURM at hand, it is known by how recent its sign of life is."""
    write_beat(stage_path(micro, "unet"), "unet", host="node7", pid=GONE, time=time.time() - age)
    assert stage(micro, "unet").state == state


@pytest.mark.parametrize("queued", [True, False])
def test_slurm_knows_better_than_the_age_of_a_file(queued: bool, micro: Plan) -> None:
    folder = stage_path(micro, "unet")
    write_beat(folder, "unet", host="node7", pid=GONE, slurm="77", time=time.time() - (300 if queued else 1))
    queue = {("unet", folder.name, None): SlurmJob("77", "RUNNING")} if queued else {}
    found = stage(micro, "unet", replace(QUIET, queue=queue))
    assert found.state == ("running" if queued else "failed")
    assert found.jobs[0].slurm == "77"


def test_the_queue_has_only_jobs_of_this_user(micro: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's job is not in it, and is known by the age of its sign of life."""
    write_beat(stage_path(micro, "unet"), "unet", host="node7", pid=GONE, slurm="77")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert stage(micro, "unet", replace(QUIET, queue={})).state == "running"


def test_a_silent_process_on_this_host_still_runs(micro: Plan) -> None:
    write_beat(stage_path(micro, "unet"), "unet", time=time.time() - 300)
    found = stage(micro, "unet")
    assert found.state == "running"
    assert found.jobs[0].detail.startswith("no sign of life for 30")


def test_queued_in_slurm(micro: Plan) -> None:
    folder = stage_path(micro, "fit")
    queue = {
        ("fit", folder.name, 0): SlurmJob("41", "RUNNING"),
        ("fit", folder.name, 1): SlurmJob("42", "PENDING", "Resources"),
    }
    first, second = stage(micro, "fit", replace(QUIET, queue=queue)).jobs
    assert (first.state, first.detail, first.slurm) == ("running", "starts", "41")
    assert (second.state, second.detail, second.slurm) == ("queued", "SLURM 42: Resources", "42")


def test_failed_with_the_last_line_of_its_log(micro: Plan) -> None:
    folder = stage_path(micro, "codes")
    write_record(folder, "codes", {"seconds": 5.0, "finished": False})
    write_log(folder, "codes", "z1g codes: begins\rz1g codes: 1/4\nz1g codes: error: \x1b[31mno training object\n\n")
    found = stage(micro, "codes")
    assert found.state == "failed"
    assert found.jobs[0].detail == "z1g codes: error:  [31mno training object"
    assert stage(micro, "unet").blocked == ("codes",)
    assert stage(micro, "unet").state == "waiting"


def test_failed_before_its_first_record(micro: Plan) -> None:
    """For example, for want of a GPU."""
    write_log(stage_path(micro, "fit"), "chunk-00000", "z1g fit: error: 1 GPUs requested, but this machine shares 0\n")
    assert stage(micro, "fit").jobs[0].state == "failed"


def test_stopped_on_request(micro: Plan) -> None:
    folder = stage_path(micro, "unet")
    write_record(folder, "unet", {"seconds": 5.0, "finished": False, "stopped": True})
    write_log(folder, "unet", "z1g unet: stopped after step 3 on request; run the same command again to resume\n")
    assert stage(micro, "unet").state == "stopped"
    assert "after step 3" in stage(micro, "unet").jobs[0].detail


def test_pruned(micro: Plan) -> None:
    finish(micro, "ingest", "fit", "autodecoder", "codes")
    file = micro.results / "ablations/micro/plan.json"
    sealed(file, read_json(file) | {"pruned": {"rung": 0.1, "value": 21.3, "by": "validation_psnr"}})
    write_record(stage_path(micro, "unet"), "unet", {"seconds": 5.0, "finished": False})
    found = look(micro)
    assert [stage.state for stage in found.stages] == ["done"] * 4 + ["pruned"] * 3
    assert found.finished
    assert found.gpu_hours_left == 0


def test_a_stage_that_another_run_needs_is_not_pruned(micro: Plan) -> None:
    folder = micro.results / "ablations"
    record = read_json(folder / "micro/plan.json")
    other = {
        **record,
        "name": "other",
        "stages": {**record["stages"], "metrics": "0123456789"},
        "pruned": {"rung": 0.1},
    }
    sealed(folder / "other/plan.json", other)
    found = {stage.node.key: stage for stage in look(micro).stages}
    assert found["metrics", "0123456789"].state == "pruned"
    assert found["unet", record["stages"]["unet"]].state == "waiting"
    assert found["unet", record["stages"]["unet"]].node.runs == ("micro", "other")
    assert len(found) == 8
    with pytest.raises(UserError, match='did you mean "other"'):
        nodes_on_disk(micro.results, ["othr"])
    assert {node.runs for node in nodes_on_disk(micro.results, ["other"])} == {("other",)}


def test_a_study_names_its_runs(micro: Plan) -> None:
    record = read_json(micro.results / "ablations/micro/plan.json")
    for seed in (0, 1):
        about = record | {"name": f"a@seed={seed}", "study": "a", "arm": "a", "set": "decoder"}
        sealed(micro.results / f"ablations/a@seed={seed}/plan.json", about)
    for label in ("a", "decoder"):
        assert {run for node in nodes_on_disk(micro.results, [label]) for run in node.runs} == {
            "a@seed=0",
            "a@seed=1",
        }


@pytest.fixture
def held(micro: Plan) -> Iterator[Path]:
    """The lock of stage 1's job, held by another process."""
    lock = stage_path(micro, "autodecoder") / ".turns" / "autodecoder"
    lock.parent.mkdir(parents=True)
    code = (
        "import sys, threading\nfrom pathlib import Path\nfrom z1g.core.locks import waiting\n"
        "with waiting(Path(sys.argv[1])):\n    print('held', flush=True)\n    threading.Event().wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        try:
            yield lock
        finally:
            child.kill()


def test_a_job_that_waits_for_gpus_is_queued(micro: Plan, held: Path) -> None:
    found = stage(micro, "autodecoder")
    assert found.state == "queued"
    assert "waits for GPUs" in found.jobs[0].detail


def test_ranks_that_outlive_the_first_are_running(micro: Plan, held: Path) -> None:
    write_beat(stage_path(micro, "autodecoder"), "autodecoder", pid=GONE)
    assert stage(micro, "autodecoder").state == "running"


def test_a_lock_that_nobody_holds_says_nothing_and_stays_free(micro: Plan) -> None:
    lock = stage_path(micro, "unet") / ".turns" / "unet"
    lock.parent.mkdir(parents=True)
    lock.write_text(f"{socket.gethostname()} process {GONE} job -")
    assert stage(micro, "unet").state == "waiting"
    descriptor = os.open(lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_markers_of_a_live_snakemake_and_of_a_killed_one(micro: Plan, tmp_path: Path) -> None:
    output = stage_path(micro, "ingest") / "chunk-00000.jsonl"
    mark(tmp_path, output)
    (at,) = Evidence.gather(tmp_path, ask=False).marks.items()
    assert at[0] == str(output)
    for external, state, detail in ((None, "running", "starts"), ("99", "queued", "SLURM 99")):
        seen = replace(QUIET, marks={at[0]: Mark(1000.0, external)})
        live = stage(micro, "ingest", replace(seen, snakemake={1: 999.0}))
        assert (live.jobs[0].state, live.jobs[0].detail) == (state, detail)
        assert stage(micro, "ingest", replace(seen, snakemake={1: 1001.0})).state == "waiting", "an older one's marker"
        assert stage(micro, "ingest", seen).state == "waiting"
    write_output(output.parent, 0)
    seen = replace(QUIET, marks={at[0]: Mark(1000.0, None)})
    assert stage(micro, "ingest", seen).jobs[0].detail == "its Snakemake was killed: it may run again"


def test_a_search_is_seen_without_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`z1g search` starts Snakemake with --nolock; a dry run beside it is no run."""
    calls = {7: ["--nolock"], 8: ["-n"], 9: ["--nolock", "--mode", "subprocess"]}

    def processes(_: list[str]) -> Iterator[SimpleNamespace]:
        for pid, words in calls.items():
            command = ["python", "-m", "snakemake", *words]
            info = {"pid": pid, "cmdline": command, "cwd": str(tmp_path), "create_time": 1000.0 + pid}
            yield SimpleNamespace(info=info)

    monkeypatch.setattr("psutil.process_iter", processes)
    seen = Evidence.gather(tmp_path, ask=False)
    assert (seen.snakemake, seen.about_snakemake()) == ({7: 1007.0}, "Snakemake runs here (process 7).")
    del calls[7]
    assert Evidence.gather(tmp_path, ask=False).about_snakemake() == "Snakemake does not run."
    lock = tmp_path / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert Evidence.gather(tmp_path, ask=False).snakemake == {8: 1008.0}


@pytest.mark.slow
def test_long_names_in_markers(tmp_path: Path) -> None:
    """Snakemake cuts the encoded name into folders."""
    from snakemake.persistence.file import FilePersistence

    name = "results/" + "x" * 300 + "/chunk-00000.tar"
    incomplete = tmp_path / ".snakemake/incomplete"
    incomplete.mkdir(parents=True)
    self = type("Fake", (), {"_fetch_max_len": lambda self, subject: 255})()
    path = Path(FilePersistence._record_path(self, str(incomplete), name))
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    (incomplete / "not base64!").touch()
    assert list(Evidence.gather(tmp_path, ask=False).marks) == [str(tmp_path / name)]


def test_the_state_of_a_stage_is_that_of_its_most_telling_job(micro: Plan) -> None:
    folder = stage_path(micro, "fit")
    write_output(folder, 0)
    assert stage(micro, "fit").state == "waiting"
    write_log(folder, "chunk-00001", "z1g fit: error: full disk\n")
    assert stage(micro, "fit").state == "failed"
    write_beat(folder, "chunk-00001")
    found = stage(micro, "fit")
    assert found.state == "running"
    assert found.counts == {"done": 1, "running": 1}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "fit"}', '{"resources": 3}'])
def test_a_damaged_stage_record_is_noted(text: str, micro: Plan) -> None:
    (stage_path(micro, "fit") / "stage.json").write_text(text)
    (stage_path(micro, "unet") / "stage.json").unlink()
    assert "is missing, unreadable or damaged" in stage(micro, "fit").jobs[0].detail
    assert "is missing, unreadable or damaged" in stage(micro, "unet").jobs[0].detail


def test_a_digit_that_changed_in_a_stage_record_is_noted(micro: Plan) -> None:
    file = stage_path(micro, "fit") / "stage.json"
    write_json(file, read_json(file) | {"n_chunks": 1})
    assert "is missing, unreadable or damaged" in stage(micro, "fit").jobs[0].detail


@pytest.mark.parametrize("change", ["", "[]", "a character", "of another run"])
def test_a_damaged_plan_is_named(change: str, micro: Plan) -> None:
    file = micro.results / "ablations/micro/plan.json"
    if change == "a character":
        file.write_text(file.read_text().replace('"unet": "', '"unet": "0', 1))
    elif change == "of another run":
        file = micro.results / "ablations/other/plan.json"
        shutil.copytree(micro.results / "ablations/micro", file.parent)
    else:
        file.write_text(change)
    with pytest.raises(UserError, match=r"plan\.json cannot be read.*snakemake") as caught:
        nodes_on_disk(micro.results)
    assert str(file) in str(caught.value)
    # What is about to be planned again needs no record.
    assert {node.pruned for node in nodes_of_plan(micro)} == {False}


def test_a_folder_without_plans(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ablation was planned here"):
        nodes_on_disk(tmp_path)


# Hours


def test_gpu_hours_so_far_and_to_go_by_hand(micro: Plan) -> None:
    """Chunk 0 of the fits took 60 s on one GPU after an attempt of 30 s; chunk 1 is taken to need 60 s as well."""
    folder = stage_path(micro, "fit")
    write_output(folder, 0)
    failed = {"seconds": 30.0, "finished": False, "gpus": ["GPU"]}
    write_record(folder, "chunk-00000", failed, {"seconds": 60.0, "gpus": ["GPU"]})
    found = stage(micro, "fit")
    assert found.gpu_hours == pytest.approx(90 / 3600)
    assert found.gpu_hours_left == pytest.approx(60 / 3600)
    # Nothing is known about stage 1: its networks have no figures. The other stages ask for no GPU.
    everything = look(micro)
    assert everything.unknown == [f"autodecoder {stage_path(micro, 'autodecoder').name}"]
    assert everything.gpu_hours == pytest.approx(90 / 3600)
    assert everything.gpu_hours_left == pytest.approx(60 / 3600)
    assert everything.end is None, "nothing runs"


def test_the_hours_of_several_nodes(micro: Plan) -> None:
    write_record(stage_path(micro, "autodecoder"), "autodecoder", {"seconds": 360.0, "gpus": ["a", "b"], "nodes": 3})
    assert stage(micro, "autodecoder").gpu_hours == pytest.approx(0.6)


def test_the_estimated_end(micro: Plan) -> None:
    """Metrics run, alone, and nothing else is left."""
    finish(micro, *STAGE_NAMES[:-1])
    progress = {"task": "metrics", "step": 10, "of": 40, "rate": 0.5}
    write_beat(stage_path(micro, "metrics"), "metrics", progress=progress)
    found = look(micro)
    assert found.end is not None
    assert found.end - found.now == pytest.approx(60)


def test_the_end_is_the_longest_chain_or_all_work() -> None:
    a, b, c = ("fit", "1"), ("unet", "1"), ("unet", "2")
    left = {a: [10.0, 20.0], b: [100.0], c: [40.0]}
    upstream: dict[tuple[str, str], list[tuple[str, str]]] = {a: [], b: [a], c: [a]}
    assert seconds_to_the_end(left, upstream, at_once=1) == 170, "one after the other"
    assert seconds_to_the_end(left, upstream, at_once=2) == 120, "the chain a, b: 20 + 100"
    assert seconds_to_the_end({a: [], b: [5.0]}, upstream, at_once=8) == 5
