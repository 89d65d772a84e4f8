"""A checkout with a micro experiment that Snakemake runs on the test cluster."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from z1g.config.resolve import merge

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
ABLATION = "encoder_mix"
LIMIT_S = 1800.0
"""Time limit of all waits, far above the time needed on a busy machine; a wait ends with the state that it is for."""
REQUESTED: dict[str, dict[str, Any]] = {
    "ingest": {"threads": 2, "memory_mb": 1100, "minutes": 11},
    "fit": {"threads": 1, "gpus": 1, "memory_mb": 1200, "minutes": 12, "partition": "gpu", "account": "lab"},
    "autodecoder": {"threads": 1, "gpus": 1, "nodes": 2, "memory_mb": 1300, "minutes": 13, "partition": "gpu"},
    "codes": {"threads": 1, "gpus": 0, "memory_mb": 1400, "minutes": 14},
    "unet": {"threads": 2, "gpus": 2, "memory_mb": 1500, "minutes": 15},
    "infer": {"threads": 1, "gpus": 1, "memory_mb": 1600, "minutes": 16, "partition": "gpu"},
    "metrics": {"threads": 3, "gpus": 0, "memory_mb": 1700, "minutes": 17},
}
"""Resources of the chain's jobs, all different, so that a mix-up is detected."""
ONE_PROCESS: dict[str, dict[str, Any]] = {
    stage: {**requested, "gpus": 0, "partition": "day", "memory_mb": 1000}
    | ({"nodes": 1} if "nodes" in requested else {})
    for stage, requested in REQUESTED.items()
}
"""The same stages without GPUs, each training in one process."""
HOLD = 5
"""Default step before which stage 1 pauses, one step after a checkpoint."""
TRAIN = {"steps": 12, "checkpoint_every": 2, "validate_every": 6, "log_every": 3, "precision": "fp32"}
CHANGES: dict[str, Any] = {
    "data": {"paths": ["workflow/objects/crate", "workflow/objects/bread", "workflow/objects/basketball"]},
    "autodecoder": {"train": TRAIN, "losses": {"perceptual": None}},
    "unet": {"train": {**TRAIN, "steps": 6}},
    "metrics": {"metrics": {"st_lpips": None}},
}


class Workspace:
    """A folder with Snakefile, rules, configuration and results."""

    def __init__(self, folder: Path, resources: dict[str, Any], **changes: Any) -> None:
        self.folder, self.results = folder, folder / "results"
        for name in ("workflow", "ablations", "configs"):
            shutil.copytree(ROOT / name, folder / name)
        for name in ("local", "slurm"):
            (folder / name).symlink_to(f"workflow/profiles/{name}")
        micro = yaml.safe_load((ROOT / "tests/support/micro.yaml").read_text())
        micro.pop("resources")
        config = merge(merge(micro, CHANGES), {"resources": resources, **changes})
        (folder / "micro.yaml").write_text(yaml.safe_dump(config))
        text = (ROOT / "Snakefile").read_text()
        verb = f'Z1G = f"{{shlex.quote(sys.executable)}} {HERE}/verb.py"'
        changed, n = re.subn(r"(?m)^Z1G = .*$", verb, text)
        assert n == 1
        (folder / "Snakefile").write_text(changed)

    def take(self, other: "Workspace", *stages: str) -> None:
        """Copy finished stages of another workspace and Snakemake's metadata."""
        for stage in stages:
            shutil.copytree(other.results / stage, self.results / stage)
        shutil.copytree(other.folder / ".snakemake/metadata", self.folder / ".snakemake/metadata")

    def command(self, *words: str, profile: str = "slurm", target: str = "ablation_all") -> list[str]:
        config = ["--config", "scale=micro.yaml", f"ablations={ABLATION}"]
        return [sys.executable, str(HERE / "quick_snakemake.py"), "--profile", profile, *words, *config, "--", target]

    def environment(self, hold: Sequence[int] = ()) -> dict[str, str]:
        """Environment variables. `hold`: steps before which stage 1 pauses until `release`."""
        ours = {
            "Z1G_SLURM_PARTITION": "day",
            "Z1G_SLURM_STATUS_SECONDS": "1",
            "Z1G_TEST_HOLD": " ".join(map(str, hold)),
            "PYTHONPATH": f"{HERE / 'quick'}{os.pathsep}{ROOT}",
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
        }
        return {**os.environ, **ours}

    def run(self, *words: str, target: str = "ablation_all", fails: bool = False, profile: str = "slurm") -> str:
        """Run Snakemake and return its output. Asserts that it succeeds, or with `fails` that it fails."""
        done = subprocess.run(
            self.command(*words, target=target, profile=profile),
            cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, output[-9000:]
        return output

    @contextlib.contextmanager
    def started(self, *words: str, target: str, hold: Sequence[int]) -> Iterator["subprocess.Popen[str]"]:
        """Run Snakemake in the background with output to `snakemake.log`; it is killed at the end of the block."""
        with (self.folder / "snakemake.log").open("a") as log:
            process = subprocess.Popen(
                self.command(*words, target=target),
                cwd=self.folder, env=self.environment(hold), stdout=log, stderr=log, text=True,
                preexec_fn=_restore_interrupts,
            )  # fmt: skip
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def held(self, step: int) -> bool:
        """Whether training has paused before a step."""
        return (self.folder / f"held-{step}").exists()

    def release(self, step: int) -> None:
        """Let training continue from a step."""
        (self.folder / f"released-{step}").touch()

    def output(self) -> str:
        """Output of Snakemake in the background."""
        return (self.folder / "snakemake.log").read_text()

    def queries(self) -> list[str]:
        """Command of each query of jobs, and whether it was answered."""
        file = self.folder / "queries"
        return file.read_text().splitlines() if file.exists() else []

    def log(self) -> str:
        """Log of stage 1's latest job, empty if there is none."""
        file = self.stage("autodecoder") / "logs/autodecoder.log"
        return file.read_text() if file.exists() else ""

    def resumed_from(self) -> int | None:
        """The step from which stage 1's latest job resumed; None if it started from scratch."""
        steps = re.findall(r"resumed \S+ from step (\d+)", self.log())
        return int(steps[-1]) if steps else None

    def stage(self, name: str) -> Path:
        """The only folder of a stage."""
        (folder,) = (self.results / name).iterdir()
        return folder

    def steps_done(self) -> int:
        """Step of stage 1's newest checkpoint."""
        files = sorted(self.results.glob("autodecoder/*/checkpoints/step-*.pt"))
        return int(files[-1].stem.removeprefix("step-")) if files else 0

    def end(self) -> None:
        """Kill all remaining processes in this folder."""
        for process in psutil.process_iter(["cwd"]):
            if process.info["cwd"] == str(self.folder):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def verbs(self, verb: str) -> list[psutil.Process]:
        """Processes of this workspace that run a command, without their children."""
        processes = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            words = process.info["cmdline"] or []
            if process.info["cwd"] == str(self.folder) and words[1:3] == [f"{HERE}/verb.py", verb]:
                processes.append(process)
        ids = {process.pid for process in processes}
        return [process for process in processes if process.ppid() not in ids]


def _restore_interrupts() -> None:
    """Restore SIGINT's default: a shell that starts the tests in the background makes them ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
