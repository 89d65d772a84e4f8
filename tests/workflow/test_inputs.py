"""Compares inputs of rules with the files that their commands open, on finished micro results."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors
from support.builders import experiment, fill, plan
from support.forked_snakemake import snakemake
from support.paths import ROOT

from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.stages import ablation, autodecoder, codes, fit, infer, metrics, report, tables, unet

pytestmark = pytest.mark.slow
PLANNED = {"stage.json", "manifest.jsonl", "plan.json", "config.json"}
"""Files that Snakemake writes at startup, before any rule runs."""
OPENED: list[Path] | None = None
"""Files opened for reading while recording, else None. A global, since audit hooks cannot be removed."""


def _record(path: Any) -> None:
    if OPENED is not None and isinstance(path, str | os.PathLike):
        OPENED.append(Path(os.path.abspath(path)))


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and arguments[2] & os.O_ACCMODE == os.O_RDONLY:
        _record(arguments[0])


@contextlib.contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Record files that the block opens for reading, including safetensors, which are opened outside of Python."""
    global OPENED
    original = safetensors.safe_open

    def safe_open(file: Any, *arguments: Any, **options: Any) -> Any:
        _record(file)
        return original(file, *arguments, **options)

    with monkeypatch.context() as patch:
        for module in list(sys.modules.values()):
            if getattr(module, "safe_open", None) is original:
                patch.setattr(module, "safe_open", safe_open)
        OPENED = []
        try:
            yield OPENED
        finally:
            OPENED = None


@dataclass(frozen=True)
class Job:
    """One job of the DAG: its rule, outputs and inputs, relative to the workspace."""

    rule: str
    outputs: tuple[Path, ...]
    inputs: tuple[Path, ...]


def jobs(workspace: Path) -> list[Job]:
    """All jobs of the DAG, from a dry run with `--forceall`."""
    done = snakemake(["--profile", "local", "-n", "--forceall", "--config", "scale=micro.yaml"], workspace)
    assert done.returncode == 0, done.stdout + done.stderr
    dag_jobs = []
    for rule, text in re.findall(r"^(?:local)?rule (\w+):\n((?: {4}.*\n)+)", done.stdout + done.stderr, re.MULTILINE):
        names = dict(re.findall(r"^ {4}(input|output): (.*)$", text, re.MULTILINE))
        outputs, inputs = (tuple(map(Path, filter(None, names.get(k, "").split(", ")))) for k in ("output", "input"))
        dag_jobs.append(Job(rule, outputs, inputs))
    return dag_jobs


def upstream(job: Job, makers: dict[Path, Job]) -> set[Job]:
    """All jobs upstream of a job."""
    ancestors: set[Job] = set()
    waiting = [job]
    while waiting:
        for name in waiting.pop().inputs:
            if name in makers and makers[name] not in ancestors:
                ancestors.add(makers[name])
                waiting.append(makers[name])
    return ancestors


def within(file: Path, names: tuple[Path, ...]) -> bool:
    return any(file == name or name in file.parents for name in names)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with one ablation and synthetic renders."""
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("workflow", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "local").symlink_to("workflow/profiles/local")
    (folder / "ablations").mkdir()
    (folder / "ablations/one.yaml").write_text("description: made up\n")
    shutil.copytree(plan(folder / "made").results.parent / "meshes", folder / "meshes")
    options = experiment(Path("meshes"), infer={"train_objects": 2, "chunk_size": 2}).model_dump(mode="json")
    # A scale is merged over the defaults, which have what takes most of the time.
    options["autodecoder"]["losses"]["perceptual"] = options["metrics"]["metrics"]["st_lpips"] = None
    (folder / "micro.yaml").write_text(json.dumps(options))
    return folder


@pytest.fixture(scope="module")
def opened(workspace: Path) -> Iterator[dict[str, set[Path]]]:
    """Files in `results` that each rule's command opened, relative to the workspace."""
    sys.addaudithook(_hook)
    with contextlib.chdir(workspace), pytest.MonkeyPatch.context() as monkeypatch:
        planned = Plan.from_options({"scale": "micro.yaml"}, Path("results"))
        planned.write()
        fill(planned, name="one")
        stages = planned.ablations["one"].stages

        def stage(module: Any) -> Callable[[], None]:
            spec = stages[module.__name__.rpartition(".")[2]]
            folder = StageFolder.open(planned.folder(*spec.key))
            chunks = [{"chunk": i} for i in range(spec.n_chunks)] if module in (fit, infer) else [{}]
            return lambda: [module.run(folder, threads=1, **chunk) for chunk in chunks]  # type: ignore[func-returns-value]

        results = Path("results")
        verbs: dict[str, Callable[[], None]] = {
            **{
                module.__name__.rpartition(".")[2]: stage(module)
                for module in (fit, autodecoder, codes, unet, infer, metrics)
            },
            "ablation": lambda: ablation.run(results, "one"),
            "tables": lambda: tables.run(results, ["one"], results / "tables"),
            "report": lambda: report.run(results, ["one"], results / "report.html"),
        }
        opened_files = {}
        for name, verb in verbs.items():
            with recorded(monkeypatch) as files:
                verb()
            opened_files[name] = {
                file.relative_to(workspace) for file in files if (workspace / "results") in file.parents
            }
        yield opened_files


RULES = ("fit", "autodecoder", "codes", "unet", "infer", "metrics", "ablation", "tables", "report")


@pytest.fixture(scope="module")
def dag(workspace: Path, opened: dict[str, set[Path]]) -> list[Job]:
    dag_jobs = jobs(workspace)
    assert {job.rule for job in dag_jobs} >= set(RULES)
    return dag_jobs


@pytest.mark.parametrize("rule", RULES)
def test_a_command_reads_upstream_outputs_only(rule: str, dag: list[Job], opened: dict[str, set[Path]]) -> None:
    """Of outputs of other rules, only those of direct or indirect upstream rules."""
    makers = {name: job for job in dag for name in job.outputs}
    own = [job for job in dag if job.rule == rule]
    before = set().union(*(upstream(job, makers) for job in own))
    outputs = tuple(name for job in [*before, *own] for name in job.outputs)
    folders = tuple(name.parent for name in outputs)
    assert opened[rule], "nothing was recorded"
    for file in opened[rule]:
        if file.name in PLANNED or within(file, outputs):
            continue
        makers_of_file = [job.rule for job in dag if within(file, job.outputs)]
        assert not makers_of_file, (
            f"rule {rule} reads {file}, an output of rule {makers_of_file[0]}, which is not upstream"
        )
        assert within(file, folders), f"rule {rule} reads {file}, which is not in a folder of an upstream output"


@pytest.mark.parametrize("rule", RULES)
def test_a_command_reads_all_inputs_of_its_rule(
    rule: str, dag: list[Job], opened: dict[str, set[Path]]
) -> None:
    for job in dag:
        if job.rule == rule:
            for name in job.inputs:
                read = [file for file in opened[rule] if within(file, (name,))]
                assert read, f"rule {rule} has input {name}, but its command never opens it"
