"""What training sees of its objects, ready to be indexed: on the device, in memory, or read for every sample anew."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Literal, Protocol

import torch
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.progress import track
from z1g.data.scenes import Scene

Cache = Literal["auto", "device", "host", "none"]
AHEAD = 64
"""Objects read before they are needed."""
DEVICE_SHARE, HOST_SHARE = 0.4, 0.5
"""How much of what is free a bank may take where nobody said where it goes."""


class Scenes(Protocol):
    """Objects by id: a `SceneStore`, or what a test or measurement puts in its place."""

    def __getitem__(self, name: str) -> Scene: ...

    def views(self, name: str, views: Sequence[int]) -> Scene:
        """An object with just these views, in the order given."""


class Views(Protocol):
    """Views of objects by number."""

    def take(self, index: int, views: Sequence[int]) -> dict[str, Tensor]:
        """Of one object: rgba uint8 [V,H,W,4], c2w [V,4,4] and, where there are any, splats [6,14,S,S]."""


@dataclass(frozen=True)
class StoredViews:
    """Reads objects when they are asked for."""

    scenes: Scenes
    ids: list[str]

    def take(self, index: int, views: Sequence[int]) -> dict[str, Tensor]:
        scene = self.scenes.views(self.ids[index], views)
        found = {"rgba": torch.from_numpy(scene.rgba), "c2w": scene.c2w}
        return found if scene.splats is None else {**found, "splats": scene.splats}


@dataclass(frozen=True)
class SceneBank:
    """All views of N objects: rgba uint8 [N,V,H,W,4], c2w [N,V,4,4], splats [N,6,14,S,S] or None."""

    rgba: Tensor
    c2w: Tensor
    splats: Tensor | None

    @classmethod
    def load(cls, scenes: Scenes, ids: Sequence[str], device: torch.device) -> SceneBank:
        """Read all objects, several at a time. Raises UserError where they differ in size or number of views."""
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
                        f"{scene.id} has images {list(scene.rgba.shape)} where {first.id} has {list(shape)}; "
                        "objects of several sizes need train.cache: none and a batch of one"
                    )
                rgba[i] = torch.from_numpy(scene.rgba)
                c2w[i] = scene.c2w
                if splats is not None and scene.splats is not None:
                    splats[i] = scene.splats
        return cls(rgba, c2w, splats)

    def take(self, index: int, views: Sequence[int]) -> dict[str, Tensor]:
        """See `Views`."""
        found = {"rgba": self.rgba[index, list(views)], "c2w": self.c2w[index, list(views)]}
        return found if self.splats is None else {**found, "splats": self.splats[index]}

    def gather(self, index: Tensor, views: Tensor) -> dict[str, Tensor]:
        """Of objects [B] and their views [B,V], both on the bank's device: what `take` gives, stacked."""
        rows = index[:, None]
        found = {"rgba": self.rgba[rows, views], "c2w": self.c2w[rows, views]}
        return found if self.splats is None else {**found, "splats": self.splats[index]}


def provide(
    cache: Cache, scenes: Scenes, ids: list[str], device: torch.device
) -> tuple[Views | None, SceneBank | None]:  # fmt: skip
    """Where samples take their views from, or None and the bank on the device from which whole batches are gathered."""
    place = placed(cache, scenes[ids[0]], len(ids), device)
    if place == "device":
        return None, SceneBank.load(scenes, ids, device)
    if place == "host":
        return SceneBank.load(scenes, ids, torch.device("cpu")), None
    return StoredViews(scenes, ids), None


def placed(cache: Cache, scene: Scene, n: int, device: torch.device) -> Literal["device", "host", "none"]:
    """Where a bank of `n` objects like `scene` goes: as asked or, on `auto`, to the nearest place with room for it."""
    if cache != "auto":
        return cache
    needed = n * (scene.rgba.nbytes + (0 if scene.splats is None else scene.splats.nbytes))
    if device.type == "cuda" and needed < DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "host" if needed * ranks < HOST_SHARE * free else "none"
