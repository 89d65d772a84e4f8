"""From one photograph to a mesh with each kind of model, trained on balls until it makes one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from support.builders import BALL_RADIUS
from support.finished import finish
from support.photographs import disc, saved

from z1g.cli.main import main

RENDERED = {"views": 1, "losses": {name: {"kind": name} for name in ("rgb", "alpha", "splat")}}
KINDS: dict[str, dict[str, Any]] = {
    "attributes": {"representation": {"kind": "attributes", "denoiser": {"alone_share": 0.3}}},
    "joint": {"representation": {"kind": "joint", "head": "zero"}},
    "regression": {"unet": {"objective": "regression", "losses": {"latent": None}, "rendered": RENDERED}},
}

STEPS = {"attributes": (100, 80), "joint": (60, 50), "regression": (100, 80)}
"""Of both stages."""


def train(steps: int) -> dict[str, Any]:
    rate = {"lr": 3e-3, "weight_decay": 0.0}
    return {"train": {"steps": steps, "optimizer": rate, "validate_every": 1000, "checkpoint_every": 1000}}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_photograph_becomes_a_mesh(kind: str, tmp_path: Path) -> None:
    own = KINDS[kind]
    first, second = STEPS[kind]
    encoded = {"codes": {"kind": "encoder", "sample": False}, **train(first)}
    metrics = {"metrics": {"fd_efflite0": None, "chamfer": None}}
    own = {**own, "infer": {"steps": 12, "guidance": 1.0}}
    changes = {**own, "autodecoder": encoded, "unet": {**own.get("unet", {}), **train(second)}, "metrics": metrics}
    finish(tmp_path, **changes)
    run, splats, mesh = tmp_path / "results/ablations/micro", tmp_path / "out/a.ply", tmp_path / "a.glb"
    photograph = str(saved(tmp_path, disc(), "a.png"))
    assert main(["infer", photograph, "--run", str(run), "--out", str(splats.parent), "--size", "16"]) == 0
    small = ["--faces", "300", "--texture", "64", "--resolution", "32", "--views", "16"]
    assert main(["mesh", str(splats), "--out", str(mesh), *small]) == 0
    loaded = trimesh.load(mesh, force="mesh")
    distance = np.linalg.norm(loaded.vertices, axis=1)
    # Few steps leave some Gaussians far from the ball.
    assert abs(np.median(distance) - BALL_RADIUS) < 0.25 * BALL_RADIUS
    assert (abs(distance - BALL_RADIUS) < 0.5 * BALL_RADIUS).mean() > 0.5
    assert 100 < len(loaded.faces) <= 300
    assert loaded.visual.material.baseColorTexture.size == (64, 64)
