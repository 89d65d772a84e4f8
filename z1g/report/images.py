"""Images of the report: small WebP data URIs, each file embedded once."""

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageSequence

from z1g.core.recorded import checked
from z1g.report.collect import Ablation, MetricInfo, Results, shared_ids
from z1g.report.peers import Peer
from z1g.report.summary import Summary, decimals, object_means
from z1g.report.tables import number

MAX_OBJECTS = 12
MAX_ANIMATIONS = 60
ANIMATION_SIDE = 112
ANIMATION_FRAMES = 12
SHEET_SIDE = 240
THUMBNAIL_SIDE = 56


@dataclass(frozen=True)
class Tile:
    """One image with its caption. `uri` is None if there is none, for the reason `why`, or if it is at `same_as`."""

    label: str
    uri: str | None
    value: str = ""
    same_as: str = ""
    why: str = "no image"


@dataclass(frozen=True)
class ComparedObject:
    """One object: shared images, (sampled, autodecoder) of each ablation, images of other systems, turntables."""

    name: str
    split: str
    references: list[Tile]
    pairs: list[tuple[Tile, Tile]]
    peers: list[Tile]
    animations: list[Tile]


class Gallery:
    """The comparison images of a set of ablations."""

    def __init__(self, tree: Results, ablations: list[Ablation], summary: Summary) -> None:
        self.tree = tree
        self.ablations = [ablation for ablation in ablations if "metrics" in ablation.stages]
        self.metric, self.info = next(iter(summary.metrics.items()), ("", MetricInfo("")))
        self.digits = decimals(summary.merged, self.metric)
        self.peers = summary.peers
        self.splits = {
            row["object"]: row["split"] for a in self.ablations for row in tree.measurements(a.stages["metrics"]).rows
        }
        self.values = cache(self._values)

    def compared(self) -> list[ComparedObject]:
        """Objects of the comparison with all their images."""
        names = self.objects()
        n_images = len(names) * (3 + 2 * len(self.ablations) + len(self.peers))
        side = 192 if n_images <= 60 else 160 if n_images <= 120 else 128
        n_animated = MAX_ANIMATIONS // max(1, len(self.ablations))
        return [self._show(name, side, animated=index < n_animated) for index, name in enumerate(names)]

    def objects(self) -> list[str]:
        """Ids of the compared objects, test objects first. Of many, objects evenly spaced from worst to best."""
        chosen: list[str] = []
        unseen = MAX_OBJECTS // 4 if "test_unseen" in self.splits.values() else 0
        test = MAX_OBJECTS * 3 // 4 - unseen
        for split, limit in (("test", test), ("test_unseen", unseen), ("train", MAX_OBJECTS)):
            names = sorted(name for name, object_split in self.splits.items() if object_split == split)
            n_free = min(limit, MAX_OBJECTS - len(chosen))
            if len(names) > n_free:
                names = self._spread(names, n_free)
            chosen += names
        return chosen

    def thumbnail(self, origin: str | Peer, name: str) -> str | None:
        """A thumbnail of an object by a metrics id or another system, or None if the image is missing."""
        try:
            if isinstance(origin, Peer):
                return image_uri(origin.image(name), THUMBNAIL_SIDE, quality=60)
            file = self.tree.folder("metrics", origin) / "images" / f"{name}.sampled.png"
            return image_uri(checked(file), THUMBNAIL_SIDE, quality=60)
        except OSError:
            return None  # the comparison notes missing images

    def _show(self, name: str, side: int, animated: bool) -> ComparedObject:
        references = [self._tile(self.ablations[0], name, what, what, side) for what in ("condition", "truth")]
        for users in shared_ids(self.ablations, "fit").values():
            label = "fitted" if len(users) == len(self.ablations) else f"fitted, {', '.join(users)}"
            references.append(self._tile(self._named(users[0]), name, "fitted", label, side))
        pairs = [(self._tile(a, name, "sampled", a.name, side), self._decoded(a, name, side)) for a in self.ablations]
        peers = [self._output(peer, name, side) for peer in self.peers]
        turning = self._animations(name) if animated else []
        return ComparedObject(name, self.splits[name], references, pairs, peers, turning)

    def _decoded(self, ablation: Ablation, name: str, side: int) -> Tile:
        """The decoded true code. Ablations that share an autodecoder show it once."""
        identity = ablation.stages.get("autodecoder", "")
        first = shared_ids(self.ablations, "autodecoder").get(identity, [ablation.name])[0]
        if first != ablation.name:
            return Tile("true code", None, same_as=first)
        return self._tile(ablation, name, "autodecoder", "true code", side)

    def _output(self, peer: Peer, name: str, side: int) -> Tile:
        """What another system made of the object, or why that was not measured."""
        if why := peer.why_missing(name):
            return Tile(peer.label, None, why=why)
        value = object_means([row for row in peer.measured.rows if row["object"] == name], self.metric).get(name)
        try:
            uri = image_uri(peer.image(name), side)
        except OSError as error:
            self.tree.note(f"{peer.label}: the image of {name} cannot be read ({error})")
            uri = None
        return Tile(peer.label, uri, self._text(value))

    def _named(self, name: str) -> Ablation:
        return next(ablation for ablation in self.ablations if ablation.name == name)

    def _values(self, metrics_id: str, source: str) -> dict[str, float]:
        rows = [row for row in self.tree.measurements(metrics_id).rows if row["source"] == source]
        return object_means(rows, self.metric)

    def _spread(self, names: list[str], n: int) -> list[str]:
        scores = [self.values(a.stages["metrics"], "sampled") for a in self.ablations]
        totals = {name: sum(score.get(name, 0.0) for score in scores) for name in names}
        ranked = sorted(names, key=lambda name: (totals[name], name))
        return [ranked[round(i * (len(ranked) - 1) / max(1, n - 1))] for i in range(n)]

    def _tile(self, ablation: Ablation, name: str, what: str, label: str, side: int) -> Tile:
        metrics_id = ablation.stages["metrics"]
        value = self.values(metrics_id, what).get(name)
        file = self.tree.folder("metrics", metrics_id) / "images" / f"{name}.{what}.png"
        return Tile(label, self._embed(file, side), self._text(value))

    def _text(self, value: float | None) -> str:
        return "" if value is None else f"{number(value, self.digits)} {self.info.unit}".rstrip()

    def _animations(self, name: str) -> list[Tile]:
        """Each ablation's turntable, or its mosaic of six views if there is no turntable."""
        tiles = []
        for ablation in self.ablations:
            folder = self.tree.folder("infer", ablation.stages.get("infer", ""))
            for pattern in (f"chunk-*/{name}.turntable.webp", f"chunk-*/{name}.sheet.png"):
                file = next(folder.glob(pattern), None)
                uri = self._embed(file, SHEET_SIDE) if file else None
                if uri:
                    tiles.append(Tile(ablation.name, uri))
                    break
        return tiles

    def _embed(self, file: Path, side: int) -> str | None:
        try:
            checked(file)
            return animation_uri(file) if file.suffix == ".webp" else image_uri(file, side)
        except FileNotFoundError:
            self.tree.note(f"{file.relative_to(self.tree.root).parent}: some comparison images are missing")
        except OSError as error:
            self.tree.note(f"{file.relative_to(self.tree.root)} cannot be read ({error})")
        return None


def image_uri(file: Path, side: int, quality: int = 80) -> str:
    """A data URI of the image on white, at most `side` pixels wide and high."""
    with Image.open(file) as image:
        return encode([_on_white(image, side)], quality=quality)


def animation_uri(file: Path) -> str:
    """A data URI of a turntable at lower resolution and with fewer frames."""
    with Image.open(file) as image:
        n_frames = getattr(image, "n_frames", 1)
        step = -(-n_frames // ANIMATION_FRAMES)
        frames = [_on_white(f, ANIMATION_SIDE) for i, f in enumerate(ImageSequence.Iterator(image)) if i % step == 0]
        duration = int(image.info.get("duration", 100) or 100)
    return encode(frames, quality=60, duration=duration * step)


def _on_white(image: Image.Image, side: int) -> Image.Image:
    rgba = image.convert("RGBA")
    flat = Image.new("RGBA", rgba.size, "white")
    flat.alpha_composite(rgba)
    flat.thumbnail((side, side), Image.Resampling.LANCZOS)
    return flat.convert("RGB")


def encode(frames: list[Image.Image], quality: int, duration: int = 0) -> str:
    """A data URI of an image, or of an animation with `duration` ms per frame."""
    stream = io.BytesIO()
    options = (
        {"save_all": True, "append_images": frames[1:], "duration": duration, "loop": 0} if len(frames) > 1 else {}
    )
    frames[0].save(stream, "WEBP", quality=quality, method=4, **options)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
