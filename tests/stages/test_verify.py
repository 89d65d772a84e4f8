"""Job records, the model card and `z1g verify`, on results of the real commands that are then modified."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from snakemake.cli import parse_config
from support.builders import plan, stage_path
from support.finished import OUTPUTS, finish
from support.paths import ROOT

from z1g.cli.main import main
from z1g.core.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from z1g.core.recorded import sha256, stage_owner
from z1g.core.sealed import checksum, write_sealed
from z1g.jobs import records
from z1g.jobs.records import digests, recorded
from z1g.plan.plan import Plan
from z1g.report.card import model_card
from z1g.report.collect import Results
from z1g.report.reproduce import reproduce
from z1g.report.summary import summary_rows
from z1g.report.tables import csv_text
from z1g.stages import ablation, verify_records


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    finish(root, metrics={"metrics": {"fd_efflite0": None, "chamfer": None}})
    return root / "results"


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "results", symlinks=True)
    return tmp_path / "results"


def verify(results: Path, capsys: pytest.CaptureFixture[str], sample: int = 0) -> tuple[int, str]:
    code = main(["verify", str(results / "ablations/micro"), "--sample", str(sample)])
    return code, capsys.readouterr().out


def only(results: Path, pattern: str) -> Path:
    return sorted(results.glob(pattern))[0]


def test_an_untouched_ablation_holds(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = verify(results, capsys, sample=1)
    assert code == 0, text
    assert "micro holds" in text
    assert text.count("all numbers agree") == 1
    assert "BROKEN" not in text
    assert "UNKNOWN" not in text


def test_what_is_not_checked_is_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TensorBoard's events and whatever else no job reads; damage there changes no verdict."""
    events = sorted(results.glob("*/*/tb/events*"))
    assert len(events) == 3, "of the ablation and of both trainings"
    places = [file.parents[1] for file in events]
    remark = "-        not checked: {}: no result depends on them\n"
    said = [f"tb in {place.relative_to(results)}" for place in places]
    assert remark.format("; ".join(said)) in verify(results, capsys)[1]
    for file in events:
        flip(file)
    log = only(results, "codes/*/stage.json").parent / "logs/codes.log"
    log.parent.mkdir()
    log.write_text("done")
    (places[1] / "notes.txt").write_text("mine")
    code, text = verify(results, capsys)
    assert code == 0
    assert "micro holds: 15 of 15 checks are good" in text
    said[1:2] = [f"notes.txt, {said[1]}", f"logs in {log.parents[1].relative_to(results)}"]
    assert remark.format("; ".join(said)) in text


def test_results_without_records_are_not_said_to_be_without_effect(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(only(results, "unet/*/jobs"))
    ablation.run(results, "micro")
    text = verify(results, capsys)[1]
    assert "UNKNOWN  unet: there are no job records" in text
    (remark,) = [line for line in text.splitlines() if line.startswith("-")]
    assert "unet" not in remark


def flip(path: Path) -> None:
    """Change one byte in the middle, not the size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edited_csv(results: Path) -> Path:
    path = results / "ablations/micro/metrics.csv"
    path.write_text(path.read_text().replace(",sampled,test,psnr,", ",sampled,test,psnr,9"))
    return path


def edited_config(results: Path) -> Path:
    path = results / "ablations/micro/config.json"
    config = read_json(path)
    config["unet"]["train"]["optimizer"]["lr"] *= 2
    write_json(path, config)
    return path


def edited(pattern: str) -> Callable[[Path], Path]:
    def change(results: Path) -> Path:
        path = only(results, pattern)
        flip(path)
        return path

    return change


def removed(results: Path) -> Path:
    path = only(results, "infer/*/chunk-00000/*.ply")
    path.unlink()
    return path


@pytest.mark.parametrize(
    "tamper",
    [
        edited("autodecoder/*/model/heads.safetensors"),
        edited("unet/*/pipeline/unet/*.safetensors"),
        edited("unet/*/conditions/shard-00000.safetensors"),
        edited("unet/*/conditions/key.json"),
        edited("codes/*/codes.safetensors"),
        edited("fit/*/chunk-00001.safetensors"),
        edited("ingest/*/chunk-00000.tar"),
        edited("ingest/*/manifest.jsonl"),
        edited("metrics/*/images/*.sampled.png"),
        edited("metrics/*/metrics.jsonl"),
        edited("ablations/micro/plan.json"),
        edited_config,
        edited_csv,
        removed,
    ],
    ids=[
        "stage1", "unet", "conditions", "key", "codes", "fit", "data", "manifest", "image", "rows", "plan", "config",
        "table", "removed",
    ],
)  # fmt: skip
def test_a_tampered_file_is_named(
    results: Path, tamper: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tamper(results)
    code, text = verify(results, capsys, sample=1)
    assert code == 1
    assert "micro does not hold" in text
    assert str(path) in text
    assert "UNKNOWN  numbers: not computed again" in text


def test_a_plan_that_lacks_a_stage_is_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results / "ablations/micro/plan.json"
    content = read_json(path)
    content["stages"]["autodecoded"] = content["stages"].pop("autodecoder")
    forge(path, "ablations/micro", content)
    code, text = verify(results, capsys)
    assert code == 1
    assert "autodecoder None should be" in text


def forge(file: Path, owner: str, content: dict[str, Any]) -> None:
    """Write a record with a valid checksum."""
    write_sealed(file, {key: value for key, value in content.items() if key != "checksum"}, owner)


def test_forged_numbers_with_forged_digests_are_noticed(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, record = only(results, "metrics/*/metrics.jsonl"), results / "ablations/micro/reproduce.json"
    measured_rows = read_jsonl(file)
    changed = [{**row, "psnr": row["psnr"] + 1} if row["source"] == "sampled" else row for row in measured_rows]
    write_jsonl(file, changed)
    facts = read_json(record)
    digest = digests([file], file.parent)["metrics.jsonl"]
    facts["stages"]["metrics"]["files"][f"metrics/{file.parent.name}/metrics.jsonl"] = digest
    job = file.parent / "jobs/metrics.json"
    outputs = {**read_json(job)["outputs"], "metrics.jsonl": digest}
    forge(job, f"{file.parent.name}/metrics", {**read_json(job), "outputs": outputs})
    forge(record, "ablations/micro", facts)
    tree = Results(results)
    (about,), measured = tree.ablations(["micro"]), tree.measurements(file.parent.name)
    rows = summary_rows("micro", measured)
    write_text(results / "ablations/micro/metrics.csv", csv_text(rows))
    write_text(results / "ablations/micro/MODEL_CARD.md", model_card(about, facts, measured, rows))
    assert verify(results, capsys)[0] == 0  # digests alone do not reveal it
    code, text = verify(results, capsys, sample=1)
    assert code == 1
    assert "2 numbers differ, e.g. psnr of sampled, view" in text


def test_ids_that_do_not_follow_from_the_configuration_are_reported(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both the configuration and its checksum are forged."""
    planned, path = results / "ablations/micro/plan.json", edited_config(results)
    forge(planned, "ablations/micro", {**read_json(planned), "config_checksum": checksum(read_json(path))})
    code, text = verify(results, capsys)
    assert code == 1
    assert "configuration and objects do not give these ids: unet" in text
    assert "autodecoder" not in text.split("do not give these ids:")[1].splitlines()[0]


def test_a_file_of_an_option_that_is_gone_is_no_damage(tmp_path: Path) -> None:
    """Stage 1 and what follows were identified by the content of a file, without which their ids cannot be computed."""
    trunk = tmp_path / "vgg.pth"
    trunk.write_bytes(b"weights")
    loss = {"kind": "lpips", "trunk": str(trunk), "resolution": 64, "weight": 0.1}
    changes = {"metrics": {"metrics": {"fd_efflite0": None, "chamfer": None}}}
    planned = plan(tmp_path / "with", n_objects=3, autodecoder={"losses": {"perceptual": loss}}, **changes)
    stages = planned.ablations["micro"].stages
    facts = {"stages": {name: {"id": stage.id, "version": stage.version} for name, stage in stages.items()}}

    def checked() -> dict[str, verify_records.Finding]:
        folder = planned.results / "ablations/micro"
        return {found.what: found for found in verify_records.identities(planned.results, folder, facts)}

    assert {found.holds for found in checked().values()} == {True}
    trunk.unlink()
    found = checked()
    assert found["identities"].holds is None
    assert found["identities"].detail == (
        "cannot be computed for autodecoder, codes, unet, infer, metrics: "
        f"autodecoder.losses.perceptual.trunk names {trunk}, which cannot be read"
    )
    assert found["stage.json"].holds is None
    assert found["stage.json"].detail == "2 of 7 files give the ids of their folders"

    # Damage of what does not depend on the file, and of what can be read all the same, is found as before.
    fit = stage_path(planned, "fit") / "stage.json"
    record = read_json(fit)
    forge(fit, stage_owner(record["id"]), {**record, "config": {**record["config"], "fit": {"steps": 9}}})
    assert "its options give" in checked()["stage.json"].detail
    assert checked()["stage.json"].holds is False
    forge(fit, stage_owner(record["id"]), record)
    unet = stage_path(planned, "unet") / "stage.json"
    record = read_json(unet)
    forge(unet, stage_owner(record["id"]), {**record, "upstream": {**record["upstream"], "codes": "0123456789"}})
    assert "upstream" in checked()["stage.json"].detail
    facts["stages"]["fit"]["id"] = "0123456789"
    assert checked()["identities"].holds is False

    # A file of other content is no missing one.
    trunk.write_bytes(b"other")
    facts["stages"]["fit"]["id"] = stages["fit"].id
    found = checked()
    assert found["identities"].holds is False
    assert "autodecoder" in found["identities"].detail


def test_checks_that_cannot_be_made_are_not_a_success(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(only(results, "codes/*/jobs"))
    ablation.run(results, "micro")
    facts = read_json(results / "ablations/micro/reproduce.json")
    facts["stages"]["fit"]["version"] = 999
    forge(results / "ablations/micro/reproduce.json", "ablations/micro", facts)
    code, text = verify(results, capsys)
    assert code == 1
    assert "UNKNOWN  codes: there are no job records" in text
    assert "UNKNOWN  identities: made by another version of z1g: fit has version 999" in text
    assert "cannot be checked in full" in text


def test_a_good_result_holds_from_every_folder_and_where_it_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Meshes are named relative to the folder of the run, and a metric reads them again."""
    project, elsewhere, moved = tmp_path / "project", tmp_path / "elsewhere", tmp_path / "moved"
    project.mkdir()
    elsewhere.mkdir()
    with contextlib.chdir(project):
        planned = finish(Path(), metrics={"metrics": {"fd_efflite0": None, "chamfer": {"kind": "chamfer"}}})
        rows = read_jsonl(stage_path(planned, "metrics") / "objects.jsonl")
        relative = planned.ablations["micro"].manifest.objects[0].source
    assert relative == "meshes/object0.obj"
    assert any(row["chamfer"] is not None for row in rows), "the test needs numbers that depend on meshes"
    for folder in (project, elsewhere):
        monkeypatch.chdir(folder)
        code, text = verify(project / "results", capsys, sample=1)
        assert code == 0, text
    project.rename(moved)
    code, text = verify(moved / "results", capsys, sample=2)
    assert code == 0, text
    assert Path.cwd() == elsewhere
    # Without the meshes, their metrics are unknown, which is not the same as wrong.
    shutil.rmtree(moved / "meshes")
    code, text = verify(moved / "results", capsys, sample=2)
    assert code == 1
    assert "UNKNOWN  numbers of object" in text
    assert "chamfer cannot be computed here" in text
    assert "BROKEN" not in text


def test_a_later_plan_with_other_runtime_options_breaks_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {"metrics": {"metrics": {"fd_efflite0": None, "chamfer": None}}}
    planned = finish(tmp_path, **changes)
    before = (stage_path(planned, "fit") / "stage.json").read_bytes()
    again = plan(tmp_path, n_objects=3, **changes, resources={"fit": {"memory_mb": 4321}})
    assert stage_path(again, "fit") == stage_path(planned, "fit")
    assert (stage_path(planned, "fit") / "stage.json").read_bytes() != before
    code, text = verify(tmp_path / "results", capsys)
    assert code == 0, text


@pytest.mark.parametrize("name", ["autodecoder/*/stage.json", "fit/*/jobs/chunk-00001.json"])
def test_records_are_checked_too(name: str, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Damaged, and consistently forged."""
    file = only(results, name)
    intact = file.read_bytes()
    flip(file)
    code, text = verify(results, capsys)
    assert code == 1
    assert str(file) in text
    file.write_bytes(intact)
    record, folder = read_json(file), file.parent if file.name == "stage.json" else file.parents[1]
    if file.name == "stage.json":
        record["config"]["autodecoder"]["train"]["optimizer"]["lr"] *= 2
        forge(file, stage_owner(folder.name), record)
    else:
        record["outputs"].pop("chunk-00001.png")
        forge(file, f"{folder.name}/chunk-00001", record)
    code, text = verify(results, capsys)
    assert code == 1
    assert "its options give" in text or "disagree about" in text


def test_a_file_that_nobody_recorded_is_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = only(results, "unet/*/pipeline/unet") / "diffusion_pytorch_model.fp16.safetensors"
    extra.write_bytes(b"from somewhere")
    code, text = verify(results, capsys)
    assert code == 1
    assert f"{extra} is not recorded" in text


def test_paths_outside_of_the_results_are_not_followed(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = results.parent / "outside"
    outside.write_text("x")
    record = results / "ablations/micro/reproduce.json"
    facts = read_json(record)
    facts["stages"]["codes"]["files"] = {"../outside": {"sha256": sha256(outside), "bytes": 1}}
    forge(record, "ablations/micro", facts)
    code, text = verify(results, capsys)
    assert code == 1
    assert f"{outside} does not exist" in text


def test_users_mistakes_are_one_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(results)]) == 2
    assert "is not an ablation's folder; give results/ablations/<name>" in capsys.readouterr().err
    (results / "ablations/micro/reproduce.json").unlink()
    assert main(["verify", str(results / "ablations/micro")]) == 2
    assert "reproduce.json does not exist" in capsys.readouterr().err
    (results / "ablations/micro/reproduce.json").write_text("{")
    assert verify(results, capsys)[0] == 1


def test_the_record_is_sufficient_to_reproduce(finished: Path) -> None:
    facts = read_json(finished / "ablations/micro/reproduce.json")
    assert "--config scale=micro ablations=micro objects=" in facts["command"]
    assert facts["seeds"]["autodecoder.train.seed"] == 42
    assert facts["data"]["objects"] == 3
    assert facts["data"]["manifest"] == sha256(only(finished, "ingest/*/manifest.jsonl"))
    assert facts["lock"] == [sha256(ROOT / "requirements.lock")]
    assert facts["versions"][0]["torch"]
    assert facts["hardware"][0]["cores"] >= 1
    assert set(facts["stages"]) == {"ingest", *OUTPUTS}
    assert all(stage["jobs"] and stage["files"] for stage in facts["stages"].values())
    assert facts["costs"]["seconds_per_object"] > 0
    assert facts["costs"]["gpu_hours"] == 0
    assert facts["costs"]["parameters_stage2"] > 1000
    name, record = next(iter(facts["stages"]["unet"]["files"].items()))
    assert sha256(finished / name) == record["sha256"]


def test_the_recorded_command_plans_the_same_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with meshes of the command line, which no file of the configuration names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations/one.yaml").write_text("description: made up\n")
    for i, folder in enumerate(["a b", "c,d"] * 4):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{i}.obj").write_text(f"v {i} 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n")
    options = {"scale": "scratch", "ablations": "one", "objects": ["a b", "c,d"], "missing": "warn"}
    planned = Plan.from_options(options, tmp_path / "results")
    planned.write()
    tree = Results(tmp_path / "results")
    words = shlex.split(reproduce(tree, tree.ablations(["one"])[0], 0)["command"])
    given = parse_config(words[words.index("--config") + 1 :])
    again = Plan.from_options({**given, "missing": "warn"}, tmp_path / "results")
    assert again.ablations["one"].stages["metrics"].id == planned.ablations["one"].stages["metrics"].id
    assert Plan.from_options({**options, "objects": "a b"}, tmp_path).stages.keys() != again.stages.keys()


def test_model_card_with_and_without_records(finished: Path, tmp_path: Path) -> None:
    text = (finished / "ablations/micro/MODEL_CARD.md").read_text()
    facts = read_json(finished / "ablations/micro/reproduce.json")
    assert "| Test objects | sampled (the method) | 1 |" in text
    assert facts["data"]["splits"] == {"train": 2, "test": 1}
    assert f"3 objects: 2 train, 1 test; SHA-256 of the manifest {facts['data']['manifest'][:16]}…." in text
    assert "- 3 with no license recorded" in text
    assert "Measured on 1 test object: too few to say anything about other objects (at least 5)." in text
    assert "Trained with one seed: how much results change from one training to the next" in text
    assert facts["command"] in text
    assert f"{facts['costs']['parameters_stage1']:,.0f} parameters" in text
    copy = tmp_path / "results"
    shutil.copytree(finished, copy, symlinks=True)
    for jobs in copy.glob("*/*/jobs"):
        shutil.rmtree(jobs)
    ablation.run(copy, "micro")
    text = (copy / "ablations/micro/MODEL_CARD.md").read_text()
    assert "commit not recorded" in text
    assert "hardware not recorded" in text
    assert "- GPU time: unknown h" in text


def test_model_card_counts_what_was_set_aside(results: Path) -> None:
    (chunk,) = results.glob("fit/*/chunk-00000.jsonl")
    shutil.rmtree(chunk.parent / "jobs")
    rows = read_jsonl(chunk)
    write_jsonl(chunk, [rows[0] | {"status": "quarantined", "reason": "damaged"}, *rows[1:]])
    tree = Results(results)
    (run,) = tree.ablations(["micro"])
    facts = reproduce(tree, run, 1)
    assert facts["data"]["splits"]["set aside"] == 1
    assert sum(facts["data"]["splits"].values()) == 3
    assert "1 set aside; SHA-256" in model_card(run, facts, None, [])
    del facts["data"]["splits"]  # as earlier versions recorded it
    assert "3 objects, some of them held out for testing; SHA-256" in model_card(run, facts, None, [])


# Records


class Interrupted(Exception):
    """Simulates a preemption."""


def test_attempts_add_up_until_the_job_is_done(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    with pytest.raises(Interrupted), recorded(tmp_path, "job", [out]):
        raise Interrupted
    record = read_json(tmp_path / "jobs/job.json")
    assert [attempt["finished"] for attempt in record["attempts"]] == [False]
    assert record["outputs"] == {}
    with recorded(tmp_path, "job", [out]):
        out.write_text("made")
    record = read_json(tmp_path / "jobs/job.json")
    assert [attempt["finished"] for attempt in record["attempts"]] == [False, True]
    assert record["outputs"] == {"out.txt": {"sha256": sha256(out), "bytes": 4}}
    with recorded(tmp_path, "job", [out]):
        pass
    assert len(read_json(tmp_path / "jobs/job.json")["attempts"]) == 1  # a new run replaces the record


def test_a_terminated_job_leaves_its_attempt(tmp_path: Path) -> None:
    """SIGTERM raises an exception, as in the commands."""
    code = (
        "import signal, sys, time\nfrom pathlib import Path\nfrom z1g.jobs.records import recorded\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "with recorded(Path(sys.argv[1]), 'job', []):\n    print('ready', flush=True)\n    signal.pause()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait(60) == 75
    (attempt,) = read_json(tmp_path / "jobs/job.json")["attempts"]
    assert attempt["finished"] is False
    assert attempt["seconds"] > 0


class Meters:
    """A fake of NVML's Python package with two GPUs."""

    def __init__(self, broken: bool = False) -> None:
        self.millijoules = {"GPU-a": 1_000, "GPU-b": 50_000}
        self.broken = broken

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return ["GPU-a", "GPU-b"][index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetName(self, handle: str) -> bytes:
        return f"Accelerator {handle}".encode()

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if self.broken:
            raise RuntimeError("not supported")
        self.millijoules[handle] += 7_000
        return self.millijoules[handle]


@pytest.mark.parametrize(
    ("visible", "names", "joules"),
    [
        ("1", ["Accelerator GPU-b"], 7.0),
        ("GPU-a,GPU-b", ["Accelerator GPU-a", "Accelerator GPU-b"], 14.0),
        ("", [], 0.0),
    ],
)
def test_energy_is_that_of_the_visible_gpus(
    visible: str, names: list[str], joules: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Meters())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meter = records.Energy()
    assert meter.names == names
    assert meter.joules() == joules


def test_a_gpu_without_a_meter_is_unknown_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Meters(broken=True))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert records.Energy().joules() is None


def test_gpus_unknown_to_the_driver_are_counted_but_not_metered(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example MIG instances or GPUs of other vendors."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    for visible, names, joules in (("MIG-1,MIG-2", ["GPU", "GPU"], None), ("", [], 0.0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        meter = records.Energy()
        assert (meter.names, meter.joules()) == (names, joules)


def test_costs_sum_attempts_and_are_unknown_without_all_records(tmp_path: Path) -> None:
    from z1g.report.cost import cost, stage_cost

    def record(seconds: float, gpus: list[str], joules: float | None, nodes: int = 1) -> dict[str, Any]:
        return {"seconds": seconds, "gpus": gpus, "gpu_joules": joules, "nodes": nodes}

    two = [{"attempts": [record(100, ["x"], 5e3), record(200, ["x", "x"], 1e4)]}, {"attempts": [record(50, [], 0.0)]}]
    total = stage_cost(two)
    assert total is not None
    assert (total.jobs, total.seconds, total.gpu_seconds, total.gpu_joules) == (2, 350, 500, 15e3)
    assert stage_cost([{"attempts": [record(10, ["x"], None, nodes=4)]}]).gpu_joules is None  # type: ignore[union-attr]
    assert stage_cost([]) is None
    write_json(tmp_path / "infer/i/jobs/chunk-00000.json", {**two[0], "job": "chunk-00000", "outputs": {}})
    complete = cost(Results(tmp_path), {"infer": "i"}, 3)
    assert complete.values["seconds_per_object"] == 100
    assert complete.values["gpu_hours"] == pytest.approx(500 / 3600)
    assert complete.values["gpu_kwh"] == pytest.approx(15e3 / 3.6e6)
    incomplete = cost(Results(tmp_path), {"infer": "i", "unet": "u"}, 3)
    assert incomplete.values["gpu_hours"] is None
    assert incomplete.unrecorded == ["unet"]


# Readers of results


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "micro", "--results", "{}"],
        ["compare", "{}/metrics/ID/metrics.jsonl"],
        ["tables", "{}", "--ablations", "micro", "--out", "{}/t"],
        ["report", "{}", "--ablations", "micro", "--out", "{}/r.html"],
        ["ablation", "{}", "micro"],
    ],
    ids=["compare", "compare a file", "tables", "report", "ablation"],
)
def test_a_changed_digit_of_the_metrics_is_printed_by_nobody(
    words: list[str], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = only(results, "metrics/*/metrics.jsonl")
    rows = file.read_text()
    (digits,) = {match.group(1) for match in [re.search(r'"psnr": (\d+)\.', rows)] if match}
    file.write_text(rows.replace(f'"psnr": {digits}.', f'"psnr": 5{digits[1:]}.', 1))
    assert file.read_text() != rows
    code = main([word.format(results).replace("ID", file.parent.name) for word in words])
    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    assert f"{file} is not as job metrics wrote it" in said.err
    assert f"Delete {file} and make it again" in said.err


def test_splats_of_a_tree_are_not_exported_damaged(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = only(results, "infer/*/chunk-00000/*.ply")
    assert main(["export", str(file), "--out", str(tmp_path / "a.splat")]) == 0
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    for words in (["export", str(file), "--out", str(tmp_path / "b.splat")], ["mesh", str(file)]):
        assert main(words) == 2
        assert f"Delete {file.parent} and make it again" in capsys.readouterr().err
    assert not (tmp_path / "b.splat").exists()
