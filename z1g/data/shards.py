"""Shards: one tar per chunk in WebDataset naming, one sample per object.

A sample of object `ID` has the members

    ID.json        {"id", "source", "c2w" [V][4][4] (y-up world, OpenCV axes), "fov_y_deg", ...}
    ID.000.png     RGBA, 8 bit, straight alpha, view 0; one member per view; `.webp` (lossless) in compact shards
    ID.depth.npy   float32 [6,H,W], planar depth (camera z) of the input views 1-6, 0 in empty pixels; in compact
                   shards `depth.z`: the same, compressed by `z1g.data.depth_file`
    ID.normal.npy  float16 [6,H,W,3], unit normals of the input views in the y-up world, 0 in empty pixels; optional

The table next to a tar stores the byte range of each object, so that opening a thousand shards reads a thousand small
files instead of millions of headers, and a checksum of each of its members, which is verified when the member is read
(`z1g.data.checksums`).
A shard without a valid table is scanned once.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from z1g.core.errors import UserError
from z1g.core.names import counted
from z1g.core.recorded import damaged, remedy
from z1g.core.unchecked import warn_unchecked
from z1g.data.checksums import OfState, checksum_of_bytes, split
from z1g.data.depth_file import decode_depth, encode_depth
from z1g.data.manifest import ObjectEntry
from z1g.data.members import VERIFIED, Members, Stored, members_of_tar, stored_in_table
from z1g.geometry.camera import INPUT_VIEWS

WEBP_METHOD = 1
"""Of 0 to 6. Method 0 writes twice the bytes; higher methods, or a higher quality, write 2 % less in twice the time."""


@dataclass(frozen=True)
class Rejected:
    """An object that could not be ingested, with a reason for the user."""

    id: str
    reason: str


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
    """[6,H,W] planar depth of the inputs, 0 in empty pixels; None if the source has none."""
    info: dict[str, Any]
    """Metadata of the source: path, license, triangle count, content hash."""
    normals: NDArray[np.float16] | None = None
    """[6,H,W,3] unit normals of the inputs in the y-up world, 0 in empty pixels; None if the source has none."""


@dataclass(frozen=True)
class EncodedObject:
    """An object whose images are PNG files already. Otherwise like `RenderedObject`."""

    id: str
    c2w: NDArray[np.float64]
    fov_y_deg: float
    images: tuple[bytes, ...]
    """PNG files of the views, RGBA, 8 bit, straight alpha."""
    depth: NDArray[np.float32] | None
    info: dict[str, Any]
    normals: NDArray[np.float16] | None = None

    def view(self, index: int) -> NDArray[np.uint8]:
        """The image [H,W,4] of one view."""
        return _decode_png(self.images[index], self.id, index)


def shard_path(folder: Path, chunk: int) -> Path:
    """Path of the tar with the images of one chunk."""
    return folder / f"chunk-{chunk:05d}.tar"


def table_path(folder: Path, chunk: int) -> Path:
    """Path of the table of one chunk: JSON Lines, one line per object, including quarantined ones."""
    return folder / f"chunk-{chunk:05d}.jsonl"


def sheet_path(folder: Path, chunk: int) -> Path:
    """Path of the contact sheet of one chunk."""
    return folder / f"chunk-{chunk:05d}.png"


def write_object(tar: tarfile.TarFile, item: RenderedObject | EncodedObject, compact: bool = False) -> Stored:
    """Append one object to an open tar. Times and owners are fixed, so equal content gives equal bytes."""
    return write_members(tar, item.id, files_of(item, compact))


def write_members(tar: tarfile.TarFile, name: str, files: Iterable[tuple[str, bytes]]) -> Stored:
    """Append the files of one object to an open tar. files: the part of their names after the id, and content."""
    begin, checksums = tar.offset, []
    for ending, content in files:
        add_member(tar, f"{name}.{ending}", content)
        checksums.append(checksum_of_bytes(content))
    return Stored(begin, tar.offset, "".join(checksums))


def files_of(item: RenderedObject | EncodedObject, compact: bool) -> Iterator[tuple[str, bytes]]:
    """The files of an object: the part of their names after the id, and content."""
    header = {"id": item.id, "fov_y_deg": item.fov_y_deg, "c2w": item.c2w.tolist(), "info": item.info}
    yield "json", json.dumps(header).encode()
    if compact:
        views = map(item.view, range(len(item.images))) if isinstance(item, EncodedObject) else iter(item.rgba)
        for view, image in enumerate(views):
            yield f"{view:03d}.webp", encode_webp(image)
    else:
        images = item.images if isinstance(item, EncodedObject) else map(encode_png, item.rgba)
        for view, content in enumerate(images):
            yield f"{view:03d}.png", content
    if item.depth is not None and compact:
        yield "depth.z", encode_depth(item.depth.astype(np.float32))
    elif item.depth is not None:
        yield "depth.npy", _encode_array(item.depth.astype(np.float32))
    if item.normals is not None:
        yield "normal.npy", _encode_array(item.normals.astype(np.float16))


class BrokenObject(Exception):
    """An object of a shard that cannot be used, with a reason for the user."""


class ShardReader:
    """Random access to the objects of one shard.

    Raises UserError if the file is missing or not a complete tar, or if its table is not as its job wrote it. With the
    checksums of the table, everything that is read is verified (`z1g.data.checksums`), and reading raises UserError if
    it is not as it was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._scanned: dict[str, Members] = {}
        self._located: OfState[dict[str, Members]] = OfState(dict)
        self._stored = stored_in_table(path)
        if not path.is_file():
            raise damaged(path, "it does not exist")
        try:
            if self._stored is None:
                self._scanned = members_of_tar(path)
            elif path.stat().st_size < max((stored.end for stored in self._stored.values()), default=0):
                raise tarfile.ReadError("unexpected end of data")
        except tarfile.ReadError as error:
            raise UserError(f"{path} is not a complete tar ({error}). {remedy(path)}") from error
        if self.ids and not (self._stored and all(stored.checksums for stored in self._stored.values())):
            warn_unchecked(path, "their table has no checksums; `z1g verify` checks whole files")

    @property
    def ids(self) -> list[str]:
        """Ids of the objects, in the order written."""
        return list(self._scanned if self._stored is None else self._stored)

    def require_only(self, entries: Iterable[ObjectEntry]) -> None:
        """Raise UserError if the shard has an object that is not listed: it is of another chunk or data set."""
        listed = {entry.id for entry in entries}
        if foreign := [name for name in self.ids if name not in listed]:
            raise damaged(self.path, f"it has {foreign[0]}, which the manifest does not list in this chunk")

    def read(self, name: str) -> RenderedObject:
        """One object. Raises KeyError if the shard does not contain it, BrokenObject if it is damaged."""
        item = self._read(name, None)
        _check(item)
        return item

    def read_views(self, name: str, views: Sequence[int]) -> RenderedObject:
        """One object with the images of only these views, in the given order, which is faster.

        `c2w` has all poses; depth and normals are omitted. Raises like `read`; only what is read is checked.
        """
        return self._read(name, views)

    def _read(self, name: str, views: Sequence[int] | None) -> RenderedObject:
        with self.path.open("rb") as stream:
            members = self._members_of(name, os.fstat(stream.fileno()))

            def content(ending: str) -> bytes:
                if ending not in members:
                    raise BrokenObject(f"{name}.{ending} is missing in {self.path}")
                offset, size, checksum = members[ending]
                stream.seek(offset)
                read = stream.read(size)
                if checksum:
                    if checksum_of_bytes(read) != checksum:
                        raise damaged(self.path, f"{name}.{ending} does not have the checksum in its table")
                    members[ending] = (offset, size, VERIFIED)
                return read

            def array(ending: str) -> NDArray[Any] | None:
                return _decode_array(content(ending)) if ending in members else None

            try:
                header = json.loads(content("json"))
                c2w = np.array(header["c2w"], np.float64)
                if header["id"] != name or not isinstance(header["info"], dict):
                    raise ValueError(f"its header is of {header['id']}, or its info is no object")
                if not 0 < header["fov_y_deg"] < 180:
                    raise ValueError(f"its field of view is {header['fov_y_deg']} degrees")
                selected = range(len(c2w)) if views is None else views
                image = "webp" if "000.webp" in members else "png"
                rgba = _stack([(view, content(f"{view:03d}.{image}")) for view in selected], name)
                depth = normals = None
                if views is None:
                    depth = decode_depth(content("depth.z")) if "depth.z" in members else array("depth.npy")
                    normals = array("normal.npy")
                return RenderedObject(name, c2w, header["fov_y_deg"], rgba, depth, header["info"], normals)
            except (ValueError, KeyError, IndexError, EOFError, TypeError) as error:
                raise BrokenObject(f"{name} in {self.path} cannot be read: {error}") from error

    def _members_of(self, name: str, about: os.stat_result) -> Members:
        """Where the files of an object are, of a tar in this state."""
        if self._stored is None:
            return self._scanned[name]
        located = self._located(about)
        if name not in located:
            located[name] = self._located_members(name, self._stored[name])
        return located[name]

    def _located_members(self, name: str, stored: Stored) -> Members:
        lost = f"{name} is not at its recorded position"
        try:
            members = members_of_tar(self.path, stored.begin, stored.end)[name]
        except (tarfile.ReadError, KeyError) as error:
            if stored.checksums:
                raise damaged(self.path, lost) from error
            raise BrokenObject(f"{lost} in {self.path}") from error
        checksums = split(stored.checksums) or [""] * len(members)
        if len(checksums) != len(members):
            raise damaged(self.path, f"{name} has {counted(len(members), 'file')} instead of {len(checksums)}")
        pairs = zip(members.items(), checksums, strict=True)
        return {ending: (offset, size, checksum) for (ending, (offset, size, _)), checksum in pairs}


def read_objects(path: Path) -> Iterator[RenderedObject]:
    """Every object of a shard, in the order written."""
    reader = ShardReader(path)
    return (reader.read(name) for name in reader.ids)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """PNG file of an image [H,W,4]."""
    buffer = io.BytesIO()
    Image.fromarray(image, "RGBA").save(buffer, "PNG")
    return buffer.getvalue()


def encode_webp(image: NDArray[np.uint8]) -> bytes:
    """Lossless WebP file of an image [H,W,4], with the color of transparent pixels too."""
    buffer = io.BytesIO()
    Image.fromarray(image, "RGBA").save(buffer, "WEBP", lossless=True, exact=True, method=WEBP_METHOD, quality=0)
    return buffer.getvalue()


def _decode_png(content: bytes, name: str, view: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    from z1g.data.png import decode_rgba

    image = decode_rgba(content, into)
    if image is not None:
        return image
    try:
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
    # Pillow's own errors are OSErrors; a bad PNG chunk is a SyntaxError.
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BrokenObject(f"view {view} of {name} is not a complete image: {error}") from error


def _decode_array(content: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def _stack(files: Sequence[tuple[int, bytes]], name: str) -> NDArray[np.uint8]:
    """The images [V,H,W,4] of some views, decoded into one array."""
    rgba: NDArray[np.uint8] | None = None
    for i, (view, content) in enumerate(files):
        target = None if rgba is None else rgba[i]
        image = _decode_png(content, name, view, target)
        if rgba is None:
            rgba = np.empty((len(files), *image.shape), np.uint8)
        if image.shape != rgba.shape[1:]:
            raise BrokenObject(f"its views have different sizes: {rgba.shape[1:3]} and, view {view}, {image.shape[:2]}")
        if image is not target:
            rgba[i] = image
    if rgba is None:
        raise BrokenObject("it has no views")
    return rgba


def _check(item: RenderedObject) -> None:
    """Raise BrokenObject if poses, depth or normals are invalid."""
    if item.c2w.shape[1:] != (4, 4) or not np.isfinite(item.c2w).all():
        raise BrokenObject(f"a camera pose of {item.id} is not a finite 4x4 matrix")
    size = (len(INPUT_VIEWS), *item.rgba.shape[1:3])
    for what, array, shape in (("depth", item.depth, size), ("normals", item.normals, (*size, 3))):
        if array is None:
            continue
        if array.shape != shape:
            raise BrokenObject(f"{item.id}: {what} has shape {list(array.shape)}, but its images need {list(shape)}")
        if not np.isfinite(array).all():
            raise BrokenObject(f"{item.id}: {what} has values that are not finite")


def _encode_array(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Append one file to an open tar, with fixed time and owner."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
