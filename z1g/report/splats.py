"""Splats of the report: attributes as images, and a few objects packed for the viewer. Does not import torch."""

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

from z1g.core.errors import UserError
from z1g.core.recorded import checked, stage_folder
from z1g.gaussians.channels import CHANNELS, MIN_ALPHA
from z1g.geometry.camera import CameraOptions, view_frame
from z1g.render.web import pack, thin
from z1g.report.collect import Ablation, Results, shared_ids
from z1g.report.images import encode

Array = NDArray[np.float64]
MAX_ATTRIBUTE_OBJECTS, MAX_VIEWED_OBJECTS, MAX_VIEWED_SOURCES = 4, 2, 4
TILE = 40
POSITION, LOG_SCALE = 0.7, (-10.0, -2.0)
"""Ranges of the attribute images, as in the original: positions within ±0.7 and logarithms of scales."""
BUDGET = 120_000
"""Largest number of splats in the page, 16 bytes each."""


@dataclass(frozen=True)
class AttributeRow:
    """The splatter images of one object from one source, as one image of five mosaics."""

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
    """Splats of an object for the viewer: base64 of `pack`, their number, and the number of visible splats."""

    name: str
    label: str
    data: str
    n_packed: int
    n_visible: int


class Splats:
    """Reads splatter images [6,14,S,S] of objects from the stages' files."""

    def __init__(self, tree: Results, ablations: list[Ablation]) -> None:
        self.tree, self.ablations = tree, ablations

    def sources(self, name: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Labels and splatter images: the object's fitted splats and each ablation's sample, if available."""
        for identity, users in shared_ids(self.ablations, "fit").items():
            label = "fitted" if len(users) == len(self.ablations) else f"fitted, {', '.join(users)}"
            splats = self._fitted(self.tree.folder("fit", identity), name)
            if splats is not None:
                yield label, splats
        for ablation in self.ablations:
            if "infer" in ablation.stages:
                folder = self.tree.folder("infer", ablation.stages["infer"])
                splats = self._sampled(folder, f"{name}/splats")
                if splats is not None:
                    yield ablation.name, splats

    def _fitted(self, folder: Path, name: str) -> NDArray[np.float32] | None:
        """Splats of a fit, which are verified without reading those of other objects."""
        from z1g.data.splat_files import SplatFile  # imports torch

        for file in sorted(folder.glob("chunk-*.safetensors")):
            try:
                chunk = SplatFile(file)
                if name in chunk.ids:
                    return _splats(chunk.read(name).float().numpy())
            except UserError as error:
                if stage_folder(file) is not None:
                    raise
                self.tree.note(f"{file.relative_to(self.tree.root)} cannot be read ({error})")
        return None

    def _sampled(self, folder: Path, key: str) -> NDArray[np.float32] | None:
        for file in sorted(folder.glob("chunk-*/splats.safetensors")):
            try:
                with safe_open(checked(file), framework="numpy") as content:
                    if key in content.keys():  # noqa: SIM118
                        return _splats(content.get_tensor(key))
            except (OSError, SafetensorError, TypeError, ValueError) as error:
                self.tree.note(f"{file.relative_to(self.tree.root)} cannot be read ({error})")
        return None

    def attributes(self, objects: dict[str, str]) -> list[Attributes]:
        """Attribute images of the first few objects. `objects` maps ids to splits."""
        objects_with_rows = []
        for name, split in list(objects.items())[:MAX_ATTRIBUTE_OBJECTS]:
            rows = [AttributeRow(label, attribute_image(splats)) for label, splats in self.sources(name)]
            if rows:
                objects_with_rows.append(Attributes(name, split, rows))
        return objects_with_rows

    def models(self, objects: dict[str, str]) -> list[Model]:
        """Splats of the first few objects for the viewer, thinned to BUDGET in total."""
        candidates: list[tuple[str, str, Array]] = []
        for name in list(objects)[:MAX_VIEWED_OBJECTS]:
            sources = list(self.sources(name))[:MAX_VIEWED_SOURCES]
            candidates += [(name, f"{name}: {label}", _visible(splats)) for label, splats in sources]
        share = BUDGET // max(1, len(candidates))
        models = []
        for name, label, gaussians in candidates:
            kept = thin(gaussians, share)
            models.append(Model(name, label, base64.b64encode(pack(kept)).decode(), len(kept), len(gaussians)))
        return models

    def camera(self) -> CameraOptions:
        """Camera options of the first ablation, or the defaults if its configuration is missing."""
        config: dict[str, Any] = next((a.config["camera"] for a in self.ablations if "camera" in a.config), {})
        try:
            return CameraOptions.model_validate(config)
        except ValidationError:
            return CameraOptions()

    def frame(self) -> list[float]:
        """Rotation [9], row-major, from the y-up world frame to the frame of the splats."""
        camera = self.camera()
        rotation = view_frame(camera.poses(0), camera.radius)[:3, :3]
        return [round(float(x), 6) + 0.0 for x in rotation.flatten()]


def _splats(tensor: Any) -> NDArray[np.float32] | None:
    """Splatter images [6,14,S,S]; None for tensors of another shape."""
    splats = np.asarray(tensor, np.float32)
    return splats if splats.ndim == 4 and splats.shape[:2] == (6, 14) else None


def _visible(splats: NDArray[np.float32]) -> Array:
    """Gaussians [N,14] of splatter images [6,14,S,S] that are finite and not transparent."""
    gaussians = splats.transpose(0, 2, 3, 1).reshape(-1, 14).astype(np.float64)
    gaussians = gaussians[np.isfinite(gaussians).all(axis=1)]
    return gaussians[gaussians[:, CHANNELS["opacity"]][:, 0] >= MIN_ALPHA]


def attribute_image(splats: NDArray[np.float32]) -> str:
    """A data URI: position, opacity, scale, rotation and color side by side, each a 3×2 mosaic."""
    sheets = [_sheet(image) for image in attribute_maps(splats.astype(np.float64)).values()]
    gap = np.ones((sheets[0].shape[0], 4, 3))
    parts = [part for sheet in sheets for part in (sheet, gap)][:-1]
    joined = np.rint(np.concatenate(parts, axis=1) * 255).astype(np.uint8)
    return encode([Image.fromarray(joined)], quality=80)


def attribute_maps(splats: Array) -> dict[str, Array]:
    """Images [6,S,S,3] in 0..1 of the attributes of splatter images [6,14,S,S].

    position: ±0.7 as rgb. opacity: gray. scale: logarithms from −10 to −2 as rgb. rotation: rotation vectors (axis
    times angle), ±π as rgb. rgb: unchanged.
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
    """Tile six images [6,S,S,3] as a mosaic of 3 rows and 2 columns, each resized to TILE pixels."""
    small = [
        np.asarray(Image.fromarray(np.rint(p * 255).astype(np.uint8)).resize((TILE, TILE), Image.Resampling.BOX)) / 255
        for p in images
    ]
    return np.concatenate([np.concatenate(small[i : i + 2], axis=1) for i in (0, 2, 4)], axis=0)
