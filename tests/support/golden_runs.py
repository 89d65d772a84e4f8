"""Micro runs of every stage on synthetic inputs.

No input of a stage is computed by the code of another stage: renders and fits are synthetic, and the tensors of trained
networks, codes and samples are replaced by values that depend on their names and shapes only. The figures of a stage
therefore change only if its own code changes its results.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from support.builders import SIZES, ball, ball_splats, forget_checksums, placement, plan, stage_path
from support.golden_figures import SUMMARIES, Figures
from support.golden_numbers import replace_numbers, synthetic_initialization
from support.paths import ROOT
from support.published_weights import write_published
from z1g.core.seeding import seeded
from z1g.data.shards import RenderedObject, shard_path, write_object
from z1g.geometry.camera import CameraOptions
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.stages import autodecoder, codes, fit, infer, ingest, metrics, unet

STAGES = {"fit": fit, "autodecoder": autodecoder, "codes": codes, "unet": unet, "infer": infer, "metrics": metrics}
N_OBJECTS = 4
TRAIN = {
    "steps": 4, "batch_size": 2, "optimizer": {"lr": 1e-3}, "precision": "fp32", "ema": 0.5, "log_every": 1,
    "checkpoint_every": 4, "validate_every": 4, "schedule": {"kind": "cosine", "warmup_steps": 2},
}  # fmt: skip
FIRST_FIT: dict[str, Any] = {
    "draws": "uniform", "betas": [0.8, 0.95], "schedule": {"final_share": 0.2},
    "rates": {
        "position": 5e-4, "position_unit": "normalized", "opacity": 5e-2, "scale": 8e-2, "rotation": 1e-3, "rgb": 2e-2
    },
}  # fmt: skip
"""The settings of the recorded figures. Other defaults change ids and are no change of the code."""
METHOD: dict[str, Any] = {
    "fit": {**FIRST_FIT, "steps": 6, "views_per_step": 2, "evaluate_every": 2},
    "autodecoder": {
        "losses": {"perceptual": {"kind": "st_lpips", "resolution": 64, "weight": 0.1}}, "code_noise": 0.1,
        "test_lr": 0.5, "test_steps": 2, "train": TRAIN,
    },
    "unet": {"condition_dropout": 0.25, "train": TRAIN},
    "metrics": {"metrics": {"st_lpips": {"kind": "st_lpips"}, "f_score": {"threshold": 0.1}}},
}  # fmt: skip
"""The default method at micro size."""
CHOICES: dict[str, Any] = {
    "fit": {
        **FIRST_FIT,
        "start": {"kind": "visual_hull"}, "positions": {"kind": "depth_offset"}, "steps": 4, "views_per_step": 2,
        "evaluate_every": 2, "clip_norm": 1.0, "weight_decay": 0.01, "rotation_norm": "splats",
        "losses": {"smooth": {"kind": "smooth"}, "ray": {"kind": "ray"}, "background": {"kind": "background"}},
    },
    "autodecoder": {
        "codes": {"kind": "optimized", "lr": 0.3}, "test_steps": 2, "mix_diffusion": {"interval": 2},
        "train": {**TRAIN, "ema": None},
    },
    "representation": {
        "decoder": {"path": {"kind": "conv_average_pool"}, "rotation_norm": "rows", "head": "random"},
        "scale": {"kind": "biased_softplus", "learn_bias": True},
    },
    "unet": {
        "finetune": {"kind": "lora", "rank": 2}, "timesteps": {"kind": "logit_normal"},
        "losses": {"latent": {"weighting": "min_snr"}}, "rendered": {"views": 1}, "train": {**TRAIN, "ema": None},
    },
    "infer": {"sampler": {"kind": "dpm_multistep"}, "codes": {"kind": "one_step"}},
    "metrics": {"metrics": {"f_score": {"threshold": 0.1}}},
}  # fmt: skip
"""Other kinds of most slots."""
SCRATCH: dict[str, Any] = {
    "model": {"kind": "scratch", **SIZES},
    "fit": {
        # Round Gaussians have no orientation that a gradient could tell.
        **FIRST_FIT, "rates": {**FIRST_FIT["rates"], "rotation": 0.0},
        "start": {"kind": "random_ball"}, "steps": 4, "views_per_step": 2,
    },
    "autodecoder": {
        "codes": {"kind": "encoder", "train": True, "sample": False}, "augment": {"turned": 0.5, "recolored": 0.5},
        "losses": {"splat": {"kind": "splat", "log": ["scale"], "opacity_weighted": True}}, "render_inputs": True,
        "train": {**TRAIN, "keep": "best", "validate_every": 2},
    },
    "unet": {
        "variants": {"count": 2}, "condition_dropout": 0.5, "losses": {"latent": {"kind": "latent", "weighting": "v"}},
        "train": {**TRAIN, "micro_batch": 1},
    },
    "infer": {"sampler": {"kind": "euler_ancestral"}, "codes": {"kind": "probe"}},
    "metrics": {"metrics": {"f_score": {"threshold": 0.1}}},
}  # fmt: skip
"""Networks with random weights, on augmented data."""
WORLDS = {"method": METHOD, "choices": CHOICES, "scratch": SCRATCH}


class World:
    """A results folder with synthetic outputs of every stage, for micro runs of single stages."""

    def __init__(self, root: Path, changes: dict[str, Any]) -> None:
        weights = root / "weights"
        weights.mkdir(parents=True)
        write_published(weights)
        for file in sorted(weights.rglob("*.safetensors")):
            replace_numbers(file)
        # Processors are the code of other packages, whose versions may differ in the last byte.
        published = {"model": {"kind": "zero123plus", "pretrained": str(weights), "condition": "plain"}}
        self.plan: Plan = plan(root, N_OBJECTS, **{**published, **changes})
        self._render()

    def run(self, stage: str) -> Figures:
        """Run a stage, replace the tensors in its files by synthetic ones, and return its figures."""
        figures = self._figures(stage, self.plan.results)
        for file in sorted(stage_path(self.plan, stage).rglob("*.safetensors")):
            replace_numbers(file)
        forget_checksums(stage_path(self.plan, stage))
        return figures

    def run_aside(self, stage: str, results: Path) -> Figures:
        """Run a stage again in a copy of the results folder, and return its figures."""
        shutil.copytree(self.plan.results, results)
        folder = results / stage_path(self.plan, stage).relative_to(self.plan.results)
        for file in folder.iterdir():
            if file.name not in ("stage.json", "manifest.jsonl"):
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        return self._figures(stage, results)

    def _figures(self, stage: str, results: Path) -> Figures:
        path = results / stage_path(self.plan, stage).relative_to(self.plan.results)
        folder, n_chunks = StageFolder.open(path), self.plan.ablations["micro"].stages[stage].n_chunks
        chunks = [{"chunk": chunk} for chunk in range(n_chunks)] if stage in ("fit", "infer") else [{}]
        # As in its own process.
        with synthetic_initialization(), seeded(0):
            for chunk in chunks:
                STAGES[stage].run(folder, threads=1, **chunk)
        return dict(SUMMARIES[stage](path))

    def _render(self) -> None:
        """Write synthetic results of ingest and fit."""
        ablation = self.plan.ablations["micro"]
        config, manifest = ablation.ablation.experiment, ablation.manifest
        for chunk in range(manifest.n_chunks):
            ids = [entry.id for entry in manifest.chunk(chunk)]
            with tarfile.open(shard_path(stage_path(self.plan, "ingest"), chunk), "w") as tar:
                for name in ids:
                    item = ball(name, config.camera, 16)
                    info = {**item.info, "normalization": placement(int(name[len("object")]))}
                    write_object(tar, RenderedObject(name, item.c2w, item.fov_y_deg, item.rgba, item.depth, info))
            splats = {name: ball_splats(name, config.splat.size) for name in ids}
            save_file(splats, stage_path(self.plan, "fit") / f"chunk-{chunk:05d}.safetensors")


def ingest_originals(root: Path) -> Figures:
    """Ingest two scenes in the original's layout, one of which is incomplete."""
    camera = {"train_views": 2, "validation_views": 1, "test_views": 1}
    for name in ("whole", "lacking"):
        (root / "renders" / name).mkdir(parents=True)
        for view, rgba in enumerate(ball(name, CameraOptions(**camera), 16).rgba):
            Image.fromarray(rgba, "RGBA").save(root / "renders" / name / f"{view:03d}.png")
            angles = {"elevation": 10.0 * (view % 4) - 5.0, "azimuth": 40.0 * view, "radius": 1.5}
            np.save(root / "renders" / name / f"{view:03d}.npy", angles)  # type: ignore[arg-type]
    (root / "renders" / "lacking" / "004.npy").unlink()
    return _ingested(plan(root, 0, camera=camera, data={"kind": "original", "renders": str(root / "renders")}))


def ingest_meshes(root: Path, **renderer: Any) -> Figures:
    """Ingest a textured mesh with a renderer."""
    camera = {"train_views": 1, "validation_views": 1, "test_views": 1}
    options = {"resolution": 32, "normals": True, **renderer}
    return _ingested(
        plan(root, 0, camera=camera, data={"paths": [str(ROOT / "workflow/objects/crate")], "renderer": options})
    )


def _ingested(planned: Plan) -> Figures:
    folder = stage_path(planned, "ingest")
    ingest.run(StageFolder.open(folder), chunk=0, threads=1)
    return dict(SUMMARIES["ingest"](folder))
