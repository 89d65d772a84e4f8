"""What a source of the corpus is: objects in the unpacked files of Debian's packages, and how each is read."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from z1g.core.errors import UserError
from z1g.meshes.raster.scene import Part, Texture

UNSEEN = "unseen"
"""Value of the list's column `held_out` for categories that are never trained on, but measured."""


@dataclass(frozen=True)
class Item:
    """An object of a source: `key` is its file there; the others are columns of the list."""

    key: str
    name: str
    category: str
    creator: str
    license: str
    held_out: str = ""


class Source(ABC):
    """A source of objects. It is made anew in every process."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    """Debian packages that it is made from."""
    share_alike: ClassVar[str] = ""
    """A sentence about the duties of whoever passes objects or renders on."""
    free: ClassVar[bool] = True
    """False for sources under the GPL, which `licenses=free` leaves out."""

    def __init__(self, folder: Path) -> None:
        """folder: with the packages' unpacked files. Raises UserError if they are not there."""
        self.folder = folder

    @abstractmethod
    def items(self) -> list[Item]:
        """All objects that may be listed, in a fixed order."""

    @abstractmethod
    def load(self, item: Item) -> list[Part]:
        """The parts of one object, y-up and right-handed. Raises MeshError."""

    @abstractmethod
    def texture_file(self, item: Item, texture: Texture) -> str:
        """The file of a texture within the source: objects that share it are of one group."""

    def find(self, pattern: str) -> Path:
        """The first path below the folder that matches. Raises UserError."""
        found = min(self.folder.rglob(pattern), default=None)
        if found is None:
            raise UserError(f"{self.folder}: no {pattern} in it; give the folder with the files of {self.of}")
        return found

    @property
    def of(self) -> str:
        """The packages, in words."""
        return " and ".join(self.packages)


def name_of(stem: str) -> str:
    """A file's name in words."""
    return " ".join(stem.replace("_", " ").replace("-", " ").split())


def below(path: Path, folder: Path) -> str:
    """The POSIX path of a file relative to a folder."""
    return path.relative_to(folder).as_posix()


def chosen(folder: Path, ending: str, without: Sequence[str]) -> list[Path]:
    """Files with an ending, sorted, but those whose path contains one of these words (in lower case)."""
    files = sorted(folder.rglob(f"*{ending}"))
    return [file for file in files if not any(word in below(file, folder).lower() for word in without)]
