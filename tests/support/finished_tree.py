"""A results folder in which all stages of a micro ablation have run, on renders that need no Blender."""

import fcntl
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from support.builders import ball, experiment, stage_path
from z1g.cli.main import main
from z1g.config.resolve import Ablation
from z1g.config.tree import Experiment
from z1g.core.stages import STAGE_NAMES
from z1g.geometry.camera import CameraOptions
from z1g.plan.plan import Plan

SCENES = ("scene0", "scene1", "s" * 236)
"""Names of the scenes; the longest that leave room for the endings of files."""
DATA = {"kind": "original", "chunk_size": 2, "split": {"test_fraction": 0.34, "seed": 1}}


def planned(root: Path) -> Plan:
    """Write the scenes of a data set `kind: original` to `root/renders`, and plan the ablation `micro` on it."""
    # Renders of the original have no depth from which fits could start.
    values = experiment(root, fit={"start": {"kind": "visual_hull"}}).model_dump(mode="json")
    config = Experiment.model_validate({**values, "data": {**DATA, "renders": str(root / "renders")}})
    for name in SCENES:
        _scene(root / "renders" / name, config.camera)
    plan = Plan([Ablation("micro", "made up", "micro", {}, config)], root / "results")
    plan.write()
    return plan


def _scene(folder: Path, camera: CameraOptions) -> None:
    """One scene in the original's layout: a ball whose views have plausible angles."""
    folder.mkdir(parents=True)
    item = ball(folder.name, camera, 16)
    draw = np.random.default_rng(len(folder.name))
    for view, image in enumerate(item.rgba):
        Image.fromarray(image, "RGBA").save(folder / f"{view:03d}.png")
        angles = {"elevation": draw.uniform(-30, 60), "azimuth": draw.uniform(0, 360), "radius": 1.5}
        np.save(folder / f"{view:03d}.npy", angles, allow_pickle=True)  # type: ignore[arg-type]


def finish(plan: Plan) -> None:
    """Run all stages in this process."""
    for stage in STAGE_NAMES:
        for words in jobs(plan, stage):
            assert main(words) == 0, words
    assert main(["ablation", str(plan.results), "micro"]) == 0


def jobs(plan: Plan, stage: str) -> list[list[str]]:
    """The commands of a stage, one per chunk."""
    folder = stage_path(plan, stage)
    words = [stage, str(folder), "--threads", "1", "--gpus", "0"]
    n = plan.ablations["micro"].stages[stage].n_chunks
    chunked = stage in ("ingest", "fit", "infer")
    return [[*words, "--chunk", str(chunk)] for chunk in range(n)] if chunked else [words]


def finished(root: Path) -> Path:
    """A folder with a finished results folder, built on the first call of any process. root: pytest's folder."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all processes
    folder = root / "finished"
    with (root / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            finish(planned(folder))
            (folder / "complete").touch()
    return folder
