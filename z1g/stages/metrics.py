"""Stage `metrics`: the method beside its bounds and baselines, on views that no training saw."""

import logging
import subprocess
from collections.abc import Mapping
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from z1g.data.scenes import Scene, SceneStore
from z1g.device import default_device, use_threads
from z1g.errors import UserError
from z1g.files import atomic_folder, write_json, write_jsonl
from z1g.metrics import Metric, Pictures
from z1g.networks.stage1 import Stage1
from z1g.pictures import on_white, save_png, to_bytes
from z1g.progress import track
from z1g.splat import to_gaussians
from z1g.stages import StageFolder
from z1g.stages.autodecoder import training_scenes
from z1g.stages.infer import evaluated

log = logging.getLogger("z1g")
SOURCES = ("sampled", "autodecoder", "mean_code", "nearest", "fitted")
"""The method; stage 1 on true codes (what stage 2 could reach); two baselines; the fitted truth (upper bound)."""
RETRIEVAL_SIZE = 64
VERSIONS = ("torch", "diffusers", "transformers", "numpy", "snakemake")


def run(folder: StageFolder, threads: int) -> None:
    """Write `metrics.jsonl` (a row for each object, source and view), `metrics.json` and `pictures/`."""
    use_threads(threads)
    trained = folder.upstream_folder("autodecoder")
    scenes, train_ids = training_scenes(trained)
    sources = Sources(folder, trained, scenes, train_ids)
    views = list(trained.config.camera.test_ids)
    metrics = Usable(folder.config.metrics.metrics)
    objects = [(name, split) for name, split in evaluated(folder) if name in scenes.ids]
    rows: list[dict[str, Any]] = []
    with atomic_folder(folder.path / "pictures") as pictures:
        for name, split in track(objects, "metrics", len(objects)):
            scene = scenes[name]
            save_png(to_bytes(on_white(*scene.pictures([0]))[0]), pictures / f"{name}.condition.png")
            save_png(to_bytes(on_white(*scene.pictures(views[:1]))[0]), pictures / f"{name}.truth.png")
            for source in SOURCES:
                pair = render_pair(trained, scene, sources(source, scene), views)
                save_png(to_bytes(pair.rgb[0]), pictures / f"{name}.{source}.png")
                values = metrics(pair)
                head = {"object": name, "split": split, "source": source}
                rows += [{**head, "view": v, **{m: x[i] for m, x in values.items()}} for i, v in enumerate(views)]
    write_json(folder.path / "metrics.json", {**metrics.description(), **provenance()})
    write_jsonl(folder.path / "metrics.jsonl", rows)


class Sources:
    """Splatter images [6,14,S,S] of an object, by where they come from."""

    def __init__(self, folder: StageFolder, trained: StageFolder, scenes: SceneStore, train_ids: list[str]) -> None:
        self.scenes, self.train_ids = scenes, train_ids
        self.decoder = Stage1.load(trained.path / "model", trained.config).to(default_device()).decoder
        self.codes = load_file(folder.upstream_path("codes") / "codes.safetensors")
        self.mean = torch.stack([self.codes[name] for name in train_ids]).mean(dim=0)
        self.sampled: dict[str, Tensor] = {}
        for chunk in sorted(folder.upstream_path("infer").glob("chunk-*/splats.safetensors")):
            self.sampled.update(load_file(chunk))
        self.conditions = {name: scenes[name].condition(RETRIEVAL_SIZE) for name in train_ids}

    def __call__(self, source: str, scene: Scene) -> Tensor:
        """Splats of `scene` from one of SOURCES."""
        if source == "sampled":
            return self.sampled[f"{scene.id}/splats"]
        if source == "autodecoder":
            return self._decode(self.codes[scene.id])
        if source == "mean_code":
            return self._decode(self.mean)
        return self._fitted(scene.id if source == "fitted" else self._nearest(scene))

    @torch.no_grad()
    def _decode(self, code: Tensor) -> Tensor:
        splats: Tensor = self.decoder(code[None].to(default_device()))[0].cpu()
        return splats

    def _fitted(self, name: str) -> Tensor:
        splats = self.scenes[name].splats
        if splats is None:
            raise RuntimeError(f"{name} has no fitted splats")
        return splats

    def _nearest(self, scene: Scene) -> str:
        """The other training object whose condition picture differs least (mean squared error)."""
        picture = scene.condition(RETRIEVAL_SIZE)
        others = [name for name in self.train_ids if name != scene.id] or self.train_ids
        return min(others, key=lambda name: float((self.conditions[name] - picture).square().mean()))


@torch.no_grad()
def render_pair(trained: StageFolder, scene: Scene, splats: Tensor, views: list[int]) -> Pictures:
    """Renders of splats from some views of a scene beside its pictures, on white."""
    device = default_device()
    output = trained.config.render.render(to_gaussians(splats[None]).to(device), scene.cameras(views).to(device))
    rgb, alpha = (x.to(device) for x in scene.pictures(views))
    return Pictures(output.over(1.0)[0].clamp(0, 1), on_white(rgb, alpha), output.alpha[0].clamp(0, 1), alpha)


class Usable:
    """The configured metrics; one that cannot be computed here is left out with its reason."""

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self.metrics = dict(metrics)
        self.missing: dict[str, str] = {}

    def __call__(self, pair: Pictures) -> dict[str, list[float | None]]:
        """Values by metric, one a view; None where the metric is missing."""
        values: dict[str, list[float | None]] = {}
        for name, metric in self.metrics.items():
            try:
                known = None if name in self.missing else metric.compute(pair).tolist()
            except UserError as error:
                self.missing[name], known = str(error), None
                log.warning("metric %s is left empty: %s", name, error)
            values[name] = known if known is not None else [None] * len(pair.rgb)
        return values

    def description(self) -> dict[str, Any]:
        """What the table needs to know of each metric."""
        fields = ("label", "unit", "higher_is_better", "reference")
        described = {name: {f: getattr(metric, f) for f in fields} for name, metric in self.metrics.items()}
        return {"metrics": described, "missing": self.missing}


def provenance() -> dict[str, Any]:
    """Package versions and the commit, where this is a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    installed = {distribution.name for distribution in distributions()}
    return {"versions": {name: version(name) for name in VERSIONS if name in installed}, "commit": commit}
