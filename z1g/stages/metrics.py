"""Stage `metrics`: evaluate samples, upper bounds and baselines on test views."""

from pathlib import Path
from typing import Any

from z1g.core.device import use_threads
from z1g.core.files import atomic_folder, write_json, write_jsonl
from z1g.core.progress import track
from z1g.jobs.records import provenance
from z1g.plan.folder import StageFolder
from z1g.render.images import on_white, save_png, to_bytes
from z1g.stages.autodecoder import training_scenes
from z1g.stages.infer import evaluated
from z1g.stages.measuring import SOURCES, TRUTH, Measure, Sources, Truth, render_pair, shape


def run(folder: StageFolder, threads: int) -> None:
    """Evaluate all objects; write metrics of views, objects and sets, and `images/`."""
    use_threads(threads)
    measured = Measured(folder)
    objects = [(name, split) for name, split in evaluated(folder) if name in measured.scenes.ids]
    with atomic_folder(folder.path / "images") as images:
        for name, split in track(objects, "metrics", len(objects)):
            measured.add(name, split, images)
    write_json(folder.path / "metrics.json", measured.about())
    write_jsonl(folder.path / "objects.jsonl", measured.objects)
    write_jsonl(folder.path / "metrics.jsonl", measured.views)


class Measured:
    """Collects the results of a metrics stage.

    `views` has one row per object, source and test view, with the view's azimuth distance from the condition. `objects`
    has one row per object and source. `truth` has a digest of each object's test images.
    """

    def __init__(self, folder: StageFolder) -> None:
        self.trained = folder.upstream_folder("autodecoder")
        self.scenes, train_ids = training_scenes(self.trained)
        self.sources = Sources(folder, self.trained, self.scenes, train_ids)
        self.test_views = list(self.trained.config.camera.test_ids)
        self.measure = Measure(folder.config.metrics.metrics, folder.config.metrics.protocol)
        self.test_views = self.measure.chosen(self.test_views)
        self.entries = {entry.id: entry for entry in folder.manifest().objects}
        data = folder.upstream_folder("ingest").config.data
        self.limits, self.roots = getattr(data, "limits", None), getattr(data, "roots", ())
        self.views: list[dict[str, Any]] = []
        self.objects: list[dict[str, Any]] = []
        self.truth: dict[str, str] = {}

    def add(self, name: str, split: str, images: Path | None = None) -> None:
        """Evaluate one object. If `images` is a folder, write images of the first test view to it."""
        truth = Truth(self.scenes, self.entries[name], self.limits, self.roots)
        scene, azimuths = truth.scene, truth.azimuths_deg(self.test_views)
        self.truth[name] = truth.digest(self.test_views)
        if images:
            for what, views in (("condition", [0]), ("truth", self.test_views[:1])):
                save_png(to_bytes(on_white(*scene.images(views))[0]), images / f"{name}.{what}.png")
        shared: dict[Any, Any] = {}
        for source in SOURCES:
            splats = self.sources(source, scene)
            pair = render_pair(self.trained.config, scene, splats, self.test_views, shared)
            if images:
                save_png(to_bytes(pair.rgb[0]), images / f"{name}.{source}.png")
            head = {"object": name, "split": split, "source": source}
            values = self.measure.views(pair)
            for i, (view, azimuth) in enumerate(zip(self.test_views, azimuths, strict=True)):
                self.views.append(
                    {**head, "view": view, "azimuth_deg": azimuth, **{m: x[i] for m, x in values.items()}}
                )
            geometry = self.measure.object(name, shape(self.trained, truth, splats))
            self.objects.append({**head, **self.measure.pooled(pair), **geometry})
            self.measure.collect(split, source, pair.rgb)
        self.measure.collect(split, TRUTH, pair.rgb_true)

    def about(self) -> dict[str, Any]:
        """Descriptions of metrics, missing values, metrics of sets, digests of test images, and provenance."""
        sets = self.measure.sets()
        return {**self.measure.description(), "sets": sets, "truth": self.truth, **provenance()}
