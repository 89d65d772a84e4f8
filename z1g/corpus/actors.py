"""0 A.D.'s actors: XML documents that choose a mesh, textures, colors, and further actors as props.

An actor has groups of variants, one of each group is drawn, and a later one replaces what an earlier one says. A
variant may be in a file of its own. What is attached is again an actor, at a named point of the mesh.
"""

import posixpath
import random
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.images import load_image
from z1g.meshes.raster.pmd import Pmd, parse_pmd, right_handed
from z1g.meshes.raster.scene import GRAY, Material, MeshError, Part, Texture
from z1g.meshes.store import UNREADABLE

ACTORS, VARIANTS, MESHES, MATERIALS = "art/actors/", "art/variants/", "art/meshes/", "art/materials/"
TEXTURES = ("art/textures/skins/", "art/textures/animated/", "art/textures/")
BASE = "baseTex"
ROOT = "root"
LARGEST_DEPTH = 6
LARGEST_MEMBER = 64 * 2**20
NO_OBJECTS = ("decal", "particle", "garrison")
"""Props whose names contain one of these draw on the ground or in the air."""
Matrix = NDArray[np.float64]
Color = tuple[int, int, int]


@dataclass
class _Choice:
    """What the drawn variants say: later ones replace the words of earlier ones."""

    mesh: str = ""
    color: Color = (255, 255, 255)
    textures: dict[str, str] = field(default_factory=dict)
    props: dict[str, list[str]] = field(default_factory=dict)


class Actors:
    """The actors of a game's zip archive."""

    def __init__(self, archive: Path) -> None:
        """Raises any of UNREADABLE."""
        self._zip = zipfile.ZipFile(archive)
        self.names = frozenset(self._zip.namelist())
        self._document = lru_cache(4096)(self._read_document)
        self._mesh = lru_cache(256)(self._read_mesh)
        self._image = lru_cache(48)(self._read_image)
        self._surface = lru_cache(48)(self._made_surface)

    def parts(self, actor: str, player: Color, draw: random.Random) -> list[Part]:
        """The parts of an actor and its props, y-up and right-handed. Raises MeshError.

        player: color of the player (sRGB, 8 bits). draw: chooses among variants by their frequency.
        """
        if self._document(ACTORS + actor) is None:
            raise MeshError(f"the actor {actor} is missing")
        return [right_handed(part) for part in self._assembled(actor, player, draw, np.eye(4), 0)]

    def _assembled(self, actor: str, player: Color, draw: random.Random, place: Matrix, depth: int) -> Iterator[Part]:
        document = self._document(ACTORS + actor)
        if document is None or depth > LARGEST_DEPTH:
            return
        if document.tag == "qualitylevels":
            levels = document.findall("actor")
            if not levels:
                return
            if levels[-1].get("file"):
                yield from self._assembled(levels[-1].get("file", ""), player, draw, place, depth + 1)
                return
            inline = levels[-1].find("inline")
            document = levels[-1] if inline is None else inline
        choice = self._chosen(document, draw)
        mesh = self._mesh(choice.mesh) if choice.mesh else None
        if mesh is not None:
            yield self._part(mesh, place, self._material(document, choice, player))
        for point, actors in choice.props.items():
            there = _attached(mesh, point)
            if there is not None:
                for prop in actors:
                    if not any(word in prop for word in NO_OBJECTS):
                        yield from self._assembled(prop, player, draw, place @ there, depth + 1)

    def _part(self, mesh: Pmd, place: Matrix, material: Material) -> Part:
        positions = mesh.positions @ place[:3, :3].T + place[:3, 3]
        uv = mesh.uv if material.texture is not None else None
        return Part(positions, mesh.triangles, None, uv, None, material)

    def _chosen(self, document: ET.Element, draw: random.Random) -> _Choice:
        choice = _Choice()
        for group in document.findall("group"):
            variants = group.findall("variant")
            if not variants:
                continue
            weights = [_number(variant.get("frequency")) for variant in variants]
            variant = draw.choices(variants, weights)[0] if sum(weights) > 0 else variants[0]
            if variant.get("file"):
                shared = self._document(VARIANTS + variant.get("file", ""))
                if shared is not None:
                    _say(choice, shared)
            _say(choice, variant)
        return choice

    def _material(self, document: ET.Element, choice: _Choice, player: Color) -> Material:
        file = choice.textures.get(BASE, "")
        if not file:
            return GRAY
        member = self._texture_member(file)
        if member is None:
            raise MeshError(f"texture missing: {file}")
        use = self._use((document.findtext("material") or "").strip())
        color = {"player": player, "object": choice.color}.get(use)
        return self._surface(member, use, color)

    def _use(self, material: str) -> str:
        """What alpha is for: `player` or `object` (their colors show through), `cut` (a cut-out), or nothing."""
        document = self._document(MATERIALS + material)
        if document is None:
            return ""
        on = {item.get("name") for item in document.findall("define") if item.get("value") != "0"}
        if "USE_PLAYERCOLOR" in on:
            return "player"
        if "USE_OBJECTCOLOR" in on:
            return "object"
        return "cut" if "USE_TRANSPARENT" in on or document.find("alpha_blending") is not None else ""

    def _made_surface(self, member: str, use: str, color: Color | None) -> Material:
        """Pyrogenesis multiplies the color of a player or an object where the texture is transparent."""
        image = self._image(member)
        if use == "cut":
            cut = image[..., 3] < 128
            # An alpha channel that hides nearly everything has another use.
            if cut.any() and cut.mean() <= 0.995:
                return Material(texture=Texture(image, name=member), alpha_mode="mask")
        opaque = image.copy()
        if color is not None:
            share = image[..., 3:].astype(np.float32) / 255
            shown = image[..., :3] * (share + (1 - share) * (np.array(color, np.float32) / 255))
            opaque[..., :3] = shown.round()
        opaque[..., 3] = 255
        return Material(texture=Texture(opaque, name=member))

    def _read_document(self, member: str) -> ET.Element | None:
        if member not in self.names:
            return None
        try:
            # Expat limits what entities may grow to (since 2.4.1), and fetches nothing.
            return ET.fromstring(self._read(member))  # noqa: S314
        except ET.ParseError as error:
            raise MeshError(f"{member} is damaged: {error}") from error

    def _read_mesh(self, name: str) -> Pmd | None:
        stem = posixpath.splitext(name)[0]
        for path in (f"{name}.cached.pmd", name, f"{stem}.pmd", f"{stem}.dae.cached.pmd"):
            if path.endswith(".pmd") and MESHES + path in self.names:
                return parse_pmd(self._read(MESHES + path))
        return None

    def _texture_member(self, name: str) -> str | None:
        stem = posixpath.splitext(name)[0]
        endings = (f"{name}.cached.dds", name, f"{stem}.dds", f"{stem}.png.cached.dds", f"{stem}.dds.cached.dds")
        return next((base + file for base in TEXTURES for file in endings if base + file in self.names), None)

    def _read_image(self, member: str) -> NDArray[np.uint8]:
        return load_image(self._read(member), member)

    def _read(self, member: str) -> bytes:
        try:
            if self._zip.getinfo(member).file_size > LARGEST_MEMBER:
                raise MeshError(f"{member} is larger than {LARGEST_MEMBER // 2**20} MiB")
            return self._zip.read(member)
        except UNREADABLE as error:
            raise MeshError(f"{member} cannot be read: {error}") from error


def _say(choice: _Choice, variant: ET.Element) -> None:
    """Add what a variant says to what earlier ones said."""
    choice.mesh = (variant.findtext("mesh") or "").strip() or choice.mesh
    color = (variant.findtext("color") or "").split()
    if len(color) == 3:
        red, green, blue = (int(min(max(_number(word), 0), 255)) for word in color)
        choice.color = (red, green, blue)
    for texture in variant.findall("textures/texture"):
        choice.textures[texture.get("name", "")] = texture.get("file", "")
    mentioned: set[str] = set()
    for prop in variant.findall("props/prop"):
        point, actor = prop.get("attachpoint", ""), prop.get("actor", "")
        if point not in mentioned:
            # Named without an actor, a point becomes empty.
            choice.props[point] = []
            mentioned.add(point)
        if actor:
            choice.props[point].append(actor)


def _attached(mesh: Pmd | None, point: str) -> Matrix | None:
    """Transform [4,4] of an attachment point to the mesh, None if it has no such point."""
    if point == ROOT or mesh is None:
        return np.eye(4) if point == ROOT else None
    prop = mesh.props.get(f"prop-{point}", mesh.props.get(point))
    if prop is None:
        return None
    return prop.transform if prop.bone is None else mesh.bones[prop.bone] @ prop.transform


def _number(text: Any) -> float:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return 0.0
    return number if 0 <= number < 1e9 else 0.0
