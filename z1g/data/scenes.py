"""Scenes that training reads: objects with images, cameras and fitted splats in the view-1 frame."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from z1g.core.recorded import damaged
from z1g.data.condition_form import Resize
from z1g.data.conditions import condition_image
from z1g.data.manifest import Manifest
from z1g.data.shards import BrokenObject, RenderedObject, ShardReader
from z1g.data.splat_files import SplatFile
from z1g.geometry.camera import CONDITION_VIEW, Cameras, view_frame

CACHE_BYTES = 2**30
"""Size of a process's cache of recently used scenes; a scene of 33 views of 512² takes 40 MB."""


def chunk_file(folder: Path, chunk: int, ending: str) -> Path:
    """File with the output of a stage for one chunk, for example `chunk-00003.tar`."""
    return folder / f"chunk-{chunk:05d}.{ending}"


@dataclass(frozen=True)
class Scene:
    """One object.

    c2w: [V,4,4] float32, OpenCV axes, view-1 frame. rgba: uint8 [V,H,W,4], straight alpha.
    depth: [6,H,W] planar depth of the inputs or None. splats: activated splatter images [6,14,S,S] or None.
    """

    id: str
    c2w: Tensor
    fov_y_deg: float
    rgba: NDArray[np.uint8]
    depth: Tensor | None
    splats: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes of its images, depth and splats."""
        tensors = (tensor for tensor in (self.depth, self.splats) if tensor is not None)
        return self.rgba.nbytes + sum(tensor.nbytes for tensor in tensors)

    def only(self, views: Sequence[int]) -> Scene:
        """The same object with a subset of its views, in the given order, and without depth."""
        return replace(self, c2w=self.c2w[list(views)], rgba=self.rgba[list(views)], depth=None)

    def cameras(self, views: list[int] | range, size: int | None = None) -> Cameras:
        """Cameras [1,V] of some views, at the images' own resolution or `size`."""
        side = size or int(self.rgba.shape[1])
        return Cameras(self.c2w[list(views)][None], self.fov_y_deg, side, side)

    def images(self, views: list[int] | range) -> tuple[Tensor, Tensor]:
        """Premultiplied color [V,3,H,W] and alpha [V,1,H,W] in 0..1."""
        rgba = torch.from_numpy(self.rgba[list(views)]).permute(0, 3, 1, 2).float() / 255
        alpha = rgba[:, 3:]
        return rgba[:, :3] * alpha, alpha

    def condition(self, size: int, resize: Resize = "bilinear") -> Tensor:
        """The condition image on gray 127, [3,size,size] in 0..1."""
        rgb, alpha = self.images([CONDITION_VIEW])
        return condition_image(rgb, alpha, size, resize)


def as_scene(item: RenderedObject, radius: float, splats: Tensor | None = None) -> Scene:
    """A rendered object, transformed to the view-1 frame; `radius` is the camera distance of the configuration."""
    c2w = view_frame(item.c2w, radius) @ item.c2w
    depth = None if item.depth is None else torch.from_numpy(item.depth)
    return Scene(item.id, torch.from_numpy(c2w).float(), item.fov_y_deg, item.rgba, depth, splats)


class SceneStore:
    """All objects that ingest (and fit, if given) completed, read on demand and cached up to `CACHE_BYTES`."""

    def __init__(self, manifest: Manifest, radius: float, ingest: Path, fit: Path | None = None) -> None:
        self.radius, self.fit = radius, fit
        self._readers = [ShardReader(chunk_file(ingest, chunk, "tar")) for chunk in range(manifest.n_chunks)]
        for chunk, reader in enumerate(self._readers):
            reader.require_only(manifest.chunk(chunk))
        chunk_of = {name: chunk for chunk, reader in enumerate(self._readers) for name in reader.ids}
        self._splats: list[SplatFile] = []
        if fit is not None:
            self._splats = [SplatFile(chunk_file(fit, chunk, "safetensors")) for chunk in range(manifest.n_chunks)]
            fitted = {name for file in self._splats for name in file.ids}
            chunk_of = {name: chunk for name, chunk in chunk_of.items() if name in fitted}
        self._chunk_of = {entry.id: chunk_of[entry.id] for entry in manifest.objects if entry.id in chunk_of}
        self.n_missing = len(manifest.objects) - len(self._chunk_of)
        self._cache = _SceneCache()

    def __getstate__(self) -> dict[str, Any]:
        """Data loading processes receive the store without its cache."""
        return {name: value for name, value in self.__dict__.items() if name != "_cache"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache = _SceneCache()

    @property
    def ids(self) -> list[str]:
        """Ids of all complete objects, in manifest order."""
        return list(self._chunk_of)

    def __getitem__(self, name: str) -> Scene:
        scene = self._cache.get(name)
        if scene is None:
            scene = as_scene(self.rendered(name), self.radius, self.splats(name))
            self._cache.add(scene)
        return scene

    def rendered(self, name: str) -> RenderedObject:
        """One object as its data source rendered it, in the y-up world. Not cached."""
        with self._usable(name) as reader:
            return reader.read(name)

    def views(self, name: str, views: Sequence[int]) -> Scene:
        """An object with only these views, in the given order, and its splats, without depth. Not cached.

        Used for large data sets, where decoding all views of every object would dominate the time to read a sample.
        """
        return replace(self.seen(name, views), splats=self.splats(name))

    def seen(self, name: str, views: Sequence[int]) -> Scene:
        """Like `views`, without splats, which are as large as dozens of views."""
        with self._usable(name) as reader:
            scene = as_scene(reader.read_views(name, views), self.radius)
        return replace(scene, c2w=scene.c2w[list(views)])

    @contextmanager
    def _usable(self, name: str) -> Iterator[ShardReader]:
        """The shard of an object. Raises UserError if the object is broken, which it was not when it was fitted."""
        reader = self._readers[self._chunk_of[name]]
        try:
            yield reader
        except BrokenObject as error:
            raise damaged(reader.path, str(error)) from error

    def splats(self, name: str) -> Tensor | None:
        """The activated splatter images [6,14,S,S] of an object, or None if nothing was fitted."""
        if self.fit is None:
            return None
        return self._splats[self._chunk_of[name]].read(name)


class _SceneCache:
    """The most recently used scenes, up to `CACHE_BYTES`. Thread-safe."""

    def __init__(self) -> None:
        self._scenes: OrderedDict[str, Scene] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, name: str) -> Scene | None:
        with self._lock:
            if name in self._scenes:
                self._scenes.move_to_end(name)
            return self._scenes.get(name)

    def add(self, scene: Scene) -> None:
        with self._lock:
            if scene.id in self._scenes:
                return
            self._scenes[scene.id] = scene
            self._bytes += scene.nbytes
            while self._bytes > CACHE_BYTES and len(self._scenes) > 1:
                _, oldest = self._scenes.popitem(last=False)
                self._bytes -= oldest.nbytes
