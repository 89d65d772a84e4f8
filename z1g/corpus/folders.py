"""Sources whose objects are single mesh files in folders: MegaGlest, FlightGear and UFO: Alien Invasion."""

import hashlib
import posixpath
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from z1g.corpus.source import UNSEEN, Item, Source, below, chosen, name_of
from z1g.meshes.raster.ac3d import read_ac3d
from z1g.meshes.raster.g3d import read_g3d
from z1g.meshes.raster.reading import read_mesh
from z1g.meshes.raster.scene import Part, Texture, y_up

TEAMS = ((153, 26, 26), (26, 51, 153), (26, 128, 51), (204, 179, 26), (204, 204, 204), (102, 51, 153))
"""Colors of teams (sRGB, 8 bits); each object gets one."""


WORLDS = "worlds"
"""Category of what belongs to no faction."""


class FolderSource(Source):
    """Objects that are one file each."""

    ending: ClassVar[str]
    dropped: ClassVar[Sequence[str]]
    """Files whose path contains one of these words are no objects of their own."""

    def items(self) -> list[Item]:
        files = [below(file, self.folder) for file in chosen(self.folder, self.ending, self.dropped)]
        return [self.item(file) for file in files if self.wanted(file)]

    def wanted(self, file: str) -> bool:
        """Whether a file is listed."""
        return True

    @abstractmethod
    def item(self, file: str) -> Item:
        """The object of a file."""

    def load(self, item: Item) -> list[Part]:
        return y_up(*read_mesh(self.folder / item.key))

    def texture_file(self, item: Item, texture: Texture) -> str:
        return posixpath.normpath(posixpath.join(posixpath.dirname(item.key), texture.name))


class MegaGlest(FolderSource):
    """Units and buildings of seven factions and the plants of their worlds; of animations, the first frame."""

    name = "megaglest"
    packages = ("megaglest-data",)
    share_alike = "Whoever passes objects or renders on does so under the same license and names the creators."
    ending = ".g3d"
    dropped = ("particle", "_die", "dying", "destr", "construct", "death", "projectile")
    creators: ClassVar[dict[str, str]] = {
        "magic": "The Glest Team, The MegaGlest Team",
        "tech": "The Glest Team, The MegaGlest Team",
        "indian": "Titus Tscharntke, Philipp Tscharntke",
        "norsemen": "Titus Tscharntke, Raphael Schröder, Philipp Tscharntke",
        "egypt": "Titus Tscharntke",
        "persian": "Titus Tscharntke, Philipp Tscharntke",
        "romans": "Jacob Vejvoda",
    }
    poses = re.compile("_(walk|attack|stand|idle|run|prod|hold|load|work|morph|repair|harvest|mining)")

    def items(self) -> list[Item]:
        first: dict[tuple[str, str], Item] = {}
        # Of all animations of a unit, the one in which it stands.
        for item in sorted(super().items(), key=lambda item: (_standing(item.key), item.key)):
            folder, _, file = item.key.rpartition("/")
            first.setdefault((folder, self.poses.split(file[: -len(self.ending)])[0]), item)
        return sorted(first.values(), key=lambda item: item.key)

    def item(self, file: str) -> Item:
        parts = file.split("/")
        faction = parts[parts.index("factions") + 1] if "factions" in parts[:-2] else ""
        category = ("units" if "units" in parts else "factions") if faction else WORLDS
        creator = self.creators.get(faction, "The MegaGlest Team (AUTHORS.data.txt)")
        return Item(file, name_of(Path(file).stem), f"{self.name}/{category}", creator, "CC-BY-SA 3.0")

    def load(self, item: Item) -> list[Part]:
        digest = hashlib.sha256(item.key.encode()).digest()
        # What grows and stands in worlds is nobody's.
        team = None if item.category == f"{self.name}/{WORLDS}" else TEAMS[digest[0] % len(TEAMS)]
        return read_g3d(self.folder / item.key, team)

    def texture_file(self, item: Item, texture: Texture) -> str:
        file = super().texture_file(item, texture)
        # Worlds have copies of each other's plants and stones, some in other colors.
        return f"{WORLDS}/{posixpath.basename(file)}" if item.category == f"{self.name}/{WORLDS}" else file


def _standing(key: str) -> bool:
    """False, which comes first, for files of a unit that stands."""
    return not re.search("stand|idle", key)


class FlightGear(FolderSource):
    """Buildings, vehicles, ships and aircraft of the scenery."""

    name = "flightgear"
    packages = ("flightgear-data-base", "flightgear-data-models")
    free = False
    ending = ".ac"
    dropped = ("weather", "effects", "boundaries", "astro")
    unseen = ("Sport", "StreetFurniture")
    shadows = ("shadow",)

    def item(self, file: str) -> Item:
        parts = file.split("/")
        rest = parts[parts.index("Models") + 1 :] if "Models" in parts else []
        category = rest[0] if len(rest) > 1 else "SceneryObjects"
        return Item(file, name_of(Path(file).stem), f"{self.name}/{category}", "FlightGear developers and contributors",
                    "GPL-2+", UNSEEN if category in self.unseen else "")  # fmt: skip

    def load(self, item: Item) -> list[Part]:
        return read_ac3d(self.folder / item.key, self.shadows)


class UfoAi(FolderSource):
    """Furniture, vehicles, weapons and aircraft."""

    name = "ufoai"
    packages = ("ufoai-data",)
    free = False
    ending = ".md2"
    dropped = ("/soldiers/", "/civilians/", "/pilots/", "wormhole")
    fragment = re.compile(r"part\d|_l1|body\d|head\d")

    def wanted(self, file: str) -> bool:
        return self.fragment.search(file) is None

    def item(self, file: str) -> Item:
        rest = file.partition("models/")[2].split("/")
        category = rest[0] if len(rest) > 1 else "models"
        return Item(file, name_of(Path(file).stem), f"{self.name}/{category}", "UFO: Alien Invasion team", "GPL-2+")
