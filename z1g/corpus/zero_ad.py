"""0 A.D.: ancient people, animals, buildings, trees, weapons. Bodies stand in the pose in which they were made."""

import random
import re
from pathlib import Path

from z1g.core.errors import UserError
from z1g.corpus.actors import ACTORS, Actors
from z1g.corpus.source import UNSEEN, Item, Source, name_of
from z1g.meshes.raster.scene import MeshError, Part, Texture
from z1g.meshes.store import UNREADABLE

WHOLE = ("units", "structures", "fauna", "flora", "geology", "fungi", "campaigns")
PROPS = ("units", "special", "horse", "camel", "geology", "flora")
"""Kinds of props that are objects of their own; those of structures are loose parts."""
DROPPED = re.compile("fndn|destruct|rubble|decal|ruins_piece|_field_")
PLAYERS = ((21, 55, 149), (150, 20, 20), (86, 180, 31), (231, 200, 5), (50, 170, 170), (160, 80, 200), (220, 115, 16),
           (64, 64, 64))  # fmt: skip
"""Colors of the game's players (sRGB, 8 bits); each object gets one."""
UNSEEN_CATEGORY = "fauna"


class ZeroAd(Source):
    """Actors, assembled with their props."""

    name = "0ad"
    packages = ("0ad-data",)
    share_alike = (
        "Whoever passes objects or renders on does so under the same license, names Wildfire Games, and links to both."
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        archive = self.find("public.zip")
        try:
            self._actors = Actors(archive)
        except UNREADABLE as error:
            raise UserError(f"{archive} cannot be read: {error}; unpack the package again") from error

    def items(self) -> list[Item]:
        return [
            Item(member[len(ACTORS) :], name_of(member.rpartition("/")[2][: -len(".xml")]), f"{self.name}/{category}",
                 "Wildfire Games (https://www.wildfiregames.com/)", "CC-BY-SA 3.0",
                 UNSEEN if category == UNSEEN_CATEGORY else "")
            for member in sorted(self._actors.names)
            if (category := _category(member)) is not None
        ]  # fmt: skip

    def load(self, item: Item) -> list[Part]:
        # By name: an object looks the same in every run.
        draw = random.Random(item.key)  # noqa: S311
        try:
            return self._actors.parts(item.key, draw.choice(PLAYERS), draw)
        except RecursionError as error:
            raise MeshError("its documents are nested too deeply") from error

    def texture_file(self, item: Item, texture: Texture) -> str:
        return texture.name.removesuffix(".cached.dds")


def _category(member: str) -> str | None:
    """The category of an actor's document, None for what is no object of its own."""
    if not member.startswith(ACTORS) or not member.endswith(".xml"):
        return None
    path = member[len(ACTORS) :]
    parts = path.split("/")
    if DROPPED.search(path):
        return None
    if parts[0] == "props":
        return f"props-{parts[1]}" if len(parts) > 2 and parts[1] in PROPS else None
    return parts[0] if parts[0] in WHOLE else None
