"""Shards: one tar a chunk in WebDataset naming, one sample an object.

A sample of object `ID` has the members

    ID.json        {"id", "source", "c2w" [V][4][4] (y-up world, OpenCV axes), "fov_y_deg", ...}
    ID.000.png     RGBA, 8 bit, straight alpha, view 0; one member a view
    ID.depth.npy   float32 [6,H,W], planar depth (camera z) of the input views 1-6, 0 where nothing is
    ID.normal.npy  float16 [6,H,W,3], unit normals of the input views in the y-up world, 0 where nothing is; optional
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

from z1g.camera import INPUT_VIEWS
from z1g.errors import UserError


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
    normals: NDArray[np.float16] | None = None
    """[6,H,W,3] unit normals of the inputs in the y-up world, 0 where nothing is; None where the source has none."""


def shard_path(folder: Path, chunk: int) -> Path:
    """Where the pictures of one chunk lie."""
    return folder / f"chunk-{chunk:05d}.tar"


def table_path(folder: Path, chunk: int) -> Path:
    """Where the table of one chunk lies: JSON Lines, one line an object, quarantined ones included."""
    return folder / f"chunk-{chunk:05d}.jsonl"


def sheet_path(folder: Path, chunk: int) -> Path:
    """Where the contact sheet of one chunk lies."""
    return folder / f"chunk-{chunk:05d}.png"


def write_object(tar: tarfile.TarFile, item: RenderedObject) -> None:
    """Append one object to an open tar. Times and owners are fixed, so equal content gives equal bytes."""
    header = {"id": item.id, "fov_y_deg": item.fov_y_deg, "c2w": item.c2w.tolist(), "info": item.info}
    _add(tar, f"{item.id}.json", json.dumps(header).encode())
    for view, picture in enumerate(item.rgba):
        buffer = io.BytesIO()
        Image.fromarray(picture, "RGBA").save(buffer, "PNG")
        _add(tar, f"{item.id}.{view:03d}.png", buffer.getvalue())
    if item.depth is not None:
        _add_array(tar, f"{item.id}.depth.npy", item.depth.astype(np.float32))
    if item.normals is not None:
        _add_array(tar, f"{item.id}.normal.npy", item.normals.astype(np.float16))


class BrokenObject(Exception):
    """An object of a shard that cannot be used, with a reason that a person understands."""


class ShardReader:
    """Random access to the objects of one shard. Raises UserError where the file is no whole tar."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    key, _, ending = member.name.partition(".")
                    self._members.setdefault(key, {})[ending] = (member.offset_data, member.size)
        except tarfile.ReadError as error:
            raise UserError(f"{path} is no whole tar ({error}); delete it and run again to make it anew") from error

    @property
    def ids(self) -> list[str]:
        """Ids of the objects in the order written."""
        return list(self._members)

    def read(self, name: str) -> RenderedObject:
        """One object. Raises KeyError where the shard does not hold it, BrokenObject where it is not whole."""
        members = self._members[name]
        with self.path.open("rb") as stream:

            def content(ending: str) -> bytes:
                if ending not in members:
                    raise BrokenObject(f"{name}.{ending} is missing in {self.path}")
                offset, size = members[ending]
                stream.seek(offset)
                return stream.read(size)

            try:
                header = json.loads(content("json"))
                c2w = np.array(header["c2w"], np.float64)
                pictures = [_decode_png(content(f"{view:03d}.png"), name, view) for view in range(len(c2w))]
                depth, normals = (
                    _decode_array(content(ending)) if ending in members else None
                    for ending in ("depth.npy", "normal.npy")
                )
                item = RenderedObject(name, c2w, header["fov_y_deg"], _stack(pictures), depth, header["info"], normals)
            except (ValueError, KeyError, EOFError) as error:
                raise BrokenObject(f"{name} in {self.path} cannot be read: {error}") from error
        _check(item)
        return item


def read_objects(path: Path) -> Iterator[RenderedObject]:
    """Every object of a shard, in the order written."""
    reader = ShardReader(path)
    return (reader.read(name) for name in reader.ids)


def _decode_png(content: bytes, name: str, view: int) -> NDArray[np.uint8]:
    try:
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
    except (OSError, SyntaxError) as error:  # PIL's own errors are OSErrors; a bad PNG chunk is a SyntaxError
        raise BrokenObject(f"view {view} of {name} is no whole picture: {error}") from error


def _decode_array(content: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def _stack(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    sizes = {picture.shape[:2] for picture in pictures}
    if len(sizes) != 1:
        raise BrokenObject(f"its {len(pictures)} views have {len(sizes)} different sizes")
    return np.stack(pictures)


def _check(item: RenderedObject) -> None:
    """Raise BrokenObject where numbers cannot be what they say they are."""
    if item.c2w.shape[1:] != (4, 4) or not np.isfinite(item.c2w).all():
        raise BrokenObject(f"a camera pose of {item.id} is not a finite 4x4 matrix")
    size = (len(INPUT_VIEWS), *item.rgba.shape[1:3])
    for what, array, shape in (("depth", item.depth, size), ("normals", item.normals, (*size, 3))):
        if array is None:
            continue
        if array.shape != shape:
            raise BrokenObject(f"{item.id}: {what} {list(array.shape)} where its pictures ask for {list(shape)}")
        if not np.isfinite(array).all():
            raise BrokenObject(f"{item.id}: {what} not finite everywhere")


def _add_array(tar: tarfile.TarFile, name: str, array: NDArray[Any]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    _add(tar, name, buffer.getvalue())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
