"""Image and film files: pixels of PNG files, and films that are encoded while frames are made."""

import gc
import resource
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from z1g.core.errors import UserError
from z1g.render.images import save_png
from z1g.render.video import save_frames

FRAME_MS = 50


def frames(n: int = 6) -> list[NDArray[np.uint8]]:
    """A gray square that moves over black: [32,48,3] each."""
    images = np.zeros((n, 32, 48, 3), np.uint8)
    for i, image in enumerate(images):
        image[8:24, 4 * i : 4 * i + 16] = 180
    return list(images)


def rows(content: bytes, width: int) -> list[tuple[int, bytes]]:
    """Filter and bytes of each row of an 8-bit RGB PNG file: its chunks joined and inflated."""
    at, stream = 8, b""
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        if content[at + 4 : at + 8] == b"IDAT":
            stream += content[at + 8 : at + 8 + length]
        at += length + 12
    raw, step = zlib.decompress(stream), 3 * width + 1
    return [(raw[i], raw[i + 1 : i + step]) for i in range(0, len(raw), step)]


def unfiltered(content: bytes, width: int) -> NDArray[np.uint8]:
    """Pixels [H,W,3], by the formulas of the PNG specification, section 9.2."""
    above, result = [0] * (3 * width), []
    for kind, row in rows(content, width):
        line: list[int] = []
        for i, x in enumerate(row):
            a, b, c = (line[i - 3], above[i], above[i - 3]) if i >= 3 else (0, above[i], 0)
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line.append((x + (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
        result.append(line)
        above = line
    return np.array(result, np.uint8).reshape(-1, width, 3)


def test_png_files_hold_the_pixels(tmp_path: Path) -> None:
    """Smooth and random parts, so that rows have different filters."""
    random = np.random.default_rng(0)
    image = (np.mgrid[:40, :33].sum(0)[..., None] + [0, 40, 90]).astype(np.uint8)
    image[20:30] = random.integers(0, 256, (10, 33, 3))
    file = tmp_path / "image.tmp"
    save_png(image, file)
    np.testing.assert_array_equal(unfiltered(file.read_bytes(), 33), image)


def decoded(file: Path) -> NDArray[np.uint8]:
    reader = imageio_ffmpeg.read_frames(str(file))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def test_a_film_shows_its_frames(tmp_path: Path) -> None:
    file = tmp_path / "film.mp4"
    save_frames(iter(frames()), file, FRAME_MS)
    difference = np.abs(decoded(file).astype(int) - np.stack(frames()).astype(int))
    assert difference.shape[0] == len(frames())
    assert difference.mean() < 3


def test_the_ending_of_a_film_may_be_in_capitals(tmp_path: Path) -> None:
    save_frames(frames(), tmp_path / "film.MP4", FRAME_MS)
    assert (tmp_path / "film.MP4").read_bytes()[4:8] == b"ftyp"


def test_the_encoder_is_the_one_that_is_found_by_trying_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same film with the package's own program, and with the same program as one of the user's."""
    save_frames(frames(), tmp_path / "own.mp4", FRAME_MS)
    program = tmp_path / "ffmpeg"
    program.symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    tried: list[str] = []

    def encodes(encoder: str) -> bool:
        tried.append(encoder)
        return True

    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    monkeypatch.setattr("imageio_ffmpeg._io.ffmpeg_test_encoder", encodes)
    save_frames(frames(), tmp_path / "other.mp4", FRAME_MS)
    assert tried[0] == "libx264"
    assert (tmp_path / "own.mp4").read_bytes() == (tmp_path / "other.mp4").read_bytes()


def test_frames_are_taken_one_after_the_other(tmp_path: Path) -> None:
    """A film of frames that share their memory: each is handed over before the next one is made."""
    shared = np.zeros((32, 48, 3), np.uint8)

    def made() -> Iterator[NDArray[np.uint8]]:
        for frame in frames():
            shared[:] = frame
            yield shared

    save_frames(made(), tmp_path / "shared.mp4", FRAME_MS)
    save_frames(frames(), tmp_path / "own.mp4", FRAME_MS)
    assert (tmp_path / "shared.mp4").read_bytes() == (tmp_path / "own.mp4").read_bytes()


def test_a_film_that_ffmpeg_could_not_finish_is_an_error(tmp_path: Path) -> None:
    """The system ends ffmpeg at a file size, as it would at a full disk or in want of memory."""
    random = np.random.default_rng(0)
    film = [random.integers(0, 256, (64, 64, 3)).astype(np.uint8) for _ in range(8)]
    save_frames(film, tmp_path / "whole.mp4", FRAME_MS)
    size = (tmp_path / "whole.mp4").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for share in (0.1, 0.5, 0.9, 0.99):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), limits[1]))
        try:
            with pytest.raises(UserError, match=r"cut\.mp4 is not written"):
                save_frames(film, tmp_path / "cut.mp4", FRAME_MS)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [file.name for file in tmp_path.iterdir()] == ["whole.mp4"]


def test_an_interrupted_film_leaves_no_file_and_no_words_of_ffmpeg(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Which writes what it has got, and complains if the file is gone by then."""

    def interrupted() -> Iterator[NDArray[np.uint8]]:
        yield from frames()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_frames(interrupted(), tmp_path / "film.mp4", FRAME_MS)
    gc.collect()
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""
