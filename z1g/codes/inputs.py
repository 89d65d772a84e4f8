"""Encoder inputs of objects on disk."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from z1g.data.scenes import Scene
from z1g.geometry.camera import FIXED_VIEWS, INPUT_VIEWS
from z1g.representations.codec import Codec


class InputScenes(Protocol):
    """Objects by id: a `SceneStore`, or its replacement in benchmarks."""

    def views(self, name: str, views: Sequence[int]) -> Scene:
        """An object with only these views, and its splats."""

    def seen(self, name: str, views: Sequence[int]) -> Scene:
        """An object with only these views, without splats."""


def encoder_inputs(codec: Codec, scenes: InputScenes, names: Sequence[str]) -> Tensor:
    """`Codec.inputs` of objects, on the CPU. Reads only the needed views, and splats only if the codec uses them."""
    read = scenes.views if codec.uses_splats else scenes.seen
    objects = [read(name, FIXED_VIEWS) for name in names]
    images = [scene.images(list(INPUT_VIEWS)) for scene in objects]
    splats = [scene.splats for scene in objects if scene.splats is not None]
    return codec.inputs(
        torch.stack([rgb for rgb, _ in images]),
        torch.stack([alpha for _, alpha in images]),
        torch.stack(splats) if len(splats) == len(objects) else None,
    )
