"""Splats inside the page: their attributes as images, and a few objects packed for the viewer. No torch."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from z1g.gaussians.channels import CHANNELS, MIN_ALPHA
from z1g.geometry.camera import CameraOptions, view_frame
from z1g.report.collect import Ablation, Results, shared_ids
from z1g.report.images import encode

Array = NDArray[np.float64]
MAX_ATTRIBUTE_OBJECTS, MAX_VIEWED_OBJECTS, MAX_VIEWED_SOURCES = 4, 2, 4
TILE = 40
POSITION, LOG_SCALE = 0.7, (-10.0, -2.0)
"""Ranges of the attributes' images: positions of ±0.7 and logarithms of scales, as the method's authors draw them."""
BUDGET = 120_000
"""Splats in the page, 16 bytes each."""
SPAN, LOG_MIN, LOG_SPAN = 2.0, -10.0, 10.0
"""What 16 bits of a position and 8 bits of a scale's logarithm span in the viewer's packing."""


@dataclass(frozen=True)
class AttributeRow:
    """One object's splatter images from one source, as one image of five sheets."""

    label: str
    uri: str


@dataclass(frozen=True)
class Attributes:
    """The splatter images of one object from all sources."""

    name: str
    split: str
    rows: list[AttributeRow]


@dataclass(frozen=True)
class Model:
    """Splats for the viewer: base64 of `pack`, how many, of how many visible ones."""

    label: str
    data: str
    shown: int
    visible: int


class Splats:
    """Reads splatter images [6,14,S,S] of objects from the stages' files."""

    def __init__(self, tree: Results, ablations: list[Ablation]) -> None:
        self.tree, self.ablations = tree, ablations

    def sources(self, name: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """The object's fitted splats, then each ablation's samples; those that are there."""
        for identity, users in shared_ids(self.ablations, "fit").items():
            label = "fitted" if len(users) == len(self.ablations) else f"fitted, {', '.join(users)}"
            found = self._read(self.tree.folder("fit", identity), "chunk-*.safetensors", name)
            if found is not None:
                yield label, found
        for ablation in self.ablations:
            if "infer" in ablation.stages:
                folder = self.tree.folder("infer", ablation.stages["infer"])
                found = self._read(folder, "chunk-*/splats.safetensors", f"{name}/splats")
                if found is not None:
                    yield ablation.name, found

    def _read(self, folder: Path, pattern: str, key: str) -> NDArray[np.float32] | None:
        for file in sorted(folder.glob(pattern)):
            try:
                with safe_open(file, framework="numpy") as content:
                    if key in content.keys():  # noqa: SIM118
                        splats = np.asarray(content.get_tensor(key), np.float32)
                        return splats if splats.ndim == 4 and splats.shape[:2] == (6, 14) else None
            except (OSError, SafetensorError, TypeError, ValueError) as error:
                self.tree.note(f"{file.relative_to(self.tree.root)} cannot be shown ({error})")
        return None

    def attributes(self, objects: dict[str, str]) -> list[Attributes]:
        """Images of the splatter images of the first few of some objects, each given with its split."""
        found = []
        for name, split in list(objects.items())[:MAX_ATTRIBUTE_OBJECTS]:
            rows = [AttributeRow(label, attribute_image(splats)) for label, splats in self.sources(name)]
            if rows:
                found.append(Attributes(name, split, rows))
        return found

    def models(self, objects: dict[str, str]) -> list[Model]:
        """The first few objects' splats for the viewer, thinned where they are more than the page should carry."""
        known: list[tuple[str, Array]] = []
        for name in list(objects)[:MAX_VIEWED_OBJECTS]:
            some = list(self.sources(name))[:MAX_VIEWED_SOURCES]
            known += [(f"{name}: {label}", _visible(splats)) for label, splats in some]
        share = BUDGET // max(1, len(known))
        models = []
        for label, gaussians in known:
            kept = thin(gaussians, share)
            models.append(Model(label, base64.b64encode(pack(kept)).decode(), len(kept), len(gaussians)))
        return models

    def camera(self) -> CameraOptions:
        """The first ablation's cameras, or the default ones where its configuration is not there."""
        config: dict[str, Any] = next((a.config["camera"] for a in self.ablations if "camera" in a.config), {})
        try:
            return CameraOptions.model_validate(config)
        except ValidationError:
            return CameraOptions()

    def frame(self) -> list[float]:
        """Rotation [9], row-major, from the y-up world into the frame of the splats."""
        camera = self.camera()
        rotation = view_frame(camera.poses(0), camera.radius)[:3, :3]
        return [round(float(x), 6) + 0.0 for x in rotation.flatten()]


def _visible(splats: NDArray[np.float32]) -> Array:
    """Gaussians [N,14] of splatter images that a rasterizer would draw."""
    gaussians = splats.transpose(0, 2, 3, 1).reshape(-1, 14).astype(np.float64)
    gaussians = gaussians[np.isfinite(gaussians).all(axis=1)]
    return gaussians[gaussians[:, CHANNELS["opacity"]][:, 0] >= MIN_ALPHA]


def thin(gaussians: Array, limit: int) -> Array:
    """At most `limit` Gaussians [N,14], evenly drawn; those that stay grow to cover what the others did."""
    if len(gaussians) <= limit:
        return gaussians
    kept = gaussians[np.random.default_rng(0).permutation(len(gaussians))[:limit]]
    kept[:, CHANNELS["scale"]] *= (len(gaussians) / limit) ** 0.5
    return kept


def pack(gaussians: Array) -> bytes:
    """16 bytes a Gaussian, little-endian: position 3×u16, log scale 3×u8, quaternion x y z 3×u8 (w ≥ 0), rgba 4×u8."""
    out = np.zeros(
        len(gaussians), np.dtype([("position", "<u2", 3), ("scale", "u1", 3), ("rotation", "u1", 3), ("rgba", "u1", 4)])
    )
    rotation = gaussians[:, CHANNELS["rotation"]]
    rotation = rotation / np.maximum(np.linalg.norm(rotation, axis=1, keepdims=True), 1e-12)
    rotation = np.where(rotation[:, :1] < 0, -rotation, rotation)
    rgba = np.concatenate([gaussians[:, CHANNELS["rgb"]], gaussians[:, CHANNELS["opacity"]]], axis=1)
    scale = np.log(np.maximum(gaussians[:, CHANNELS["scale"]], 1e-12))
    out["position"] = _levels(gaussians[:, CHANNELS["position"]] / SPAN + 0.5, 65535)
    out["scale"] = _levels((scale - LOG_MIN) / LOG_SPAN, 255)
    out["rotation"] = _levels(rotation[:, 1:] / 2 + 0.5, 255)
    out["rgba"] = _levels(rgba, 255)
    return out.tobytes()


def _levels(values: Array, top: int) -> Array:
    levels: Array = np.rint(np.clip(values, 0, 1) * top)
    return levels


def attribute_image(splats: NDArray[np.float32]) -> str:
    """A data URI: position, opacity, scale, rotation and color side by side, each a 3×2 sheet of the six views."""
    sheets = [_sheet(image) for image in attribute_maps(splats.astype(np.float64)).values()]
    gap = np.ones((sheets[0].shape[0], 4, 3))
    parts = [part for sheet in sheets for part in (sheet, gap)][:-1]
    joined = np.rint(np.concatenate(parts, axis=1) * 255).astype(np.uint8)
    return encode([Image.fromarray(joined)], quality=80)


def attribute_maps(splats: Array) -> dict[str, Array]:
    """Images [6,S,S,3] in 0..1 of the attributes of splatter images [6,14,S,S].

    position: ±0.7 as rgb. opacity: gray. scale: logarithms from −10 to −2 as rgb. rotation: the vector along the axis
    whose length is the angle, ±π as rgb. rgb as it is.
    """
    last = splats.transpose(0, 2, 3, 1)
    position, scale = last[..., CHANNELS["position"]], np.log(np.maximum(last[..., CHANNELS["scale"]], 1e-12))
    quaternion = last[..., CHANNELS["rotation"]]
    quaternion = quaternion * np.where(quaternion[..., :1] < 0, -1.0, 1.0)
    axis = quaternion[..., 1:]
    length = np.linalg.norm(axis, axis=-1, keepdims=True)
    turned = axis / np.maximum(length, 1e-12) * 2 * np.arctan2(length, quaternion[..., :1])
    low, high = LOG_SCALE
    maps = {
        "position": position / (2 * POSITION) + 0.5,
        "opacity": np.repeat(last[..., CHANNELS["opacity"]], 3, axis=-1),
        "scale": (scale - low) / (high - low),
        "rotation": turned / (2 * np.pi) + 0.5,
        "rgb": last[..., CHANNELS["rgb"]],
    }
    return {name: np.clip(np.nan_to_num(image), 0, 1) for name, image in maps.items()}


def _sheet(images: Array) -> Array:
    """Six images [6,S,S,3] as a sheet of 3 rows and 2 columns, small."""
    small = [
        np.asarray(Image.fromarray(np.rint(p * 255).astype(np.uint8)).resize((TILE, TILE), Image.Resampling.BOX)) / 255
        for p in images
    ]
    return np.concatenate([np.concatenate(small[i : i + 2], axis=1) for i in (0, 2, 4)], axis=0)
