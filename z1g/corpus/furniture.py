"""Sweet Home 3D's furniture, but for two libraries that are never listed."""

import hashlib
import tempfile
from pathlib import Path

from z1g.core.errors import UserError
from z1g.corpus.excluded import excluded
from z1g.corpus.source import Item, Source, name_of
from z1g.data.manifest import INSIDE
from z1g.meshes.archives import TooLarge, models, unpack
from z1g.meshes.limits import MIB, FileLimits
from z1g.meshes.raster.reading import read_mesh
from z1g.meshes.raster.scene import MeshError, Part, Texture, y_up
from z1g.meshes.store import UNREADABLE, Archive

FAILURES: tuple[type[Exception], ...] = (TooLarge, KeyError, *UNREADABLE)
"""Exceptions of unpacking."""


class Furniture(Source):
    """Pieces of furniture of the libraries' catalogs."""

    name = "furniture"
    packages = ("sweethome3d-furniture",)
    share_alike = "Most are CC-BY 3.0: whoever passes objects or renders on names their creators, who are in the list."

    def items(self) -> list[Item]:
        libraries = [path for path in sorted(self.folder.rglob("*.sh3f")) if excluded(path.name) is None]
        if not libraries:
            raise UserError(f"{self.folder}: no library (*.sh3f) in it; give the folder with the files of {self.of}")
        return [item for library in libraries for item in self._of(library)]

    def _of(self, library: Path) -> list[Item]:
        try:
            with Archive(library) as archive:
                found = models(archive)
        except UNREADABLE as error:
            raise UserError(f"{library} cannot be read: {error}; unpack the package again") from error
        place = library.relative_to(self.folder).as_posix()
        return [
            Item(f"{place}{INSIDE}{model.member}", model.name or name_of(Path(model.member).stem),
                 f"{self.name}/{model.category or 'other'}", model.creator, model.license)
            for model in found
        ]  # fmt: skip

    def load(self, item: Item) -> list[Part]:
        library, _, member = item.key.partition(INSIDE)
        with tempfile.TemporaryDirectory(prefix="z1g-corpus-") as scratch:
            try:
                path = unpack(self.folder / library, member, Path(scratch), FileLimits().unpacked_mb * MIB)
            except FAILURES as error:
                raise MeshError(f"it cannot be unpacked: {error}") from error
            return y_up(*read_mesh(path))

    def texture_file(self, item: Item, texture: Texture) -> str:
        # Libraries name images after nothing in particular, but use the same ones in several folders.
        return f"image {hashlib.sha256(texture.image.tobytes()).hexdigest()[:16]}"
