"""Meshes of buckets, copied to a folder: renderers read files, and a plan must not depend on a server."""

import hashlib
from pathlib import Path, PurePosixPath

from z1g.core.s3 import copy_from, key_of
from z1g.core.urls import SCHEME
from z1g.meshes.formats import is_archive, is_mesh
from z1g.meshes.lists import ENDINGS

ALONE = (".glb", ".stl", ".ply")
"""Endings of meshes without side files."""


def copied(url: str, folder: Path) -> str:
    """Path of a copy, inside of `folder`, of the meshes at a URL. Raises UserError.

    A URL is a folder, an archive, a mesh or a list. Lists, and meshes with side files, are copied with all that lies
    beside and below them. Each URL has its own subfolder, in which a second call copies only what has changed.
    """
    key = PurePosixPath(key_of(url))
    target = folder / f"{key.name}-{hashlib.sha256(str(key).encode()).hexdigest()[:8]}"
    file = Path(key.name)
    if is_archive(file) or file.suffix.lower() in ALONE:
        copy_from(url, target)
    elif is_mesh(file) or file.suffix.lower() in ENDINGS:
        copy_from(f"{SCHEME}{key.parent}", target)
    else:
        copy_from(url, target)
        return str(target)
    return str(target / key.name)
