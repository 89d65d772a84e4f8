"""Views of the training objects: on the device, in host memory, or read from disk for every sample."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Literal, Protocol

import torch
from torch import Tensor

from z1g.core.device import free_gpu_memory
from z1g.core.errors import UserError
from z1g.core.progress import track
from z1g.data.scenes import Scene

Cache = Literal["auto", "device", "host", "none"]
AHEAD = 64
"""Objects read ahead."""
DEVICE_SHARE, HOST_SHARE = 0.4, 0.5
"""Fraction of free memory that a bank may use with `cache: auto`."""


class Scenes(Protocol):
    """Objects by id: a `SceneStore`, or its replacement in tests and benchmarks."""

    def __getitem__(self, name: str) -> Scene: ...

    def views(self, name: str, views: Sequence[int]) -> Scene:
        """An object with only these views, in the given order."""


class Views(Protocol):
    """Views of objects by index."""

    def take(self, index: int, views: Sequence[int]) -> dict[str, Tensor]:
        """Views of one object: rgba uint8 [V,H,W,4], c2w [V,4,4] and, if it has any, splats [6,14,S,S]."""


@dataclass(frozen=True)
class StoredViews:
    """Reads objects on demand."""

    scenes: Scenes
    ids: list[str]

    def take(self, index: int, views: Sequence[int]) -> dict[str, Tensor]:
        scene = self.scenes.views(self.ids[index], views)
        tensors = {"rgba": torch.from_numpy(scene.rgba), "c2w": scene.c2w}
        return tensors if scene.splats is None else {**tensors, "splats": scene.splats}


@dataclass(frozen=True)
class SceneBank:
    """All views of N objects: rgba uint8 [N,V,H,W,4], c2w [N,V,4,4], splats [N,6,14,S,S] or None."""

    rgba: Tensor
    c2w: Tensor
    splats: Tensor | None

    @classmethod
    def load(cls, scenes: Scenes, ids: Sequence[str], device: torch.device) -> SceneBank:
        """Read all objects in parallel. Raises UserError if they differ in size or number of views."""
        first = scenes[ids[0]]
        shape = first.rgba.shape
        rgba = torch.empty((len(ids), *shape), dtype=torch.uint8, device=device)
        c2w = torch.empty((len(ids), *first.c2w.shape), device=device)
        splats = None if first.splats is None else torch.empty((len(ids), *first.splats.shape), device=device)
        with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
            blocks = (ids[i : i + AHEAD] for i in range(0, len(ids), AHEAD))
            read = chain.from_iterable(pool.map(scenes.__getitem__, block) for block in blocks)
            for i, scene in enumerate(track(read, "reading objects", len(ids))):
                if scene.rgba.shape != shape or (scene.splats is None) != (splats is None):
                    raise UserError(
                        f"{scene.id} has images {list(scene.rgba.shape)}, but {first.id} has {list(shape)}; "
                        "objects of several sizes need train.cache: none and a batch size of 1"
                    )
                rgba[i] = torch.from_numpy(scene.rgba)
                c2w[i] = scene.c2w
                if splats is not None and scene.splats is not None:
                    splats[i] = scene.splats
        return cls(rgba, c2w, splats)

    def take(self, index: int, views: Sequence[int]) -> dict[str, Tensor]:
        """See `Views`."""
        tensors = {"rgba": self.rgba[index, list(views)], "c2w": self.c2w[index, list(views)]}
        return tensors if self.splats is None else {**tensors, "splats": self.splats[index]}

    def gather(self, index: Tensor, views: Tensor) -> dict[str, Tensor]:
        """Stacked results of `take` for objects [B] and their views [B,V], both on the bank's device."""
        rows = index[:, None]
        # A GPU copies pixels faster than single bytes.
        pixels = self.rgba.view(torch.int32)[rows, views].view(torch.uint8)
        tensors = {"rgba": pixels, "c2w": self.c2w[rows, views]}
        return tensors if self.splats is None else {**tensors, "splats": self.splats[index]}


def provide(
    cache: Cache, scenes: Scenes, ids: list[str], device: torch.device
) -> tuple[Views | None, SceneBank | None]:  # fmt: skip
    """Views for single samples, or None and a bank on the device from which whole batches are gathered."""
    place = placed(cache, scenes[ids[0]], len(ids), device)
    if place == "device":
        return None, SceneBank.load(scenes, ids, device)
    if place == "host":
        return SceneBank.load(scenes, ids, torch.device("cpu")), None
    return StoredViews(scenes, ids), None


def placed(cache: Cache, scene: Scene, n: int, device: torch.device) -> Literal["device", "host", "none"]:
    """Place of a bank of `n` objects like `scene`: as requested or, with `auto`, the first with enough free memory."""
    if cache != "auto":
        return cache
    needed = n * (scene.rgba.nbytes + (0 if scene.splats is None else scene.splats.nbytes))
    if device.type == "cuda" and needed < DEVICE_SHARE * free_gpu_memory(device):
        return "device"
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "host" if needed * ranks < HOST_SHARE * free else "none"
