"""Photographs of every format: upright, in sRGB, cut out and framed as in training, or an error of one line."""

import contextlib
import io
import os
import resource
import struct
import sys
import types
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features
from support.builders import ball
from support.photographs import disc, saved
from support.watched import prepared

from z1g.core.errors import UserError
from z1g.geometry.camera import CameraOptions
from z1g.inference import photographs
from z1g.inference.listed import find
from z1g.inference.photographs import condition, decode, object_share, read

CAMERA = CameraOptions()
GRAY = 127 / 255
MODES = {
    ".png": ("RGB", "L", "1", "P"),
    ".jpg": ("RGB", "L", "CMYK", "YCbCr", "1"),
    ".tiff": ("RGB", "L", "CMYK", "YCbCr", "1", "P"),
    ".bmp": ("RGB", "L", "1", "P"),
    ".gif": ("RGB", "L", "1", "P"),
}
"""Modes that Pillow can write in files of each format."""


# Framing


def extent(image: torch.Tensor) -> tuple[float, float, float]:
    """Center and diameter of the pixels that differ from gray, as fractions of the width."""
    rows, columns = np.nonzero(((image - GRAY).abs().sum(dim=0) > 0.15).numpy())
    x, y = ((line.min() + line.max() + 1) / 2 for line in (columns, rows))
    reach = np.hypot(columns + 0.5 - x, rows + 0.5 - y).max()
    return x / image.shape[2], y / image.shape[1], 2 * reach / image.shape[2]


@given(
    width=st.integers(40, 300), height=st.integers(40, 300), radius=st.floats(8, 15), size=st.integers(48, 200),
)  # fmt: skip
def test_an_object_is_centered_and_as_large_as_in_training(width: int, height: int, radius: float, size: int) -> None:
    rgba = np.asarray(disc(width, height, radius))
    image = condition(photographs.Photograph(rgba, "0" * 64), CAMERA, size)
    assert image.shape == (3, size, size)
    x, y, diameter = extent(image)
    assert (x, y) == pytest.approx((0.5, 0.5), abs=1.5 / size + 0.01)
    assert diameter == pytest.approx(object_share(CAMERA), abs=3 / size + 0.05)
    torch.testing.assert_close(image[:, 0, 0], torch.full((3,), GRAY), atol=1e-3, rtol=0)
    # Bleeding of the transparent pixels' green would be visible, as the other channels are low.
    torch.testing.assert_close(image[:, size // 2, size // 2], torch.tensor([200, 60, 20]) / 255, atol=0.01, rtol=0)
    assert float((image[1] - image[0]).max()) < 0.01


def test_training_images_keep_their_size() -> None:
    """A render of a ball that fills the sphere, processed like a photograph."""
    item = ball("globe", CAMERA, 96)
    photograph = photographs.Photograph(item.rgba[0], "0" * 64)
    *_, diameter = extent(condition(photograph, CAMERA, 96))
    assert diameter == pytest.approx(0.94 * 0.774, abs=0.03)


def test_a_wide_lens_makes_objects_smaller() -> None:
    assert object_share(CAMERA) == pytest.approx(0.728, abs=0.001)
    assert object_share(CameraOptions(radius=3.0)) < 0.5 * object_share(CAMERA)


# File formats


def upright(path: Path) -> np.ndarray:
    return read(path, "keep").rgba


def test_modes_hold_the_same_image(tmp_path: Path) -> None:
    reference = disc()
    expected = np.asarray(reference)
    quantized = reference.convert("RGBA").quantize(8)
    for image, name in (
        (reference, "a.png"),
        (quantized, "palette.png"),
        (reference, "a.webp"),
        (reference, "a.tiff"),
        (reference, "a.tga"),
    ):
        options = {"lossless": True} if name.endswith("webp") else {}
        actual = upright(saved(tmp_path, image, name, **options))
        visible = expected[..., 3] > 0
        assert (actual[..., 3] == expected[..., 3]).all(), name
        np.testing.assert_allclose(actual[visible].astype(int), expected[visible].astype(int), atol=3, err_msg=name)


@pytest.mark.parametrize(("ending", "mode"), [(ending, mode) for ending, modes in MODES.items() for mode in modes])
def test_images_without_transparency(tmp_path: Path, mode: str, ending: str) -> None:
    flat = Image.new("RGB", (40, 30), (250, 250, 250))
    flat.paste((40, 40, 40), (10, 5, 30, 25))
    image = flat.quantize(4) if mode == "P" else flat.convert(mode)
    actual = upright(saved(tmp_path, image, f"a{ending}"))
    assert actual.shape == (30, 40, 4)
    assert (actual[..., 3] == 255).all()
    # Black and white cannot represent 40; lossy compression and CMYK are approximate.
    np.testing.assert_allclose(actual[15, 20, :3], 40, atol=40 if mode == "1" else 12)
    np.testing.assert_allclose(actual[2, 2, :3], 250, atol=12)


def test_gray_of_16_bits(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    for name in ("a.png", "a.tiff"):
        actual = upright(saved(tmp_path, Image.fromarray(values), name))
        np.testing.assert_allclose(actual[..., 0], values / 257, atol=0.51)
        np.testing.assert_allclose(actual[..., 2], values / 257, atol=0.51)


def test_gray_of_16_bits_with_a_transparent_value(tmp_path: Path) -> None:
    """Rounded to 8 bits, 65,400 and 65,535 would be the same white; only one of them is transparent."""
    values = np.full((40, 50), 65535, np.uint16)
    values[10:30, 12:32], values[15, 20] = 20000, 65400
    actual = upright(saved(tmp_path, Image.fromarray(values), transparency=65535))
    np.testing.assert_array_equal(actual[..., 3], np.where(values == 65535, 0, 255))
    assert (actual[12, 14, 0], actual[15, 20, 0]) == (78, 254)


def test_color_of_16_bits(tmp_path: Path) -> None:
    """Encoded by hand, as Pillow cannot write such files."""
    values = np.zeros((20, 24, 4), ">u2")
    values[..., 0], values[..., 3] = 51400, 65535
    values[:4, :, 3] = 0
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 24, 20, 16, 6, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    actual = upright(tmp_path / "a.png")
    assert actual[10, 10].tolist() == [200, 0, 0, 255]
    assert actual[0, 0, 3] == 0


def test_floats(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    actual = upright(saved(tmp_path, Image.fromarray(values), "a.tiff"))
    np.testing.assert_allclose(actual[..., 1], values * 255, atol=0.51)
    with pytest.raises(UserError, match="are not supported"):
        upright(saved(tmp_path, Image.fromarray(values * 1e6), "b.tiff"))
    with pytest.raises(UserError, match=r"gray values from 0 to 1\.02 are not supported"):
        upright(saved(tmp_path, Image.fromarray(values * np.float32(1.02)), "overshoot.tiff"))
    values[3, 3] = np.nan
    with pytest.raises(UserError, match="not finite"):
        upright(saved(tmp_path, Image.fromarray(values), "c.tiff"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_camera(tmp_path: Path, orientation: int) -> None:
    """The EXIF orientation is applied, against an independent table of rotations."""
    image = Image.new("RGB", (40, 24), (250, 250, 250))
    image.paste((250, 0, 0), (0, 0, 12, 8))  # red in the upper left
    array = np.asarray(image)
    stored = {
        1: array, 2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1], 5: array.transpose(1, 0, 2),
        6: np.rot90(array), 7: np.rot90(array, 2).transpose(1, 0, 2), 8: np.rot90(array, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), "a.png", exif=exif)
    np.testing.assert_array_equal(upright(path)[..., :3], array)


def test_colors_of_another_profile(tmp_path: Path) -> None:
    """The profile of sRGB with red and green primaries swapped, so that stored red means green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    place = {bytes(profile[i : i + 4]): i + 4 for i in range(132, 132 + 12 * profile[131], 12)}
    red, green = (slice(place[name], place[name] + 8) for name in (b"rXYZ", b"gXYZ"))
    profile[red], profile[green] = profile[green], profile[red]
    flat = Image.new("RGB", (30, 30), (200, 100, 50))
    path = saved(tmp_path, flat, "a.png", icc_profile=bytes(profile))
    np.testing.assert_allclose(upright(path)[5, 5, :3], (100, 200, 50), atol=3)
    broken = saved(tmp_path, flat, "b.png", icc_profile=b"nonsense" * 20)
    np.testing.assert_array_equal(upright(broken)[5, 5, :3], (200, 100, 50))


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    first, second = disc(), disc(color=(20, 60, 200))
    for name in ("a.webp", "a.png", "a.gif"):
        path = saved(tmp_path, first, name, save_all=True, append_images=[second], duration=100)
        actual = upright(path)
        middle = actual[int(0.45 * 48), int(0.4 * 64)].astype(int)
        np.testing.assert_allclose(middle, (200, 60, 20, 255), atol=14, err_msg=name)


# Unusable files


def fully_transparent(folder: Path) -> Path:
    return saved(folder, Image.new("RGBA", (30, 30), (9, 9, 9, 0)))


def cut_short(folder: Path) -> Path:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(stream, "JPEG")
    (folder / "a.jpg").write_bytes(stream.getvalue()[:-900])
    return folder / "a.jpg"


def no_image(folder: Path) -> Path:
    (folder / "a.png").write_text("not an image")
    return folder / "a.png"


def nothing(folder: Path) -> Path:
    (folder / "a.png").write_bytes(b"")
    return folder / "a.png"


def bomb(folder: Path) -> Path:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    body = zlib.compress(bytes(1000))
    data = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + data)
    return folder / "a.png"


def smudge(folder: Path) -> Path:
    return saved(folder, disc(radius=2))


def one_pixel(folder: Path) -> Path:
    return saved(folder, Image.new("RGB", (1, 1), (9, 9, 9)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (fully_transparent, "nothing is visible"),
        (cut_short, "is damaged"),
        (no_image, "is not an image of a supported format"),
        (nothing, "is not an image of a supported format"),
        (bomb, "more than 178 million pixels"),
        (smudge, "the object is 4x4 pixels"),
        (one_pixel, "1x1 pixels"),
    ],
)
def test_unusable_files_give_an_error_of_one_line(tmp_path: Path, make: Any, message: str) -> None:
    path = make(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        read(path, "keep")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@given(
    position=st.integers(0, 100_000),
    value=st.integers(0, 255),
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP"]),
)
def test_damage_never_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, kind: str
) -> None:
    stream = io.BytesIO()
    disc().convert("RGB").save(stream, kind)
    content = bytearray(stream.getvalue())
    content[position % len(content)] = value
    path = tmp_path_factory.mktemp("damaged") / "a"
    path.write_bytes(content)
    try:
        rgba = read(path, "keep").rgba
    except UserError:
        return
    assert rgba.ndim == 3


def test_large_photographs_are_downsampled_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "LARGEST_SIDE", 100)
    monkeypatch.setattr(photographs, "LARGEST_CUT", 60)
    photograph = read(saved(tmp_path, disc(400, 300, 100)))
    assert photograph.rgba.shape == (75, 100, 4)
    x, y, diameter = extent(condition(photograph, CAMERA, 64))
    assert (x, y, diameter) == pytest.approx((0.5, 0.5, 0.728), abs=0.06)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_large_photographs_are_means_of_areas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, orientation: int
) -> None:
    """Converted a few rows at a time, against float64 means of premultiplied blocks of 5 x 5 pixels."""
    monkeypatch.setattr(photographs, "LARGEST_SIDE", 80)
    monkeypatch.setattr(photographs, "ROWS", 7)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 4), np.uint8)
    noise[..., 3] = np.where(noise[..., 3] > 128, 255, 90)
    image = Image.fromarray(noise).convert("L" if mode == "I;16" else mode)
    original = np.asarray(image.convert("RGBA"))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = orientation
    actual = upright(saved(tmp_path, image, "a.tiff" if mode == "CMYK" else "a.png", exif=exif)).astype(np.float64)
    if orientation == 6:
        original = np.rot90(original, -1)
    blocks = original.astype(np.float64).reshape(original.shape[0] // 5, 5, -1, 5, 4)
    alpha = blocks[..., 3].mean(axis=(1, 3))
    color = (blocks[..., :3] * blocks[..., 3:] / 255).mean(axis=(1, 3))
    np.testing.assert_allclose(actual[..., 3], alpha, atol=1.01)
    np.testing.assert_allclose(actual[..., :3] * alpha[..., None] / 255, color, atol=3)


def test_large_jpegs_are_decoded_at_part_of_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.mgrid[:640, :960]
    smooth = np.stack([x / 959, y / 639, 0.5 + 0.4 * np.sin(x / 90) * np.cos(y / 90)], axis=2)
    image = Image.fromarray((255 * smooth).round().astype(np.uint8))
    path = saved(tmp_path, image, "a.jpg", quality=95)
    monkeypatch.setattr(photographs, "LARGEST_SIDE", 240)
    decoded: list[tuple[int, int]] = []
    convert = photographs._rgba
    monkeypatch.setattr(photographs, "_rgba", lambda image, path: decoded.append(image.size) or convert(image, path))
    actual = upright(path)
    assert decoded == [(240, 160)]
    np.testing.assert_allclose(actual[..., :3], 255 * smooth.reshape(160, 4, 240, 4, 3).mean(axis=(1, 3)), atol=4)


def test_the_farthest_pixel_is_found(tmp_path: Path) -> None:
    """Against all pixels."""
    alpha = np.where(np.random.default_rng(0).random((60, 90)) < 0.004, 255, 0).astype(np.uint8)
    rows, columns = np.nonzero(alpha)
    x, y = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
    reach = max(np.hypot(column + 0.5 - x, row + 0.5 - y) for row, column in zip(rows, columns, strict=True)) + 0.5
    assert photographs._square(alpha, CAMERA) == pytest.approx((x, y, 2 * reach / object_share(CAMERA)))


def _read_in_little_memory(path: Path) -> None:
    photographs.LARGEST_SIDE, photographs.ROWS = 1000, 32
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 2 * 4 * 6000**2
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    assert read(path, "keep").rgba.shape == (1000, 1000, 4)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit of memory is that of Linux")
def test_a_large_photograph_takes_the_memory_of_what_is_decoded(tmp_path: Path) -> None:
    """36 million pixels, of 4 bytes each in Pillow: they and as much again are enough."""
    path = saved(tmp_path, Image.new("RGB", (6000, 6000), (200, 60, 20)), "a.png", compress_level=1)
    process = prepared().Process(target=_read_in_little_memory, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 0


# Backgrounds


def test_without_rembg_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rembg", None)
    monkeypatch.setattr(photographs.importlib.util, "find_spec", lambda name: None)
    path = saved(tmp_path, disc().convert("RGB"))
    with pytest.raises(UserError, match=r"pip install 'z1g\[photo\]'.*--background keep"):
        read(path)


def test_rembg_cuts_the_object_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replacement of the package, whose weights are not available: it keeps dark pixels."""

    def remove(image: Image.Image) -> Image.Image:
        rgba = np.asarray(image.convert("RGBA")).copy()
        rgba[..., 3] = np.where(rgba[..., :3].sum(axis=2) < 400, 255, 0)
        return Image.fromarray(rgba)

    monkeypatch.setitem(sys.modules, "rembg", types.SimpleNamespace(remove=remove))
    monkeypatch.setattr(photographs.importlib.util, "find_spec", lambda name: object())
    white = Image.new("RGBA", (64, 48), "white")
    white.alpha_composite(disc())
    photograph = read(saved(tmp_path, white.convert("RGB")))
    x, y, diameter = extent(condition(photograph, CAMERA, 64))
    assert (x, y, diameter) == pytest.approx((0.5, 0.5, 0.728), abs=0.06)


def test_a_kept_background_fills_the_width(tmp_path: Path) -> None:
    flat = Image.new("RGB", (64, 32), (250, 10, 10))
    image = condition(read(saved(tmp_path, flat), "keep"), CAMERA, 64, "keep")
    torch.testing.assert_close(image[:, 32, 1], torch.tensor([250, 10, 10]) / 255, atol=0.01, rtol=0)
    torch.testing.assert_close(image[:, 5, 32], torch.full((3,), GRAY), atol=0.01, rtol=0)


def test_seeds_depend_on_the_content(tmp_path: Path) -> None:
    first, second = read(saved(tmp_path, disc())), read(saved(tmp_path, disc(), "b.png"))
    assert first.seed == second.seed
    assert read(saved(tmp_path, disc(radius=12), "c.png")).seed != first.seed


def test_folders_are_searched_for_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert find([tmp_path, tmp_path / "a.jpg"]) == [tmp_path / "a.jpg", tmp_path / "b.PNG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no photographs here"):
        find([tmp_path / "empty"])


def test_images_that_cannot_be_read_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As of telephones and cameras."""
    for name in ("a.jpg", "IMG_1.HEIC", "b.heif", "c.dng", "._d.heic", "notes.txt", "e.avif", "f.JFIF"):
        (tmp_path / name).touch()
    assert [file.name for file in find([tmp_path, tmp_path])] == ["a.jpg", "e.avif", "f.JFIF"]
    skipped = "skipped IMG_1.HEIC, b.heif, c.dng, which cannot be read: convert to PNG or JPEG"
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path}: {skipped}"]
    for name in ("a.jpg", "e.avif", "f.JFIF"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"no photographs here .*IMG_1\.HEIC, b\.heif, c\.dng cannot be read: convert"):
        find([tmp_path])


def test_images_that_cannot_be_read_are_no_photographs_by_name_either(tmp_path: Path) -> None:
    """An HEIC file by its first bytes; a raw image, as it is a TIFF file whose first image is a preview."""
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(UserError, match=r"a\.heic is not an image of a supported format; save it as PNG or JPEG"):
        read(find([tmp_path / "a.heic"])[0], "keep")
    preview = saved(tmp_path, disc(), "a.dng", format="TIFF")
    with pytest.raises(UserError, match=r"a\.dng is a camera's raw image, .*; convert to PNG or JPEG"):
        read(find([preview])[0], "keep")
    named = saved(tmp_path, disc(), "b.heic", format="PNG")
    assert read(find([named])[0]).rgba.shape == (48, 64, 4), "the content counts, not the name"


def test_avif(tmp_path: Path) -> None:
    assert features.check("avif"), "the wheels of Pillow in the lock have it"
    actual = upright(saved(tmp_path, disc(), "a.avif", quality=100))
    np.testing.assert_allclose(actual[21, 25].astype(int), (200, 60, 20, 255), atol=6)
    assert actual[0, 63, 3] == 0


def test_hidden_files_of_a_folder_are_no_photographs(tmp_path: Path) -> None:
    """Archives of macOS have a hidden file of attributes beside each photograph."""
    for name in ("a.jpg", "._a.jpg", ".cache.png"):
        (tmp_path / name).touch()
    assert find([tmp_path]) == [tmp_path / "a.jpg"]
    assert find([tmp_path / ".cache.png"]) == [tmp_path / ".cache.png"]


def test_results_beside_the_photographs_are_no_photographs(tmp_path: Path) -> None:
    """So that `z1g infer . --out .` does the same when it is called again; an image of the user's is one."""
    for name in ("a.jpg", "a.ply", "a.json", "a.condition.png", "a.sheet.png", "a.turntable.webp", "b.sheet.png"):
        (tmp_path / name).touch()
    assert find([tmp_path]) == [tmp_path / "a.jpg", tmp_path / "b.sheet.png"]


def test_a_photograph_with_a_preview_is_not_called_animated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As phones store them: MPO, of which the first image is the photograph."""
    first, preview = disc().convert("RGB"), Image.new("RGB", (16, 12), "blue")
    path = saved(tmp_path, first, "a.jpg", format="MPO", save_all=True, append_images=[preview])
    with caplog.at_level("INFO"):
        assert read(path, "keep").rgba.shape == (48, 64, 4)
        assert not caplog.text
        read(saved(tmp_path, disc(), "a.gif", save_all=True, append_images=[disc(radius=9)], duration=100), "keep")
    assert "a.gif has 2 images; the first one is used" in caplog.text


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_a_flipped_bit_of_a_png_is_noticed_or_changes_nothing(place: float, bit: int) -> None:
    stream = io.BytesIO()
    disc().save(stream, "PNG")
    content = bytearray(stream.getvalue())
    expected = decode(bytes(content), Path("a.png")).rgba
    content[int(place * len(content))] ^= 1 << bit
    with contextlib.suppress(UserError):
        assert np.array_equal(decode(bytes(content), Path("a.png")).rgba, expected)


def test_a_pipe_is_no_photograph(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png is neither a regular file nor a folder"):
        find([tmp_path / "a.png"])


@pytest.mark.parametrize("background", ["remove", "keep"])
def test_a_crop_of_nothing_is_an_error(tmp_path: Path, background: photographs.Background) -> None:
    image = disc() if background == "remove" else Image.new("RGB", (64, 48), "red")
    photograph = read(saved(tmp_path, image), background)
    condition(photograph, CAMERA, 64, background, framing=photographs.Framing((0.5, 0.0)))
    with pytest.raises(UserError, match="the crop shows nothing"):
        condition(photograph, CAMERA, 64, background, framing=photographs.Framing((1.0, 0.0)))
    with pytest.raises(UserError, match="no such file"):
        find([tmp_path / "gone.png"])
