"""Shards: one tar a chunk in WebDataset naming, one sample an object.

A sample of object `ID` has the members

    ID.json        {"id", "source", "c2w" [V][4][4] (y-up world, OpenCV axes), "fov_y_deg", ...}
    ID.000.png     RGBA, 8 bit, straight alpha, view 0; one member a view
    ID.depth.npy   float32 [6,H,W], planar depth (camera z) of the input views 1-6, 0 where nothing is
"""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class RenderedObject:
    """One object as a data source rendered it."""

    id: str
    c2w: NDArray[np.float64]
    """[V,4,4], y-up world, OpenCV axes."""
    fov_y_deg: float
    rgba: NDArray[np.uint8]
    """[V,H,W,4], straight alpha."""
    depth: NDArray[np.float32] | None
    """[6,H,W] planar depth of the inputs, 0 where nothing is; None where the source has none."""
    info: dict[str, Any]
    """What the source knows besides: its path, licence, triangle count, content hash."""


def shard_path(folder: Path, chunk: int) -> Path:
    """Where the pictures of one chunk lie."""
    return folder / f"chunk-{chunk:05d}.tar"


def table_path(folder: Path, chunk: int) -> Path:
    """Where the table of one chunk lies: JSON Lines, one line an object, quarantined ones included."""
    return folder / f"chunk-{chunk:05d}.jsonl"


def write_object(tar: tarfile.TarFile, item: RenderedObject) -> None:
    """Append one object to an open tar. Times and owners are fixed, so equal content gives equal bytes."""
    header = {"id": item.id, "fov_y_deg": item.fov_y_deg, "c2w": item.c2w.tolist(), "info": item.info}
    _add(tar, f"{item.id}.json", json.dumps(header).encode())
    for view, picture in enumerate(item.rgba):
        buffer = io.BytesIO()
        Image.fromarray(picture, "RGBA").save(buffer, "PNG")
        _add(tar, f"{item.id}.{view:03d}.png", buffer.getvalue())
    if item.depth is not None:
        buffer = io.BytesIO()
        np.save(buffer, item.depth.astype(np.float32), allow_pickle=False)
        _add(tar, f"{item.id}.depth.npy", buffer.getvalue())


class ShardReader:
    """Random access to the objects of one shard. Raises tarfile.ReadError on a broken file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, dict[str, tuple[int, int]]] = {}
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                self._members.setdefault(key, {})[ending] = (member.offset_data, member.size)

    @property
    def ids(self) -> list[str]:
        """Ids of the objects in the order written."""
        return list(self._members)

    def read(self, name: str) -> RenderedObject:
        """One object. Raises KeyError where the shard does not hold it."""
        members = self._members[name]
        with self.path.open("rb") as stream:

            def content(ending: str) -> bytes:
                offset, size = members[ending]
                stream.seek(offset)
                return stream.read(size)

            header = json.loads(content("json"))
            views = sorted(ending for ending in members if ending.endswith(".png"))
            rgba = np.stack([_decode_png(content(ending)) for ending in views])
            depth = None
            if "depth.npy" in members:
                depth = np.load(io.BytesIO(content("depth.npy")), allow_pickle=False)
        return RenderedObject(name, np.array(header["c2w"]), header["fov_y_deg"], rgba, depth, header["info"])


def read_objects(path: Path) -> Iterator[RenderedObject]:
    """Every object of a shard, in the order written."""
    reader = ShardReader(path)
    return (reader.read(name) for name in reader.ids)


def _decode_png(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
