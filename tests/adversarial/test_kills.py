"""Kills: a stage that a signal hits anywhere leaves nothing half-written, and the same command again gives the same.

The gate kills each stage once or twice, in moments chosen here. With Z1G_ADVERSARIAL=long, each stage is killed by each
signal in four random moments.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support import forked_snakemake
from support.finished_tree import finished
from support.killed import Moment, run
from support.killed_stages import CODES, LONG, SIGNALS, command, killed_and_run_again, undone
from support.paths import ROOT
from support.photographs import disc, saved
from support.same_results import differences

from z1g.core.stages import STAGE_NAMES

pytestmark = pytest.mark.slow

MOMENTS, SEED = 4, 3
SHORT = [
    ("ingest", signal.SIGKILL, Moment("open", 3)),
    ("ingest", signal.SIGTERM, Moment("change", 4)),
    ("fit", signal.SIGINT, Moment("change", 4)),
    ("autodecoder", signal.SIGTERM, Moment("open", 8)),
    ("autodecoder", signal.SIGKILL, Moment("change", 20)),
    ("codes", signal.SIGKILL, Moment("change", 4)),
    ("unet", signal.SIGKILL, Moment("open", 20)),
    ("unet", signal.SIGINT, Moment("change", 30)),
    ("infer", signal.SIGTERM, Moment("change", 12)),
    ("metrics", signal.SIGINT, Moment("open", 10)),
]
"""Stage, signal and moment of the gate."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize(("stage", "sent", "at"), SHORT, ids=[f"{stage}-{sent.name}" for stage, sent, _ in SHORT])
def test_a_kill_loses_nothing(tree: Path, tmp_path: Path, stage: str, sent: signal.Signals, at: Moment) -> None:
    assert killed_and_run_again(tree, stage, sent, at, tmp_path).reached


def test_each_stage_and_each_signal_is_in_the_gate() -> None:
    assert {stage for stage, _, _ in SHORT} == set(STAGE_NAMES)
    assert {sent for _, sent, _ in SHORT} == set(SIGNALS)


@pytest.mark.skipif(not LONG, reason="Z1G_ADVERSARIAL=long")
@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_kills_in_random_moments(tree: Path, tmp_path: Path, stage: str) -> None:
    undone(tree, stage, tmp_path / "counted")
    counted = run(command(tmp_path / "counted", stage), tmp_path / "counted")
    assert counted.code == 0, counted.output
    moments = [Moment(kind, i + 1) for kind, n in sorted(counted.events.items()) for i in range(n)]
    draw = random.Random(f"{SEED} {stage}")
    for sent in SIGNALS:
        for at in draw.sample(moments, MOMENTS):
            killed_and_run_again(tree, stage, sent, at, tmp_path / f"{sent.name}-{at.kind}-{at.number}")


@pytest.mark.parametrize("sent", SIGNALS[1:], ids=lambda sent: sent.name)
def test_a_signal_while_modules_are_imported(tree: Path, tmp_path: Path, sent: signal.Signals) -> None:
    """In a process as a user starts it; the moment is the import of torch."""
    undone(tree, "fit", tmp_path)
    script = (
        "import os, signal, sys\n"
        "def watch(event, values):\n"
        f"    if event == 'import' and values[0] == 'torch': os.kill(os.getpid(), {int(sent)})\n"
        "sys.addaudithook(watch)\n"
        "import runpy; runpy.run_module('z1g', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command(tmp_path, "fit")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, preexec_fn=_restored,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (CODES[sent].copy().pop(), "")
    assert done.stderr.splitlines()[-1].startswith("z1g fit: ")
    assert "Traceback" not in done.stderr


def _restored() -> None:
    """A shell that starts the tests in the background makes them ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# Photographs


def test_a_kill_of_infer_leaves_files_of_one_run(tree: Path, tmp_path: Path) -> None:
    """SIGKILL in each moment in which a second run publishes its files in place of those of the first."""
    photograph, out = saved(tmp_path, disc()), tmp_path / "out"
    words = [
        "infer",
        str(photograph),
        "--run",
        str(tree / "results/ablations/micro"),
        "--out",
        str(out),
        "--size",
        "16",
    ]
    assert run([*words, "--seed", "1"], tmp_path).code == 0
    first = contents(out)
    shutil.copytree(out, tmp_path / "first")
    counted = run([*words, "--seed", "2"], tmp_path)
    second = contents(out)
    assert first["a.ply"] != second["a.ply"]
    # The last changes: four files and the record are removed, four are moved, the record is made, and the lock goes.
    moments = range(counted.events["change"] - 12, counted.events["change"] + 1)
    for number in moments if LONG else list(moments)[::3]:
        shutil.rmtree(out)
        shutil.copytree(tmp_path / "first", out)
        assert run([*words, "--seed", "2"], tmp_path, signal.SIGKILL, Moment("change", number)).code == -9
        left = contents(out)
        of_first = {name for name in left if left[name] == first.get(name) != second.get(name)}
        of_second = {name for name in left if left[name] == second.get(name) != first.get(name)}
        assert not (of_first and of_second), (number, of_first, of_second)
        if "a.json" in left:
            record = json.loads(left["a.json"])
            digests = {name: hashlib.sha256(left[name]).hexdigest() for name in record["files"]}
            assert digests == {name: known["sha256"] for name, known in record["files"].items()}, number
        assert run([*words, "--seed", "2"], tmp_path).code == 0
        assert sorted(path.name for path in out.iterdir()) == sorted(second), number


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


# Snakemake itself


@pytest.fixture
def workspace(tree: Path, tmp_path: Path) -> Path:
    """A checkout with the finished tree's scale and renders; only its fits are missing."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    for name in ("workflow", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("objects"))
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "ablations").mkdir()
    (folder / "ablations/micro.yaml").write_text("description: made up\n")
    shutil.copytree(tree / "results/ingest", folder / "results/ingest")
    config = yaml.safe_load((tree / "results/ablations/micro/config.json").read_text())
    (folder / "scale.yaml").write_text(yaml.safe_dump(config))
    return folder


def snakemake(folder: Path, stage: Path, *options: str) -> list[str]:
    goals = [f"results/fit/{stage.name}/chunk-0000{i}.safetensors" for i in (0, 1)]
    words = ["-m", "snakemake", "--profile", "workflow/profiles/local", "--cores", "1", *options]
    return [sys.executable, *words, "--config", "scale=scale.yaml", "--", *goals]


MOMENTS_OF_SNAKEMAKE = {
    "its first job has begun": "results/fit/*/.turns/*",
    "it has its lock": ".snakemake/locks/*",
    "its first job has written": "results/fit/*/chunk-*.safetensors",
}
"""Moments and the files by which they are known; the gate has the first."""


@pytest.fixture
def started(request: pytest.FixtureRequest, workspace: Path, tree: Path) -> Iterator["subprocess.Popen[str]"]:
    """Snakemake in one of its moments."""
    (stage,) = (tree / "results/fit").iterdir()
    with (workspace / "out.txt").open("w") as out:
        process = subprocess.Popen(
            snakemake(workspace, stage), cwd=workspace, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=out,
            stderr=out, text=True, start_new_session=True, preexec_fn=_restored,
        )  # fmt: skip
    while process.poll() is None and not list(workspace.glob(MOMENTS_OF_SNAKEMAKE[request.param])):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)  # rather than take the core that Snakemake needs
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("started", list(MOMENTS_OF_SNAKEMAKE)[: None if LONG else 1], indirect=True)
@pytest.mark.parametrize("sent", SIGNALS if LONG else SIGNALS[2:], ids=lambda sent: sent.name)
def test_snakemake_is_killed(
    workspace: Path, tree: Path, started: "subprocess.Popen[str]", sent: signal.Signals
) -> None:
    """Ctrl-C reaches the jobs as well, SIGTERM and SIGKILL are of Snakemake alone."""
    (stage,) = (tree / "results/fit").iterdir()
    os.killpg(started.pid, sent) if sent == signal.SIGINT else started.send_signal(sent)
    started.wait()
    said = (workspace / "out.txt").read_text()
    # Before its first job, Snakemake itself answers Ctrl-C with a traceback.
    began = list(workspace.glob("results/fit/*/.turns/*"))
    own = sent == signal.SIGINT and not began and not re.search(r'File ".*/z1g/', said)
    assert own or "Traceback" not in said, said

    def again(*options: str) -> subprocess.CompletedProcess[str]:
        words = snakemake(workspace, stage, *options)[3:]
        return forked_snakemake.snakemake(words, workspace, {**os.environ, "PYTHONPATH": str(ROOT)})

    done = again()
    if sent == signal.SIGKILL:
        # Nobody was left to take the lock away; the message says how.
        assert done.returncode != 0
        assert "--unlock" in done.stderr
        assert again("--unlock").returncode == 0
        done = again()
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    ours = workspace / "results/fit" / stage.name
    assert differences(ours, stage) == []
    # What a killed plan was writing is removed by a job of that stage, once it is old enough.
    records = (".stage.json.", ".manifest.jsonl.")
    assert [path for path in workspace.rglob("*.tmp") if not path.name.startswith(records)] == []
