"""Preparing an object's files for rendering: unpacking, and detecting faults that Blender ignores silently."""

import re
from collections.abc import Sequence
from pathlib import Path

from z1g.data.manifest import INSIDE, ObjectEntry
from z1g.meshes.archives import TooLarge, unpack
from z1g.meshes.content import content_of
from z1g.meshes.finite import all_finite
from z1g.meshes.formats import is_archive
from z1g.meshes.limits import MIB, FileLimits
from z1g.meshes.references import material_libraries, references
from z1g.meshes.store import UNREADABLE, Archive, Disk, NotChecked

_LICENSE = re.compile("licen[sc]e", re.IGNORECASE)


class Unusable(Exception):
    """An object's files cannot be rendered; the message is shown to the user."""


def prepare(entry: ObjectEntry, folder: Path, limits: FileLimits, roots: Sequence[str] = ()) -> Path:
    """Return the mesh file to render, unpacked to `folder` if it is in an archive. Raises Unusable.

    roots: see `readable`.
    """
    path = _unpacked(entry, folder, limits)
    store = Disk(path.parent, readable(entry, folder, roots))
    reason = problem(path, limits, store)
    if reason is None and entry.content:
        try:
            changed = content_of(store, path.name).content != entry.content
        except OSError as error:
            raise Unusable(f"a side file of the mesh cannot be read: {error.strerror}") from error
        except UNREADABLE as error:
            raise Unusable(str(error)) from error
        reason = "its files have changed since they were listed; start again to update the list" if changed else None
    if reason is not None:
        raise Unusable(reason)
    return path


def readable(entry: ObjectEntry, folder: Path, roots: Sequence[str]) -> list[Path]:
    """Folders in which the mesh's side files may lie besides its own: the configured roots, and of a mesh on disk the
    folder that was listed, of an archive's the folder to which it is unpacked.
    """
    listed = folder if INSIDE in entry.source else entry.root
    return [Path(root) for root in (listed, *roots) if root]


def _unpacked(entry: ObjectEntry, folder: Path, limits: FileLimits) -> Path:
    file, inside, member = entry.source.partition(INSIDE)
    path = Path(file)
    try:
        if inside:
            return unpack(path, member, folder, limits.unpacked_mb * MIB)
        if is_archive(path):
            # An archive is listed as an entry only if listing could not open it.
            with Archive(path):
                raise Unusable("the archive has no mesh")
    except TooLarge as error:
        raise Unusable(f"{error} (data.limits.unpacked_mb {limits.unpacked_mb})") from error
    except KeyError as error:
        raise Unusable(f"{path.name} has no member {member}") from error
    except OSError as error:
        raise Unusable(f"{path.name} cannot be unpacked: {error.strerror or error}") from error
    except UNREADABLE as error:
        raise Unusable(f"{path.name} is not a complete archive: {error}") from error
    return path


def problem(path: Path, limits: FileLimits, store: Disk | None = None) -> str | None:
    """Return why a mesh file cannot be rendered, None if no fault is detected without Blender.

    store: with the folders from which the mesh may read; None: only from its own.

    Detects faults that Blender ignores silently: it reads NaN as 0 and renders missing materials in gray.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            return "the file is empty: it has 0 bytes"
        if size > limits.file_mb * MIB:
            return f"the file has {size / MIB:.0f} MiB, more than data.limits.file_mb {limits.file_mb}"
        if not all_finite(path):
            return "the mesh has vertices that are not finite numbers (NaN or infinity)"
        return _missing(store or Disk(path.parent), path)
    except NotChecked as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def licenses(entry: ObjectEntry) -> list[str]:
    """Names of the license files in the folder of a mesh on disk."""
    beside = [] if INSIDE in entry.source else Path(entry.source).parent.iterdir()
    return sorted(file.name for file in beside if _LICENSE.search(file.name))


def _missing(store: Disk, path: Path) -> str | None:
    """The materials that an OBJ lacks. Raises NotChecked if the mesh refers to a file that it must not read."""
    sides = references(store, path.name)
    if path.suffix.lower() != ".obj" or any(side.role == "material" and side.exists for side in sides):
        return None
    libraries = material_libraries(store, path.name)
    return f"material file missing: {', '.join(libraries)}" if libraries else None
