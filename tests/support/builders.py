"""Shared builders: a micro experiment, its synthetic data, and toy objectives."""

import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from z1g.codes.book import OptimizedBook
from z1g.config.resolve import Ablation, merge
from z1g.config.tree import Experiment
from z1g.core.files import read_json, read_jsonl, write_json, write_jsonl
from z1g.data.manifest import int_hash
from z1g.data.scenes import Scene
from z1g.data.shards import RenderedObject, shard_path, table_path, write_object
from z1g.data.splat_files import with_checksums
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions
from z1g.plan.plan import Plan
from z1g.training.data import Batch, Draw, Sample, StepData
from z1g.training.objective import Objective
from z1g.training.options import TrainOptions

BALL_RADIUS = 0.35
OBJECTS = (
    "object0-1881563e2d",
    "object1-637c5e68e1",
    "object2-2b7a09a135",
    "object3-c7ca9a2598",
    "object4-bfd18f3296",
    "object5-09f90a00c8",
    "object6-10f33c99d6",
    "object7-9513e04b87",
    "object8-62f0da0c84",
    "object9-5a4aae270b",
)
"""Ids of the synthetic objects, which depend on file names and contents only."""
SIZES: dict[str, Any] = {
    "autoencoder_size": {"channels": [8, 8], "layers_per_block": 1, "norm_groups": 4},
    "unet_size": {
        "channels": [8, 16], "layers_per_block": 1, "head_dim": 8, "cross_attention_dim": 16, "norm_groups": 4,
    },
    "vision_size": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "heads": 2},
    "prompt_tokens": 4,
}  # fmt: skip
TRAIN: dict[str, Any] = {
    "steps": 6,
    "batch_size": 2,
    "optimizer": {"lr": 1e-3},
    "precision": "fp32",
    "log_every": 2,
    "checkpoint_every": 2,
    "validate_every": 6,
}


def experiment(meshes: Path, **changes: Any) -> Experiment:
    """A micro experiment on the files in `meshes`, with `changes` merged into it."""
    values = {
        "data": {"kind": "meshes", "paths": [str(meshes)], "chunk_size": 2, "split": {"test_fraction": 0.25}},
        "camera": {"train_views": 4, "validation_views": 1, "test_views": 2},
        "splat": {"size": 8},
        "model": {"kind": "scratch", **SIZES},
        "fit": {"steps": 4, "views_per_step": 2, "evaluate_every": 2},
        "representation": {"input_size": 16},
        "autodecoder": {"views": 2, "test_steps": 2, "losses": {"perceptual": None}, "train": TRAIN},
        "unet": {"condition_size": 16, "normalize_codes": True, "train": TRAIN},
        "infer": {"steps": 3, "train_objects": 1, "turntable_frames": 2, "batch_size": 2},
        "metrics": {"metrics": {"st_lpips": None}},
    }
    merged = merge(merge(Experiment().model_dump(mode="json"), values), changes)
    return Experiment.model_validate(merged)


def plan(root: Path, n_objects: int = 4, name: str = "micro", **changes: Any) -> Plan:
    """Plan and write a micro ablation on synthetic objects in `root`."""
    meshes = root / "meshes"
    meshes.mkdir(parents=True, exist_ok=True)
    for i in range(n_objects):
        (meshes / f"object{i}.obj").write_text(f"v {i} 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n", encoding="utf-8")
    ablation = Ablation(name, "made up", "micro", {}, experiment(meshes, **changes))
    planned = Plan([ablation], root / "results")
    planned.write()
    return planned


def stage_path(planned: Plan, stage: str, name: str = "micro") -> Path:
    """The folder of one stage."""
    return planned.folder(*planned.ablations[name].stages[stage].key)


def fill(
    planned: Plan, resolution: int = 16, name: str = "micro", skip: tuple[str, ...] = (), placed: bool = False
) -> None:
    """Write results of ingest and fit: images of colored balls, and splats on their surfaces.

    placed: record where the object's mesh is in its renders, so that metrics read the mesh.
    """
    ablation = planned.ablations[name]
    config, manifest = ablation.ablation.experiment, ablation.manifest
    ingest, fit = stage_path(planned, "ingest", name), stage_path(planned, "fit", name)
    for chunk in range(manifest.n_chunks):
        names = [entry.id for entry in manifest.chunk(chunk) if entry.id not in skip]
        ingest.mkdir(parents=True, exist_ok=True)
        with tarfile.open(shard_path(ingest, chunk), "w") as tar:
            stored = {}
            for object_id in names:
                item = ball(object_id, config.camera, resolution)
                info = {"normalization": placement(int(object_id[len("object")]))} if placed else {}
                stored[object_id] = write_object(tar, replace(item, info={**item.info, **info}))
        write_jsonl(table_path(ingest, chunk), [{"id": n, "status": "ok", **s.row()} for n, s in stored.items()])
        splats = {object_id: ball_splats(object_id, config.splat.size) for object_id in names}
        save_file(splats, fit / f"chunk-{chunk:05d}.safetensors")
        write_jsonl(
            fit / f"chunk-{chunk:05d}.jsonl", with_checksums([{"id": n, "status": "ok"} for n in names], splats)
        )


def forget_checksums(folder: Path) -> None:
    """Remove the checksums of numbers that were replaced, as in files of earlier versions."""
    for table in folder.glob("chunk-*.jsonl"):
        rows = read_jsonl(table)
        write_jsonl(table, [{key: value for key, value in row.items() if key != "checksum"} for row in rows])
    for file in folder.rglob("stage1.json"):
        record = read_json(file)
        write_json(file, {key: value for key, value in record.items() if key not in ("files", "checksum")})


def placement(i: int) -> dict[str, Any]:
    """Normalization of the triangle of the i-th synthetic object, see `plan`."""
    corners = np.array([[i, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    center = (corners.min(axis=0) + corners.max(axis=0)) / 2
    scale = 0.5 / np.linalg.norm(corners - center, axis=1).max()
    return {"center": center.tolist(), "scale": float(scale), "up_axis": "y"}


def ball(object_id: str, camera: CameraOptions, resolution: int) -> RenderedObject:
    """A rendered object: a ball whose color varies smoothly with the surface normal."""
    seed = int_hash(object_id)
    c2w = camera.poses(seed)
    tint = np.random.default_rng(seed).uniform(0.3, 0.7, size=3)
    images = [_ball_image(pose, camera.fov_y_deg, resolution, tint) for pose in c2w]
    rgba = np.stack([rgba for rgba, _ in images])
    depth = np.stack([depth for _, depth in images])[list(INPUT_VIEWS)].astype(np.float32)
    return RenderedObject(object_id, c2w, camera.fov_y_deg, rgba, depth, {"source": object_id})


def _ball_image(
    c2w: NDArray[np.float64], fov_y_deg: float, resolution: int, tint: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    focal = 0.5 * resolution / np.tan(np.radians(fov_y_deg) / 2)
    line = (np.arange(resolution) + 0.5 - resolution / 2) / focal
    local = np.stack([*np.meshgrid(line, line), np.ones((resolution, resolution))], axis=-1)
    directions, origin = local @ c2w[:3, :3].T, c2w[:3, 3]
    a, b = (directions**2).sum(-1), directions @ origin
    square = b**2 - a * (origin @ origin - BALL_RADIUS**2)
    hit = square > 0
    depth = np.where(hit, (-b - np.sqrt(np.maximum(square, 0))) / a, 0.0)
    normal = (origin + depth[..., None] * directions) / BALL_RADIUS
    rgb = np.clip(tint + 0.3 * normal, 0, 1)
    rgba = np.concatenate([np.where(hit[..., None], rgb, 0), hit[..., None]], axis=-1)
    return (rgba * 255).round().astype(np.uint8), depth


def ball_splats(object_id: str, size: int) -> Tensor:
    """Activated splatter images [6,14,S,S] with Gaussians on the ball, seeded by the object."""
    generator = torch.Generator().manual_seed(int_hash(object_id))
    splats = torch.rand(6, 14, size, size, generator=generator)
    normal = nn.functional.normalize(splats[:, :3] - 0.5, dim=1)
    splats[:, :3] = BALL_RADIUS * normal
    splats[:, 4:7] = 0.02 + 0.05 * splats[:, 4:7]
    splats[:, 7:11] = nn.functional.normalize(splats[:, 7:11] - 0.5, dim=1)
    return splats


class Toy(Objective):
    """Trains a small network with dropout on a fixed linear map. In `broken` steps, the first sample is NaN."""

    def __init__(self, broken: range = range(0), dropout: float = 0.2) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 2))
        self.inputs = torch.randn(10, 4, generator=generator)
        self.targets = self.inputs @ torch.randn(4, 2, generator=generator)
        with torch.no_grad():
            for parameter in self.net.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        self.broken = broken

    def sample(self, draw: Draw) -> Sample:
        row, (_, step, slot) = draw.object_index, draw.key
        target = self.targets[row]
        return {"x": self.inputs[row], "y": target * float("nan") if step in self.broken and slot == 0 else target}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        error = (self.net(batch["x"]) - batch["y"]).square().mean()
        return {"loss": error, "error": error.detach().sqrt()}

    def data(self, options: TrainOptions) -> StepData:
        """Step data of the ten objects."""
        return StepData(self.sample, len(self.inputs), options.batch_size, options.seed)


class CodedToy(Objective):
    """Trains codes of six objects, and a linear layer from codes to targets."""

    def __init__(self, lr: float = 0.02) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.starts = torch.randn(6, 1, 2, 2, generator=generator)
        self.targets = torch.randn(6, 1, 2, 2, generator=generator)
        self.book = OptimizedBook(6, (1, 2, 2), lr, "encoder", reset=False, seed=0)
        self.layer = nn.Linear(2, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[1.0, 0.2], [-0.3, 0.8]]))
            self.layer.bias.zero_()

    def sample(self, draw: Draw) -> Sample:
        return {"target": self.targets[draw.object_index]}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        code = self.book.lookup(batch["object_index"], lambda how: self.starts[batch["object_index"].cpu()])
        return {"loss": (self.layer(code) - batch["target"]).square().mean()}

    def after_backward(self, accelerator: Accelerator) -> None:
        self.book.after_backward(accelerator)

    def discard(self) -> None:
        self.book.discard()

    def data(self, options: TrainOptions) -> StepData:
        """Step data of the six objects."""
        return StepData(self.sample, 6, options.batch_size, options.seed)


def toy_options(**changes: Any) -> TrainOptions:
    """Twelve steps of three objects, with a checkpoint every second step."""
    values = {
        "steps": 12, "batch_size": 3, "optimizer": {"lr": 0.02}, "precision": "fp32", "ema": 0.8, "log_every": 3,
        "schedule": {"kind": "cosine", "warmup_steps": 3}, "checkpoint_every": 2, "validate_every": 6,
    }  # fmt: skip
    return TrainOptions.model_validate({**values, **changes})


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """History rows without the column `seconds`."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def input_mosaic(scene: Scene, size: int) -> Tensor:
    """The six inputs of a scene on mid-gray, [3,3·size,2·size]: rows of two, resized without antialiasing."""
    rgba = torch.from_numpy(scene.rgba[list(INPUT_VIEWS)]).permute(0, 3, 1, 2).float() / 255
    images = rgba[:, :3] * rgba[:, 3:] + 0.5 * (1 - rgba[:, 3:])
    if images.shape[-1] != size:
        images = nn.functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    return torch.cat([torch.cat([images[i], images[i + 1]], dim=2) for i in (0, 2, 4)], dim=1)
