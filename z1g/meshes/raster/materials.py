"""Reader of the material libraries (.mtl) of OBJ files: diffuse color, its image, and opacity."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.images import load_image
from z1g.meshes.raster.scene import GRAY, Material, MeshError, Texture, Wrap
from z1g.meshes.textures import gazebo_place

_OPTION = re.compile(r"-(\w+)((?:\s+(?:on|off|[-+.\deE]+))*)\s+")
FULL = 254 / 255


@dataclass(frozen=True)
class Surface:
    """A material, and the scale and offset (u and v) of its image's coordinates."""

    material: Material
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)


def read_materials(path: Path) -> dict[str, Surface]:
    """The materials of a library by name. Raises MeshError if an image is missing or unreadable."""
    blocks: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise MeshError(f"material file {path.name} cannot be read: {error.strerror}") from error
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "newmtl":
            current = blocks.setdefault(rest.strip(), {})
        elif rest:
            current[word.lower()] = rest.strip()
    images = _Images(path.parent)
    return {name: _surface(values, images) for name, values in blocks.items()}


class _Images(dict[str, NDArray[np.uint8]]):
    """Images by name, relative to a folder, loaded when they are first asked for. Raises MeshError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __missing__(self, name: str) -> NDArray[np.uint8]:
        windows = name.replace("\\", "/")
        # Those of another separator, and those in another folder of a Gazebo model.
        candidates = [self._folder / place for place in (name, windows, gazebo_place(windows))]
        self[name] = load_image(next((file for file in candidates if file.is_file()), candidates[1]), name)
        return self[name]


def _surface(values: dict[str, str], images: _Images) -> Surface:
    color = _numbers(values.get("kd", ""), 3) or GRAY.factor[:3]
    opacity = (_numbers(values.get("d", "").removeprefix("-halo"), 1) or (1.0,))[0]
    if "tr" in values and "d" not in values:
        opacity = 1.0 - (_numbers(values["tr"], 1) or (0.0,))[0]
    red, green, blue = color
    material = Material((red, green, blue, opacity), None, "blend" if opacity < FULL else "opaque")
    name, options = _map(values.get("map_kd", ""))
    mask, _ = _map(values.get("map_d", ""))
    if name is None and mask is None:
        return Surface(material)
    image = np.full((1, 1, 4), 255, np.uint8) if name is None else images[name].copy()
    # Without map_d, an image's alpha does not count. An image replaces Kd.
    image[..., 3] = 255
    if mask is not None:
        image = _masked(image, images[mask], same=mask == name)
    wrap: Wrap = "clamp" if options.get("clamp", ["off"])[0] == "on" else "repeat"
    red, green, blue = color if name is None else (1.0, 1.0, 1.0)
    translucent = opacity < FULL or bool((image[..., 3] < 255).any())
    material = replace(material, factor=(red, green, blue, opacity), texture=Texture(image, (wrap, wrap)),
                       alpha_mode="blend" if translucent else "opaque")  # fmt: skip
    return Surface(material, _pair(options.get("s", []), 1.0), _pair(options.get("o", []), 0.0))


def _masked(image: NDArray[np.uint8], mask: NDArray[np.uint8], same: bool) -> NDArray[np.uint8]:
    """The image [H,W,4] with the opacity of `mask`: its alpha if it is the same file, else its brightness."""
    from PIL import Image

    opacity = mask[..., 3] if same or (mask[..., 3] < 255).any() else mask[..., :3].mean(axis=-1).astype(np.uint8)
    height, width = (max(image.shape[axis], opacity.shape[axis]) for axis in (0, 1))
    resized = [np.asarray(Image.fromarray(layer).resize((width, height))) for layer in (image, opacity)]
    resized[0] = resized[0].copy()
    resized[0][..., 3] = resized[1]
    return resized[0]


def _map(text: str) -> tuple[str | None, dict[str, list[str]]]:
    """File name and options of a line `map_Kd -s 2 2 1 file name.png`."""
    options: dict[str, list[str]] = {}
    start = 0
    while match := _OPTION.match(text, start):
        options[match[1].lower()] = match[2].split()
        start = match.end()
    return text[start:].strip().strip('"') or None, options


def _numbers(text: str, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(word) for word in text.split()[:count])
    except ValueError:
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _pair(words: list[str], default: float) -> tuple[float, float]:
    first = _numbers(" ".join(words), 1) or (default,)
    both = _numbers(" ".join(words), 2) or (first[0], default)
    return both[0], both[1]
