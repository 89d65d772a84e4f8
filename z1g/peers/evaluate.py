"""Measures a system's outputs against the true renders that our own results are measured against."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from z1g.config.peers import PeerOptions
from z1g.core.device import default_device, use_threads
from z1g.core.errors import UserError
from z1g.core.files import atomic_folder, write_jsonl
from z1g.core.progress import track
from z1g.core.sealed import write_sealed
from z1g.data.manifest import ObjectEntry
from z1g.data.scenes import SceneStore
from z1g.data.shards import shard_path
from z1g.geometry.camera import INPUT_VIEWS, Cameras, view_frame
from z1g.geometry.frames import FRAMES, Condition, Frame, to_world
from z1g.jobs.records import digests, provenance
from z1g.meshes.renderers.raster import Raster
from z1g.meshes.surface import surface_triangles
from z1g.metrics import DepthMaps, ImagePair, NotMeasurable, Shape
from z1g.peers.checks import require_not_mirrored, require_size
from z1g.peers.content import Content
from z1g.peers.cost import read_cost
from z1g.peers.listing import find_outputs, is_mesh, read_list
from z1g.peers.meshes import Drawer, read_mesh_content
from z1g.peers.registration import register
from z1g.peers.splats import read_splats
from z1g.peers.target import Target
from z1g.plan.folder import StageFolder
from z1g.plan.peers import require_planned
from z1g.plan.records import read_plan
from z1g.render.images import on_white, save_png, to_bytes
from z1g.report.peers import FILES, FOLDER, RECORD, SOURCE, peer_owner
from z1g.stages.infer import evaluated
from z1g.stages.measuring import TRUTH, Measure, Truth

log = logging.getLogger("z1g")


@dataclass(frozen=True)
class Given:
    """The true objects of a results folder and how its results are measured, by one of its planned ablations."""

    like: str
    folder: StageFolder
    scenes: SceneStore
    splits: dict[str, str]
    entries: dict[str, ObjectEntry]

    @classmethod
    def of(cls, results: Path, like: str) -> Given:
        """The objects that an ablation is measured on. Raises UserError if it is not there or has no metrics stage."""
        require_planned(results, like)
        stages = read_plan(results / "ablations" / like)["stages"]
        if "metrics" not in stages:
            raise UserError(f"ablation {like} of {results} has no metrics stage")
        folder = StageFolder.open(results / "metrics" / stages["metrics"])
        trained, ingest = folder.upstream_folder("autodecoder"), folder.upstream_path("ingest")
        absent = [c for c in range(folder.manifest().n_chunks) if not shard_path(ingest, c).is_file()]
        if absent:
            raise UserError(f"{ingest}: chunk {absent[0]} of the true renders is missing; run `snakemake` up to ingest")
        scenes = SceneStore(folder.manifest(), trained.config.camera.radius, ingest)
        splits = {name: str(split) for name, split in evaluated(folder)}
        return cls(like, folder, scenes, splits, {entry.id: entry for entry in folder.manifest().objects})

    @property
    def trained(self) -> StageFolder:
        """The folder whose configuration has cameras and the rasterizer."""
        return self.folder.upstream_folder("autodecoder")

    def truth(self, name: str) -> Truth:
        """The ground truth of an object."""
        data = self.folder.upstream_folder("ingest").config.data
        return Truth(self.scenes, self.entries[name], getattr(data, "limits", None), getattr(data, "roots", ()))


@dataclass
class Evaluator:
    """Measures the objects of one system; rows and reasons are collected in its fields."""

    given: Given
    frame: Frame
    registered: bool
    views: list[dict[str, Any]] = field(default_factory=list)
    objects: list[dict[str, Any]] = field(default_factory=list)
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    truth: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        trained = self.given.trained.config
        self.render, self.camera = trained.render, trained.camera
        self.test_views = list(trained.camera.test_ids)
        metrics = self.given.folder.config.metrics
        self.measure = Measure(metrics.metrics, metrics.protocol)
        self.test_views = self.measure.chosen(self.test_views)
        renderer = getattr(self.given.folder.upstream_folder("ingest").config.data, "renderer", None)
        self.drawer: Drawer | None = None
        self.light = renderer if isinstance(renderer, Raster) else Raster()

    def add(self, name: str, path: Path, images: Path) -> None:
        """Measure one object, and write its first test view. Raises UserError with the reason if that is impossible."""
        truth = self.given.truth(name)
        content = self.place(name, path, truth)
        pair = self.pair(content, truth)
        split = self.given.splits[name]
        save_png(to_bytes(pair.rgb[0]), images / f"{name}.{SOURCE}.png")
        head = {"object": name, "split": split, "source": SOURCE}
        values, azimuths = self.measure.views(pair), truth.azimuths_deg(self.test_views)
        for i, (view, azimuth) in enumerate(zip(self.test_views, azimuths, strict=True)):
            row = {**head, "view": view, "azimuth_deg": azimuth, **{m: x[i] for m, x in values.items()}}
            self.views.append(row)
        geometry = self.measure.object(name, self.shape(content, truth))
        self.objects.append({**head, **self.measure.pooled(pair), **geometry})
        self.measure.collect(split, SOURCE, pair.rgb)
        self.measure.collect(split, TRUTH, pair.rgb_true)
        self.truth[name], self.kinds[name] = truth.digest(self.test_views), content.kind

    def place(self, name: str, path: Path, truth: Truth) -> Content:
        """The content of a file in the world of the object, checked, and registered if that is wanted."""
        item, scene = truth.item, truth.scene
        longest = _longest_side(truth) if self.frame.size == "box" else 1.0
        condition = Condition.of(item.c2w[0], item.fov_y_deg, longest)
        mesh = is_mesh(path)
        if mesh and self.drawer is None:
            self.drawer = Drawer(self.light, int(scene.rgba.shape[1]))
        if mesh and self.drawer is not None:
            content: Content = read_mesh_content(path, self.drawer)
        else:
            content = read_splats(path, self.render, self.frame.color)
        content = content.moved(to_world(self.frame, condition, mesh))
        target = Target.of(item, list(self.camera.train_ids))
        if self.registered:
            content, found = register(content, target)
            self.found[name] = found.record()
        require_size(content, self.registered)
        require_not_mirrored(content, target, condition)
        return content

    def pair(self, content: Content, truth: Truth) -> ImagePair:
        """Images of the test views and the ground truth, on white."""
        drawn = content.draw(_cameras(truth, self.test_views))
        device = default_device()
        rgb, alpha = (x.to(device) for x in truth.scene.images(self.test_views))
        own_alpha = drawn.alpha.to(device).clamp(0, 1)
        own = (drawn.rgb.to(device) + 1 - drawn.alpha.to(device)).clamp(0, 1)
        return ImagePair(own, on_white(rgb, alpha), own_alpha, alpha)

    def shape(self, content: Content, truth: Truth) -> Shape:
        """Geometry in the view-1 frame."""
        to_view = torch.from_numpy(view_frame(truth.item.c2w, self.camera.radius))
        cloud = content.cloud()
        points = cloud.points.double().cpu() @ to_view[:3, :3].T + to_view[:3, 3]
        normals = cloud.normals.double().cpu() @ to_view[:3, :3].T
        depth = partial(_depth_maps, content, truth)
        return Shape(
            points, cloud.opacity.cpu(), truth.surface, depth, normals=normals, surface_normals=truth.surface_normals
        )


def evaluate(results: Path, name: str, options: PeerOptions, like: str, threads: int = 0) -> dict[str, Any]:
    """Measure a system's outputs; write `results/peers/<name>/` and return its record.

    Objects that cannot be measured are listed in the record with reasons. Raises UserError if no object can.
    """
    use_threads(threads)
    given, frame = Given.of(results, like), FRAMES[options.frame]
    wanted = _wanted(options, given)
    listed = find_outputs(Path(options.outputs), wanted, list(given.entries))
    evaluator = Evaluator(given, frame, frame.registers if options.registered is None else options.registered)
    problems = dict(listed.problems)
    folder = results / FOLDER / name
    with atomic_folder(folder / "images") as images:
        for object_id in track(list(wanted), f"peer {name}", len(wanted)):
            if object_id not in listed.files:
                continue
            if object_id not in given.scenes.ids:
                problems[object_id] = "it was not rendered: ingest quarantined it"
                continue
            try:
                evaluator.add(object_id, listed.files[object_id], images)
            except UserError as error:
                problems[object_id] = _short(str(error), listed.files[object_id])
        if not evaluator.objects:  # an earlier result stays as it is
            reasons = "\n".join(f"  {what}: {why}" for what, why in list(problems.items())[:20])
            raise UserError(f"no output in {options.outputs} could be measured:\n{reasons}")
    return _write(folder, name, options, evaluator, wanted, problems)


def _wanted(options: PeerOptions, given: Given) -> dict[str, str | None]:
    """The objects to measure, with the name of the file if the list gives one."""
    if options.objects is not None:
        return read_list(Path(options.objects), list(given.splits))
    return dict.fromkeys(given.splits)


def _write(
    folder: Path, name: str, options: PeerOptions, evaluator: Evaluator, wanted: Mapping[str, str | None],
    problems: Mapping[str, str],
) -> dict[str, Any]:  # fmt: skip
    """Write rows and the record, which has digests of the other files."""
    write_jsonl(folder / "objects.jsonl", evaluator.objects)
    write_jsonl(folder / "metrics.jsonl", evaluator.views)
    cost = options.cost or read_cost(Path(options.outputs))
    given = evaluator.given
    record = {
        **evaluator.measure.description(), "sets": evaluator.measure.sets(), "truth": evaluator.truth,
        "peer": name, "like": given.like, "measured_as": given.folder.id, "ingest": given.folder.upstream["ingest"],
        "frame": options.frame, "unknown": list(evaluator.frame.unknown), "registered": evaluator.registered,
        "registrations": evaluator.found, "kinds": evaluator.kinds, "n_evaluated": len(given.splits),
        "wanted": sorted(wanted), "problems": dict(problems), "cost": cost.model_dump() if cost else None,
        "outputs": options.outputs, "test_views": evaluator.test_views,
        "files": digests([folder / file for file in FILES], folder), **provenance(),
    }  # fmt: skip
    write_sealed(folder / RECORD, record, peer_owner(name))
    return record


def _cameras(truth: Truth, views: list[int]) -> Cameras:
    """Cameras [1,V] in the y-up world, at the resolution of the renders."""
    side = int(truth.scene.rgba.shape[1])
    poses = torch.from_numpy(truth.item.c2w[views]).float()[None]
    return Cameras(poses, truth.item.fov_y_deg, side, side)


def _depth_maps(content: Content, truth: Truth) -> DepthMaps:
    if truth.scene.depth is None:
        raise NotMeasurable("its data source has no depth")
    drawn = content.draw(_cameras(truth, list(INPUT_VIEWS)))
    return DepthMaps(drawn.depth[:, 0].cpu(), drawn.alpha[:, 0].cpu(), truth.scene.depth)


def _longest_side(truth: Truth) -> float:
    """Of the true object's bounding box, normalized units: of its mesh, or else of its depth or silhouettes."""
    try:
        if truth.limits is None:
            raise NotMeasurable("no mesh")
        points = surface_triangles(truth.item, truth.entry, truth.limits, truth.roots).reshape(-1, 3)
    except NotMeasurable:
        target = Target.of(truth.item, (), int(truth.scene.rgba.shape[1]))
        points = target.points()
    return float((points.max(axis=0) - points.min(axis=0)).max())


def _short(reason: str, path: Path) -> str:
    """A reason without the path of the file, which the record has."""
    return reason.replace(f"{path}: ", "").replace(f"{path} ", "it ")
