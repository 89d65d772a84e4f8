"""Films: `.mp4` if the package `imageio-ffmpeg` is installed, else animated `.webp`."""

import contextlib
import importlib.util
import itertools
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from z1g.core.errors import UserError
from z1g.core.files import atomic_file

SHORTEST_FRAME_MS = 40


def video_extension() -> str:
    """`.mp4` if it can be written on this machine, else `.webp`."""
    return ".mp4" if importlib.util.find_spec("imageio_ffmpeg") else ".webp"


def save_frames(frames: Iterable[NDArray[np.uint8]], path: Path, frame_ms: int) -> None:
    """Write frames [H,W,3] of at least 40 ms each as a video in the format of the extension of `path`.

    They are taken one after the other, while earlier ones are encoded. H.264 needs even sides, so the last row and
    column may be cropped. Raises UserError if ffmpeg did not write all of an `.mp4`, as when it was killed.
    """
    duration = max(frame_ms, SHORTEST_FRAME_MS)
    with atomic_file(path) as temporary:
        if path.suffix.lower() == ".mp4":
            even = (frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames)
            # imageio-ffmpeg does not tell how ffmpeg ended.
            if not (_save_mp4(even, temporary, 1000 / duration) and _is_whole_mp4(temporary)):
                raise UserError(f"{path} is not written: ffmpeg ended before the film did; run the same command again")
        else:
            images = (Image.fromarray(frame) for frame in frames)
            first = next(images)
            first.save(temporary, "WEBP", save_all=True, append_images=images, duration=duration, loop=0, quality=80)


def _save_mp4(frames: Iterator[NDArray[np.uint8]], path: Path, frames_per_second: float) -> bool:
    """Encode frames with ffmpeg; returns whether it took all of them."""
    import imageio_ffmpeg

    first = next(frames)
    height, width = first.shape[:2]
    # The temporary name does not end in .mp4, so the container format is given.
    output = ["-f", "mp4", "-movflags", "+faststart"]
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=frames_per_second, quality=8, codec=_encoder(), macro_block_size=2,
        output_params=output,
    )  # fmt: skip
    # Whatever ends the film, ffmpeg ends before its file is removed.
    with contextlib.closing(writer):
        writer.send(None)
        for frame in itertools.chain([first], frames):
            content = np.ascontiguousarray(frame)
            try:
                writer.send(content)
            except OSError:
                return False
    return True


def _encoder() -> str | None:
    """libx264 where imageio-ffmpeg has an ffmpeg of its own; None lets it encode a film with each encoder to see."""
    import imageio_ffmpeg

    own = Path(imageio_ffmpeg.get_ffmpeg_exe()).is_relative_to(Path(imageio_ffmpeg.__file__).parent)
    return "libx264" if own else None


def _is_whole_mp4(path: Path) -> bool:
    """Whether the boxes of an .mp4 fill its file and hold frames and their index."""
    kinds, end = set(), 0
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            while end < size:
                stream.seek(end)
                length, kind = struct.unpack(">I4s", stream.read(8))
                if length == 1:
                    (length,) = struct.unpack(">Q", stream.read(8))
                kinds.add(kind)
                end += max(length, 8)
    except (FileNotFoundError, struct.error):
        return False
    return end == size and {b"moov", b"mdat"} <= kinds
