"""Converts photographs to condition images like those of training.

A condition image shows an object in the sphere of radius 0.5 from the configured distance. The sphere's outline has
tan(asin(0.5/r)) / tan(fov/2) = 0.77 of the image's width at the defaults; the circle around the object's outline has on
average CIRCLE of that. The object in a photograph is cut out, centered and scaled to this size.
"""

import hashlib
import importlib.util
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.files import read_bytes
from z1g.data.condition_form import Resize
from z1g.data.conditions import condition_image
from z1g.data.png import require_checksums
from z1g.geometry.camera import CameraOptions
from z1g.inference.listed import NOT_READ, REMEDY

log = logging.getLogger("z1g")
Background = Literal["remove", "keep"]
CIRCLE = 0.94
"""Diameter of the circle around the outline's box, as a fraction of the sphere's outline: mean of 200 renders of the
demo's eight objects, 0.73 of the image's width, standard deviation 0.07."""
MAX_PIXELS = 178_956_970
"""Twice Pillow's limit, at which Pillow raises an error: larger images are decompression bombs or mistakes."""
LARGEST_BYTES = 256 * 2**20
"""Size limit of a file."""
SEEN = 16
"""Minimum alpha, of 255, of pixels of the object; lower values are the fringe of a matte."""
SMALLEST = 8
"""Minimum size of an object, pixels."""
LARGEST_SIDE, LARGEST_CUT = 4096, 2048
"""Maximum side of photographs, and of the squares cropped from them, pixels; larger ones are downsampled."""
ROWS = 256
"""Rows of a large image that are converted at once: what decoding leaves takes most of the memory."""


@dataclass(frozen=True)
class Photograph:
    """An image of one object: uint8 [H,W,4], straight alpha, and the SHA-256 digest of its file."""

    rgba: NDArray[np.uint8]
    digest: str

    @property
    def seed(self) -> int:
        """A 32-bit seed derived from the content of the file."""
        return int(self.digest[:8], 16)


@dataclass(frozen=True)
class Framing:
    """Changes of the crop: its center moves by `shift` of its side, right and down, and its side becomes 1/zoom."""

    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0

    def __post_init__(self) -> None:
        if len(self.shift) != 2:
            raise ValueError(f"the crop's shift is two numbers, right and down, not {self.shift}")
        if not (all(abs(x) <= 1 for x in self.shift) and 0.25 <= self.zoom <= 4):
            raise UserError("the crop's shift must be from -1 to 1, and its zoom from 0.25 to 4")


AS_FOUND = Framing()


def read(path: Path, background: Background = "remove") -> Photograph:
    """A photograph, upright, in sRGB, 8 bit.

    `remove` cuts the object out with rembg if no pixel is transparent; `keep` uses the image unchanged. Raises
    UserError if the file is not an image, damaged or too large, if nothing is visible, or if rembg is missing.
    """
    try:
        content = read_bytes(path, LARGEST_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    return decode(content, path, background)


def decode(content: bytes, path: Path, background: Background = "remove") -> Photograph:
    """`read` of a file's content; `path` is its name in messages."""
    cutout = _opened(content, path)
    if background == "remove" and np.asarray(cutout)[..., 3].min() == 255:
        cutout = _without_background(cutout, path)
    rgba = np.asarray(cutout)
    _check_visible(rgba, path)
    return Photograph(rgba, hashlib.sha256(content).hexdigest())


def _opened(content: bytes, path: Path) -> Image.Image:
    """The image of a file: upright, RGBA with straight alpha, with sides of up to LARGEST_SIDE."""
    with as_user_error(path), Image.open(BytesIO(content)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        if image.format == "TIFF" and path.suffix.lower() in NOT_READ:
            raise UserError(f"{path} is a camera's raw image, of which only a preview could be read; {REMEDY}")
        require_checksums(BytesIO(content))
        # A JPEG can be decoded at a half, a quarter or an eighth of its size.
        image.draft(None, _reduced(image.size))
        image.load()
        cutout = _rgba(image, path)
        # The metadata stay with the image that was opened.
        cutout.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
        ImageOps.exif_transpose(cutout, in_place=True)
    # Phones store a preview as the second image of a JPEG (MPO).
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        log.info("%s has %d images; the first one is used", path, getattr(image, "n_frames", 1))
    return cutout


def condition(
    photograph: Photograph, camera: CameraOptions, size: int, background: Background = "remove",
    resize: Resize = "bilinear", framing: Framing = AS_FOUND,
) -> Tensor:  # fmt: skip
    """The UNet's condition [3,size,size] in 0..1 on gray 127: the object centered and scaled as in training.

    `keep` shows the whole image of a photograph without transparency, padded to a square. `framing` adjusts the crop.
    """
    rgb, alpha = cropped(photograph, camera, background, framing)
    return condition_image(rgb, alpha, size, resize)


def cropped(
    photograph: Photograph, camera: CameraOptions, background: Background = "remove", framing: Framing = AS_FOUND
) -> tuple[Tensor, Tensor]:
    """The square that `condition` shows: premultiplied color [1,3,H,H] and alpha [1,1,H,H] in 0..1.

    Raises UserError if `framing` moves it away from all that is visible.
    """
    rgba = photograph.rgba
    x, y, side = _square(rgba[..., 3], camera)
    if background == "keep" and rgba[..., 3].min() == 255:
        x, y, side = rgba.shape[1] / 2, rgba.shape[0] / 2, float(max(rgba.shape[:2]))
    x, y = x + framing.shift[0] * side, y + framing.shift[1] * side
    side /= framing.zoom
    # Premultiply before resizing, so that colors of transparent pixels do not bleed into the outline.
    image = Image.fromarray(rgba).convert("RGBa")
    half = side / 2
    # Pixels outside the image are transparent.
    square = image.crop((round(x - half), round(y - half), round(x + half), round(y + half)))
    if np.asarray(square.getchannel("a")).max() < SEEN:
        raise UserError("the crop shows nothing of the photograph; bring --shift nearer to 0, or --zoom nearer to 1")
    square.thumbnail((LARGEST_CUT, LARGEST_CUT), Image.Resampling.BOX)
    layers = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 255
    return layers[:, :3], layers[:, 3:]


def object_share(camera: CameraOptions) -> float:
    """Diameter of the circle around an object's outline, as a fraction of the image's width."""
    return CIRCLE * math.tan(math.asin(0.5 / camera.radius)) / math.tan(math.radians(camera.fov_y_deg) / 2)


def _square(alpha: NDArray[np.uint8], camera: CameraOptions) -> tuple[float, float, float]:
    """Center and side, in pixels, of the square crop that shows the object at the size of training."""
    seen = alpha >= SEEN
    rows = np.flatnonzero(seen.any(axis=1))
    # The pixel that is farthest from the center is the first or the last one of its row.
    first = seen[rows].argmax(axis=1)
    last = alpha.shape[1] - 1 - seen[rows, ::-1].argmax(axis=1)
    x, y = float(first.min() + last.max() + 1) / 2, float(rows.min() + rows.max() + 1) / 2
    columns = np.stack([first, last])
    reach = float(np.sqrt((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2).max()) + 0.5
    return x, y, max(2 * reach / object_share(camera), 1.0)


@contextmanager
def as_user_error(path: Path) -> Iterator[None]:
    """Convert the errors of Pillow to UserErrors of one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image of a supported format; save it as PNG or JPEG") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} has more than {MAX_PIXELS // 1_000_000} million pixels; make it smaller") from error
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory; make it smaller") from error
    except (OSError, SyntaxError, ValueError, IndexError, KeyError, TypeError, EOFError, OverflowError) as error:
        raise UserError(f"{path} is damaged: {str(error) or type(error).__name__}") from error


def _reduced(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height with sides of up to LARGEST_SIDE."""
    scale = min(1.0, LARGEST_SIDE / max(size))
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def _rgba(image: Image.Image, path: Path) -> Image.Image:
    """Convert any mode to 8-bit sRGB with straight alpha, downsampled to sides of up to LARGEST_SIDE."""
    convert = _conversion(image, path)
    width, height = _reduced(image.size)
    if (width, height) == image.size:
        return convert(image)
    result = Image.new("RGBA", (width, height))
    for top in range(0, height, ROWS):
        bottom = min(top + ROWS, height)
        first, last = (row * image.height / height for row in (top, bottom))
        above = math.floor(first)
        rows = convert(image.crop((0, above, image.width, math.ceil(last)))).convert("RGBa")
        box = (0, first - above, image.width, last - above)
        result.paste(rows.resize((width, bottom - top), Image.Resampling.BOX, box).convert("RGBA"), (0, top))
    return result


def _conversion(image: Image.Image, path: Path) -> Callable[[Image.Image], Image.Image]:
    """What converts an image or a part of it to 8-bit sRGB with straight alpha. Raises UserError."""
    white = _white(image, path) if image.mode in ("I", "F") or image.mode.startswith("I;16") else None
    sample = _eight_bit(image.crop((0, 0, 1, 1)), white)
    profile = sample.info.get("icc_profile")
    transform = None
    if profile and sample.mode in ("RGB", "RGBA", "CMYK", "L", "LAB"):
        transform = _to_srgb(sample, profile, path)
    if sample.mode == "LAB" and transform is None:
        raise UserError(f"{path}: an image in Lab colors needs a color profile; save it as sRGB")

    def convert(part: Image.Image) -> Image.Image:
        part = _eight_bit(part, white)
        if transform is not None:
            part = ImageCms.applyTransform(part, transform) or part
        return part.convert("RGBA")

    return convert


def _to_srgb(sample: Image.Image, profile: bytes, path: Path) -> ImageCms.ImageCmsTransform | None:
    """The transform to sRGB of images like a sample; None if the profile cannot be used."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        mode = "RGBA" if sample.mode == "RGBA" else "RGB"
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), sample.mode, mode)
        ImageCms.applyTransform(sample, transform)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        log.info("%s: its color profile is ignored (%s)", path, error)
        return None
    return transform


def _white(image: Image.Image, path: Path) -> float:
    """The value of white among gray values of 16 or 32 bits or floats."""
    low, high = math.inf, -math.inf
    for top in range(0, image.height, ROWS):
        values = np.asarray(image.crop((0, top, image.width, min(top + ROWS, image.height))))
        if not np.isfinite(values).all():
            raise UserError(f"{path}: some pixels are not finite numbers")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if image.mode == "F":
        white = 1.0 if high <= 1 else 255.0
    else:
        white = 255.0 if image.mode == "I" and high <= 255 else 65535.0
    # Above 1 by a little is overshoot of 0..1, which as 0..255 would be black.
    if low < 0 or high > white or (image.mode == "F" and 1 < high < 2):
        raise UserError(f"{path}: gray values from {low:g} to {high:g} are not supported; save it with 8 or 16 bits")
    return white


def _eight_bit(image: Image.Image, white: float | None) -> Image.Image:
    """Convert any mode to one with 8 bits, with alpha if it has transparency. white: of gray values of more bits."""
    if white is not None:
        values = np.asarray(image).astype(np.float64)
        gray = Image.fromarray((values / white * 255).round().astype(np.uint8))
        image = _with_transparency(gray, image)
    if image.mode in ("P", "PA", "LA", "La", "RGBa", "1") or "transparency" in image.info:
        image = image.convert("RGBA")
    return image


def _with_transparency(image: Image.Image, original: Image.Image) -> Image.Image:
    """`image` [H,W], 8 bits, with alpha 0 where the original, of more bits, has the value that it calls transparent."""
    transparent = original.info.get("transparency")
    if not isinstance(transparent, int):
        return image
    alpha = np.where(np.asarray(original) == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (image, Image.fromarray(alpha)))


def _without_background(image: Image.Image, path: Path) -> Image.Image:
    missing = [name for name in ("rembg", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{path} has no transparent background, and removing it needs {' and '.join(missing)}: "
            "pip install 'z1g[photo]', cut the object out yourself, or use --background keep"
        )
    from rembg import remove

    cut: Image.Image = remove(image.convert("RGB"))
    return cut.convert("RGBA")


def _check_visible(rgba: NDArray[np.uint8], path: Path) -> None:
    seen = rgba[..., 3] >= SEEN
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise UserError(f"{path}: nothing is visible, all pixels are transparent")
    height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    if max(height, width) < SMALLEST:
        raise UserError(f"{path}: the object is {width}x{height} pixels, below the minimum of {SMALLEST}")
