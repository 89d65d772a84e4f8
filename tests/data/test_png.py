"""The decoder of shards' images against Pillow, and damaged files."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from z1g.data.png import decode_rgba, encode_rgba, require_checksums


def noise(height: int, width: int, seed: int, values: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, values, (height, width, 4), dtype=np.uint8)


def saved(image: np.ndarray, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image, "RGBA").save(buffer, "PNG", **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def filtered(image: np.ndarray, kinds: list[int]) -> bytes:
    """A file whose rows use these filters, encoded as in section 9.2 of the specification."""
    height, width, _ = image.shape
    rows, before = [], np.zeros((width, 4), int)
    for row, kind in zip(image.astype(int), kinds, strict=True):
        left = np.vstack([np.zeros((1, 4), int), row[:-1]])
        corner = np.vstack([np.zeros((1, 4), int), before[:-1]])
        guesses = np.stack([left, before, corner])
        distances = np.abs(left + before - corner - guesses)
        paeth = np.take_along_axis(guesses, distances.argmin(axis=0)[None], axis=0)[0]
        guess = [np.zeros_like(row), left, before, (left + before) // 2, paeth][kind]
        rows.append(bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes())
        before = row
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    packed = zlib.compress(b"".join(rows))
    halves = [chunk(b"IDAT", packed[: len(packed) // 2]), chunk(b"IDAT", packed[len(packed) // 2 :])]
    parts = [chunk(b"IHDR", header), chunk(b"tEXt", b"a\0b"), *halves, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.sampled_from([2, 9, 256]), st.integers(0, 9))
def test_pillows_files(height: int, width: int, seed: int, values: int, level: int) -> None:
    image = noise(height, width, seed, values)
    np.testing.assert_array_equal(decode_rgba(saved(image, compress_level=level)), image)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.integers(1, 9), st.integers(0, 99))
def test_every_filter(kinds: list[int], width: int, seed: int) -> None:
    image = noise(len(kinds), width, seed, 256)
    content = filtered(image, kinds)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), image)
    np.testing.assert_array_equal(decode_rgba(content), image)


def test_an_image_is_decoded_into_an_array_of_its_size() -> None:
    image = noise(6, 5, 0, 256)
    targets = np.zeros((3, 6, 5, 4), np.uint8)
    assert decode_rgba(saved(image), targets[1]) is not None
    np.testing.assert_array_equal(targets[1], image)
    assert not targets[[0, 2]].any()
    actual = decode_rgba(saved(noise(5, 6, 1, 256)), targets[2])
    np.testing.assert_array_equal(actual, noise(5, 6, 1, 256))
    assert not targets[2].any()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "LA", "I;16"])
def test_other_kinds_are_left_to_pillow(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (5, 4)).save(buffer, "PNG")
    assert decode_rgba(buffer.getvalue()) is None


@settings(max_examples=200)
@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_damaged_files_give_no_other_image(position: int, value: int, cut: bool) -> None:
    content = bytearray(saved(noise(9, 7, 1, 256)))
    position %= len(content)
    if cut:
        del content[position:]
    else:
        content[position] = value
    actual = decode_rgba(bytes(content))
    if actual is not None:
        # Checksums of chunks are not verified, but the stream has its own.
        np.testing.assert_array_equal(actual.ravel()[: 9 * 7 * 4], noise(9, 7, 1, 256).ravel())


def test_a_bomb_is_not_inflated_beyond_its_header() -> None:
    header = struct.pack(">IIBBBBB", 4, 4, 8, 6, 0, 0, 0)
    bomb = chunk(b"IDAT", zlib.compress(bytes(2**24)))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + bomb + chunk(b"IEND", b"")
    assert decode_rgba(content) is None


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.sampled_from([2, 9, 256]))
def test_files_that_are_encoded_here_are_read_by_pillow_and_here(h: int, w: int, seed: int, values: int) -> None:
    image = noise(h, w, seed, values)
    content = encode_rgba(image)
    with Image.open(io.BytesIO(content)) as opened:
        opened.verify()
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(opened), image)
    np.testing.assert_array_equal(decode_rgba(content), image)


def test_views_of_other_arrays_are_encoded_alike() -> None:
    image = noise(12, 20, 0, 256)
    assert encode_rgba(image[::-1, 3:9]) == encode_rgba(image[::-1, 3:9].copy())


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), seed=st.integers(0, 9))
def test_a_flipped_bit_before_the_last_chunk_is_noticed(place: float, bit: int, seed: int) -> None:
    content = bytearray(saved(noise(9, 7, seed, 256)))
    require_checksums(io.BytesIO(content))
    last = content.index(b"IEND") - 4
    content[8 + int(place * (last - 8))] ^= 1 << bit
    with pytest.raises((OSError, SyntaxError, ValueError)):
        require_checksums(io.BytesIO(content))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP"])
def test_other_formats_have_no_checksums(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    buffer.seek(0)
    require_checksums(buffer)
