"""A planned results folder whose objects have no symmetry, and splats that are nearly those of its true renders."""

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from support.builders import placement, plan, stage_path
from z1g.core.files import write_jsonl
from z1g.data.manifest import int_hash
from z1g.data.shards import RenderedObject, shard_path, table_path, write_object
from z1g.geometry.camera import INPUT_VIEWS, Cameras
from z1g.plan.plan import Plan
from z1g.render.cpu import Cpu

RESOLUTION = 40
ARMS = (
    ((0.0, 0.0, 0.0), (0.3, 0.15, 0.1)),
    ((0.2, 0.25, 0.0), (0.09, 0.22, 0.09)),
    ((-0.08, -0.06, 0.28), (0.09, 0.09, 0.26)),
)
"""Boxes, by center and half size, that make a figure like no turn of itself."""


@dataclass(frozen=True)
class World:
    """A plan with rendered objects, and each object's splats [N,14] in the y-up world."""

    planned: Plan
    splats: dict[str, Tensor]

    @property
    def results(self) -> Path:
        """The results folder."""
        return self.planned.results


def world(root: Path, n_objects: int = 4, depth: bool = True, skip: tuple[str, ...] = (), **changes: Any) -> World:
    """Plan, and write results of ingest without the objects `skip`; those of other stages are missing."""
    sets = {"train_views": 4, "validation_views": 1, "test_views": 3}
    quick = {"metrics": dict.fromkeys(("fd_efflite0", "ssim", "f_score"))}
    planned = plan(root, n_objects, **{"camera": sets, "infer": {"train_objects": 10}, "metrics": quick, **changes})
    camera, manifest = planned.ablations["micro"].ablation.experiment.camera, planned.ablations["micro"].manifest
    ingest, splats = stage_path(planned, "ingest"), {}
    for chunk in range(manifest.n_chunks):
        ingest.mkdir(parents=True, exist_ok=True)
        rows = []
        with tarfile.open(shard_path(ingest, chunk), "w") as tar:
            for entry in [entry for entry in manifest.chunk(chunk) if entry.id not in skip]:
                true = figure(entry.id)
                item = rendered(entry.id, true, camera.poses(entry.seed), camera.fov_y_deg, depth)
                rows.append({"id": entry.id, "status": "ok", **write_object(tar, item).row()})
                splats[entry.id] = disturbed(true)
        write_jsonl(table_path(ingest, chunk), rows)
    return World(planned, splats)


def figure(name: str, n: int = 1000) -> Tensor:
    """Opaque splats [3n,14] on three boxes, colored by place, and different for each name."""
    draw = np.random.default_rng(int_hash(name))
    parts = []
    for center, half in ARMS:
        points = draw.uniform(-1, 1, (n, 3))
        points[np.arange(n), draw.integers(0, 3, n)] = draw.choice([-1.0, 1.0], n)
        parts.append(np.array(center) + np.array(half) * points)
    points = np.concatenate(parts)
    x = torch.zeros(len(points), 14)
    x[:, :3] = torch.from_numpy(points)
    x[:, 3] = 0.95
    x[:, 4:7] = torch.from_numpy(draw.uniform(0.008, 0.016, (len(points), 3)))
    x[:, 7:11] = torch.nn.functional.normalize(torch.from_numpy(draw.normal(size=(len(points), 4))), dim=1)
    x[:, 11:14] = torch.from_numpy(np.clip(0.5 + points + 0.1 * draw.normal(size=3), 0, 1))
    return x


def disturbed(true: Tensor) -> Tensor:
    """A result about as good as a model's: places and colors with noise."""
    generator = torch.Generator().manual_seed(1)
    x = true.clone()
    x[:, :3] += 0.01 * torch.randn(len(x), 3, generator=generator)
    x[:, 11:14] = (x[:, 11:14] + 0.08 * torch.randn(len(x), 3, generator=generator)).clamp(0, 1)
    return x


def rendered(
    name: str, splats: Tensor, c2w: NDArray[np.float64], fov_y_deg: float, depth: bool = True
) -> RenderedObject:
    """Renders of splats [N,14] of the y-up world, as a data source gives them."""
    poses = torch.from_numpy(c2w).float()[None]
    with torch.no_grad():
        seen = Cpu().render(splats[None], Cameras(poses, fov_y_deg, RESOLUTION, RESOLUTION))
    alpha = seen.alpha[0].clamp(0, 1)
    color = torch.where(alpha > 0, seen.rgb[0] / alpha.clamp(min=1e-6), torch.zeros(()))
    rgba = (torch.cat([color.clamp(0, 1), alpha], dim=1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    covered = alpha[list(INPUT_VIEWS), 0] > 0.9
    distance = torch.where(covered, seen.depth[0, list(INPUT_VIEWS), 0] / alpha[list(INPUT_VIEWS), 0], torch.zeros(()))
    info = {"source": name, "normalization": placement(int(name.removeprefix("object").partition("-")[0]))}
    return RenderedObject(name, c2w, fov_y_deg, rgba, distance.numpy() if depth else None, info)
