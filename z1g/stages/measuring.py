"""Computes metrics of renders and shapes for every source of splats; used by stage `metrics` and by `verify`."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from z1g.core.device import default_device
from z1g.core.errors import UserError
from z1g.core.progress import track
from z1g.data.manifest import ObjectEntry
from z1g.data.scenes import Scene, SceneStore
from z1g.data.sealed_tensors import read_output
from z1g.data.shards import RenderedObject
from z1g.gaussians.channels import CHANNELS, to_gaussians
from z1g.gaussians.finite import require_finite
from z1g.gaussians.rotations import shortest_axes
from z1g.geometry.camera import CONDITION_VIEW, INPUT_VIEWS, view_frame
from z1g.meshes.limits import FileLimits
from z1g.meshes.surface import surface_samples
from z1g.metrics import DepthMaps, ImagePair, Metric, NotMeasurable, ObjectMetric, SetMetric, Shape, ViewMetric
from z1g.metrics.protocols import Own, Protocol
from z1g.plan.folder import StageFolder
from z1g.render.images import on_white

if TYPE_CHECKING:
    from z1g.config.tree import Experiment

log = logging.getLogger("z1g")
SOURCES = ("sampled", "autodecoder", "mean_code", "nearest", "fitted")
"""The method, stage 1 on true codes (upper bound of stage 2), two baselines, and fitted splats (upper bound)."""
MADE_BY = {"sampled": "infer", "autodecoder": "codes", "mean_code": "codes", "nearest": "fit", "fitted": "fit"}
"""The stage that each source comes from."""
TRUTH = "truth"
RETRIEVAL_SIZE, RETRIEVED_AT_ONCE = 64, 4096


class Sources:
    """Splatter images [6,14,S,S] of objects by source."""

    def __init__(self, folder: StageFolder, trained: StageFolder, scenes: SceneStore, train_ids: list[str]) -> None:
        self.scenes, self.train_ids = scenes, train_ids
        self.folders = {source: folder.upstream_path(stage) for source, stage in MADE_BY.items()}
        self.codec = trained.config.load_codec(trained.path / "model").for_inference(default_device())
        self.codes = read_output(folder.upstream_path("codes") / "codes.safetensors")
        self.mean = torch.stack([self.codes[name] for name in train_ids]).mean(dim=0)
        self.sampled: dict[str, Tensor] = {}
        for chunk in sorted(folder.upstream_path("infer").glob("chunk-*")):
            self.sampled.update(read_output(chunk / "splats.safetensors"))

    @cached_property
    def conditions(self) -> Tensor:
        """Condition images [N,3,RETRIEVAL_SIZE,RETRIEVAL_SIZE] of the training objects."""
        names = track(self.train_ids, "conditions of training objects", len(self.train_ids))
        images = [self.scenes.seen(name, [CONDITION_VIEW]).condition(RETRIEVAL_SIZE) for name in names]
        return torch.stack(images).to(default_device())

    def __call__(self, source: str, scene: Scene) -> Tensor:
        """Return the splats of `scene` from one of SOURCES. Raises UserError if they are not finite."""
        splats = self._of(source, scene)
        where = f"{self.folders[source]}: {source} splats of {scene.id}"
        require_finite(to_gaussians(splats[None])[0], where, "make this stage's results again")
        return splats

    def _of(self, source: str, scene: Scene) -> Tensor:
        if source == "sampled":
            return self._sampled(scene.id)
        if source == "autodecoder":
            return self._decode(self.codes[scene.id])
        if source == "mean_code":
            return self._decode(self.mean)
        return self._fitted(scene.id if source == "fitted" else self._nearest(scene))

    def _sampled(self, name: str) -> Tensor:
        if f"{name}/splats" not in self.sampled:
            raise UserError(
                f"{self.folders['sampled']} has no samples of {name}: a chunk of it is lost; start `snakemake` again "
                "to make it again"
            )
        return self.sampled[f"{name}/splats"]

    @torch.no_grad()
    def _decode(self, code: Tensor) -> Tensor:
        return self.codec.decode(code[None].to(default_device()))[0].cpu()

    def _fitted(self, name: str) -> Tensor:
        splats = self.scenes.splats(name)
        if splats is None:
            raise RuntimeError(f"{name} has no fitted splats")
        return splats

    def _nearest(self, scene: Scene) -> str:
        """The other training object with the most similar condition image (least mean squared error)."""
        image = scene.condition(RETRIEVAL_SIZE).to(self.conditions)
        parts = self.conditions.split(RETRIEVED_AT_ONCE)
        differences = torch.cat([(part - image).square().mean(dim=(1, 2, 3)) for part in parts])
        if scene.id in self.train_ids and len(self.train_ids) > 1:
            differences[self.train_ids.index(scene.id)] = torch.inf
        return self.train_ids[int(differences.argmin())]


class Truth:
    """Ground truth of one object: scene, surface points and camera azimuths."""

    def __init__(
        self, scenes: SceneStore, entry: ObjectEntry, limits: FileLimits | None, roots: Sequence[str] = ()
    ) -> None:
        self.scene, self.item = scenes[entry.id], scenes.rendered(entry.id)
        self.entry, self.limits, self.roots = entry, limits, roots
        self._samples = cache(self._sampled)

    def surface(self, n: int) -> Tensor:
        """Points [n,3] of the source mesh in the view-1 frame. Raises NotMeasurable if there is none."""
        return self._samples(n)[0]

    def surface_normals(self, n: int) -> Tensor:
        """Unit normals [n,3] at the points of `surface(n)`."""
        return self._samples(n)[1]

    def _sampled(self, n: int) -> tuple[Tensor, Tensor]:
        if self.limits is None:
            raise NotMeasurable("its data source has renders only, no mesh")
        frame = view_frame(self.item.c2w, float(np.linalg.norm(self.scene.c2w[INPUT_VIEWS[0], :3, 3].numpy())))
        points, normals = surface_samples(self.item, self.entry, self.limits, n, self.roots)
        return torch.from_numpy(points @ frame[:3, :3].T + frame[:3, 3]), torch.from_numpy(normals @ frame[:3, :3].T)

    def azimuths_deg(self, views: list[int]) -> list[float]:
        """Azimuth distance of each view from the condition view, 0 to 180 degrees."""
        return azimuth_distances(self.item, views)

    def digest(self, views: list[int]) -> str:
        """Digest of the views' ground-truth pixels and poses. Equal digests mean equal test sets."""
        digest = hashlib.sha256(np.ascontiguousarray(self.item.rgba[views]).tobytes())
        digest.update(np.ascontiguousarray(self.item.c2w[views].round(6) + 0.0).tobytes())
        return digest.hexdigest()[:16]


def azimuth_distances(item: RenderedObject, views: list[int]) -> list[float]:
    """Absolute difference in azimuth from the condition view, 0..180 degrees. Cameras are in the y-up world frame."""
    positions = item.c2w[:, :3, 3]
    azimuths = np.degrees(np.arctan2(positions[:, 0], positions[:, 2]))
    turned = (azimuths[views] - azimuths[CONDITION_VIEW] + 180) % 360 - 180
    return [round(abs(float(x)), 3) for x in turned]


@torch.no_grad()
def render_pair(
    config: Experiment, scene: Scene, splats: Tensor, views: list[int], shared: dict[Any, Any] | None = None
) -> ImagePair:
    """Renders of splats [6,14,S,S] and ground-truth images of the given views of a scene, on white.

    config: that of stage 1. shared: of further pairs of the same views of the scene, see `ImagePair`.
    """
    device = default_device()
    output = config.render.render(to_gaussians(splats[None]).to(device), scene.cameras(views).to(device))
    rgb, alpha = (x.to(device) for x in scene.images(views))
    own, own_alpha = output.over(1.0)[0].clamp(0, 1), output.alpha[0].clamp(0, 1)
    return ImagePair(own, on_white(rgb, alpha), own_alpha, alpha, shared={} if shared is None else shared)


def shape(trained: StageFolder, truth: Truth, splats: Tensor) -> Shape:
    """Geometry of splats [6,14,S,S] and ground truth for object metrics."""
    gaussians = to_gaussians(splats[None])
    points, opacity = gaussians[0, :, CHANNELS["position"]], gaussians[0, :, CHANNELS["opacity"]][:, 0]
    depth = partial(_depth_maps, trained, truth.scene, gaussians)
    normals = shortest_axes(gaussians[0])
    return Shape(points, opacity, truth.surface, depth, normals=normals, surface_normals=truth.surface_normals)


@torch.no_grad()
def _depth_maps(trained: StageFolder, scene: Scene, gaussians: Tensor) -> DepthMaps:
    if scene.depth is None:
        raise NotMeasurable("its data source has no depth")
    device = default_device()
    output = trained.config.render.render(gaussians.to(device), scene.cameras(list(INPUT_VIEWS)).to(device))
    return DepthMaps(output.depth[0, :, 0], output.alpha[0, :, 0], scene.depth.to(device))


class Measure:
    """Computes the configured metrics by a protocol. Values that cannot be computed are None, with a recorded reason.

    Names of metrics are those of the protocol's columns.

    `missing` has metrics without any value: {metric: reason}. `gaps` has objects without a value:
    {metric: {object: reason}}.
    """

    def __init__(self, metrics: Mapping[str, Metric], protocol: Protocol | None = None) -> None:
        self.protocol = protocol or Own()
        self.metrics = {self.protocol.column(name): metric for name, metric in metrics.items()}
        self.missing: dict[str, str] = {}
        self.gaps: dict[str, dict[str, str]] = {}
        self._features: dict[str, dict[tuple[str, str], list[Tensor]]] = {}

    def chosen(self, views: Sequence[int]) -> list[int]:
        """The views of the protocol among the test views."""
        return list(views[: self.protocol.choices.views])

    def views(self, pair: ImagePair) -> dict[str, list[float | None]]:
        """Values of the view metrics, one per view of the protocol. Values of missing metrics are None."""
        if self.protocol.choices.pooling == "object":
            return {}
        seen = self._prepared(pair)
        values: dict[str, list[float | None]] = {}
        for name, metric in self._of(ViewMetric):
            values[name] = [None] * len(seen.rgb)
            try:
                if name not in self.missing:
                    values[name] = [_finite(x) for x in metric.compute(seen).tolist()]
            except UserError as error:
                self._leave_out(name, error)
        return values

    def pooled(self, pair: ImagePair) -> dict[str, float | None]:
        """Values of the view metrics for all views of an object together, where the protocol has them so."""
        if self.protocol.choices.pooling == "views":
            return {}
        seen = self._prepared(pair)
        values: dict[str, float | None] = {}
        for name, metric in self._of(ViewMetric):
            values[name] = None
            try:
                if name not in self.missing:
                    values[name] = _finite(metric.pooled(seen))
            except UserError as error:
                self._leave_out(name, error)
        return values

    def _prepared(self, pair: ImagePair) -> ImagePair:
        try:
            return self.protocol.prepared(pair)
        except ValueError as error:
            raise UserError(f"metrics.protocol: {error}; increase camera.test_views") from error

    def object(self, name: str, geometry: Shape) -> dict[str, float | None]:
        """Values of the object metrics, None if the object has no value or the metric is missing."""
        values: dict[str, float | None] = {}
        for key, metric in self._of(ObjectMetric):
            values[key] = None
            try:
                if key not in self.missing and name not in self.gaps.get(key, {}):
                    values[key] = _finite(metric.compute(geometry))
            except NotMeasurable as error:
                self.gaps.setdefault(key, {})[name] = str(error)
            except UserError as error:
                self._leave_out(key, error)
        return values

    def collect(self, split: str, source: str, rgb: Tensor) -> None:
        """Add features of one object's images [V,3,H,W] for the set metrics. The source TRUTH is the reference set."""
        rgb = rgb[: self.protocol.choices.views]
        for name, metric in self._of(SetMetric):
            try:
                if name not in self.missing:
                    features = metric.features(rgb).cpu()
                    self._features.setdefault(name, {}).setdefault((split, source), []).append(features)
            except UserError as error:
                self._leave_out(name, error)

    def sets(self) -> list[dict[str, Any]]:
        """Values of the set metrics: one row per split and source, with the number of images."""
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for name, metric in self._of(SetMetric):
            sets = {} if name in self.missing else self._features.get(name, {})
            for (split, source), features in sets.items():
                if source == TRUTH:
                    continue
                ours, true = torch.cat(features), torch.cat(sets[split, TRUTH])
                row = rows.setdefault((split, source), {"split": split, "source": source, "images": len(ours)})
                row[name] = _finite(metric.distance(ours, true)) if len(ours) > 1 else None
        return list(rows.values())

    def description(self) -> dict[str, Any]:
        """Description of each metric, and the reasons for missing values."""
        fields = ("label", "unit", "higher_is_better", "reference", "scope")
        described = {name: {f: getattr(metric, f) for f in fields} for name, metric in self.metrics.items()}
        for name, metric in self.metrics.items():
            described[name]["label"] = self.protocol.label(metric.label)
            if metric.scope == "view" and self.protocol.choices.pooling == "object":
                described[name]["scope"] = "object"
        made = asdict(self.protocol.choices)
        protocol = {"key": self.protocol.key, "kind": self.protocol.kind, **made, "facts": self.protocol.facts}  # type: ignore[attr-defined]
        named = {"protocol": protocol} if self.protocol.key else {}
        return {"metrics": described, "missing": self.missing, "gaps": self.gaps, **named}

    def _of(self, scope: type[Any]) -> list[tuple[str, Any]]:
        return [(name, metric) for name, metric in self.metrics.items() if isinstance(metric, scope)]

    def _leave_out(self, name: str, error: UserError) -> None:
        self.missing[name] = str(error)
        log.warning("metric %s cannot be computed: %s", name, error)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
