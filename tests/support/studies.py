"""A checkout with a micro study on synthetic renders and fits, for Snakemake without Blender."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from support.builders import experiment, fill
from support.forked import serve
from support.forked_snakemake import snakemake
from support.paths import ROOT
from support.watched import prepared
from z1g.config.resolve import Ablation, merge
from z1g.core.files import write_jsonl
from z1g.core.stages import STAGE_NAMES
from z1g.plan.plan import Plan

LIMIT_S = 600.0
METRICS = {"metrics": dict.fromkeys(("fd_efflite0", "chamfer", "f_score", "depth_error", "ssim"))}
WITHOUT: dict[str, Any] = {
    "metrics": {"metrics": {**METRICS["metrics"], "st_lpips": None}},
    "autodecoder": {"losses": {"perceptual": None}},
}
"""What takes most of the time; a scale's file has to say so, since its values are merged over the defaults."""


class Workspace:
    """A folder with Snakefile, rules, a scale `micro.yaml`, ablation files, and finished `ingest` and `fit`."""

    def __init__(self, folder: Path, ablations: dict[str, Any], **changes: Any) -> None:
        """ablations: content of the files below `ablations/` by path. changes: options of the scale."""
        self.folder, self.results = folder, folder / "results"
        folder.mkdir(parents=True)
        for name in ("workflow", "configs"):
            shutil.copytree(ROOT / name, folder / name)
        (folder / "local").symlink_to("workflow/profiles/local")
        shutil.copy(ROOT / "Snakefile", folder)
        for name, content in ablations.items():
            file = folder / "ablations" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(yaml.safe_dump(content))
        meshes = folder / "meshes"
        meshes.mkdir()
        for i in range(4):
            (meshes / f"object{i}.obj").write_text(f"v {i} 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n", encoding="utf-8")
        resources = {stage: {"gpus": 0, "threads": 1, "memory_mb": 500} for stage in STAGE_NAMES}
        options = merge({"metrics": METRICS, "resources": resources}, changes)
        self.options = experiment(Path("meshes"), **options).model_dump(mode="json")
        (folder / "micro.yaml").write_text(json.dumps(_with_nulls(self.options, WITHOUT)))
        self._fill()

    def _fill(self) -> None:
        """Results of ingest and fit, which are the same for all ablations."""
        here = Path.cwd()
        os.chdir(self.folder)
        try:
            ablation = Ablation("micro", "", "micro", {}, experiment(Path("meshes"), **self.options))
            planned = Plan([ablation], self.results)
            planned.write()
            fill(planned)
            stages = planned.ablations["micro"].stages
            for stage in ("ingest", "fit"):
                for chunk in range(stages[stage].n_chunks):
                    file = planned.folder(*stages[stage].key) / f"chunk-{chunk:05d}"
                    names = [entry.id for entry in planned.ablations["micro"].manifest.chunk(chunk)]
                    write_jsonl(file.with_suffix(".jsonl"), [{"id": name, "status": "ok"} for name in names])
                    Image.new("RGB", (4, 4)).save(file.with_suffix(".png"))
        finally:
            os.chdir(here)
        shutil.rmtree(self.results / "ablations")

    def use(self, verbs: str) -> None:
        """Run a command in place of `python -m z1g`."""
        text = (self.folder / "Snakefile").read_text()
        changed, n = re.subn(r"(?m)^Z1G = .*$", f"Z1G = {verbs!r}", text)
        assert n == 1
        (self.folder / "Snakefile").write_text(changed)

    def take(self, other: "Workspace", *stages: str) -> None:
        """Copy finished stages of another workspace and what Snakemake knows about them."""
        for stage in stages:
            shutil.copytree(other.results / stage, self.results / stage, symlinks=True, dirs_exist_ok=True)
        shutil.copytree(other.folder / ".snakemake/metadata", self.folder / ".snakemake/metadata", dirs_exist_ok=True)

    def command(self, *words: str, ablations: str | None = None) -> list[str]:
        """A command of Snakemake."""
        config = ["--config", "scale=micro.yaml", *([f"ablations={ablations}"] if ablations else [])]
        return [sys.executable, "-m", "snakemake", "--profile", "local", "--cores", "2", *words, *config, "--"]

    @property
    def environment(self) -> dict[str, str]:
        """Environment of commands."""
        return {
            **os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip

    def run(self, *words: str, ablations: str | None = None, **variables: str) -> str:
        """Run Snakemake to its end and return its output."""
        done = self.start(self.command(*words, ablations=ablations), **variables)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout + done.stderr

    def start(self, command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder, with further environment variables."""
        environment = {**self.environment, **variables}
        if command[:3] == [sys.executable, "-m", "snakemake"]:
            return snakemake(command[3:], self.folder, environment)
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )


def _with_nulls(values: dict[str, Any], nulls: dict[str, Any]) -> dict[str, Any]:
    """The values, and the nulls of a tree of nulls."""
    inner = {name: None if below is None else _with_nulls(values[name], below) for name, below in nulls.items()}
    return {**values, **inner}


@contextlib.contextmanager
def forked_verbs(folder: Path) -> Iterator[str]:
    """Yield the command for `Workspace.use` that runs verbs without starting Python and torch each time."""
    path, script = folder / "socket", ROOT / "tests/support/forked.py"
    context = prepared()
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(str(path), theirs))
    server.start()
    theirs.close()
    try:
        assert ours.recv() > 0
        yield f"{sys.executable} -S -E {script} {path}"
    finally:
        server.kill()
        server.join()
