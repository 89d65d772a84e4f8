"""Films: `.mp4` if the package `imageio-ffmpeg` is installed, else animated `.webp`."""

import importlib.util
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from z1g.core.files import atomic_file

SHORTEST_FRAME_MS = 40


def video_extension() -> str:
    """`.mp4` if it can be written on this machine, else `.webp`."""
    return ".mp4" if importlib.util.find_spec("imageio_ffmpeg") else ".webp"


def save_frames(frames: Iterable[NDArray[np.uint8]], path: Path, frame_ms: int) -> None:
    """Write frames [H,W,3] of at least 40 ms each as a video in the format of the extension of `path`.

    They are taken one after the other, while earlier ones are encoded. H.264 needs even sides, so the last row and
    column may be cropped.
    """
    duration = max(frame_ms, SHORTEST_FRAME_MS)
    with atomic_file(path) as temporary:
        if path.suffix == ".mp4":
            even = (frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames)
            _save_mp4(even, temporary, 1000 / duration)
        else:
            images = (Image.fromarray(frame) for frame in frames)
            first = next(images)
            first.save(temporary, "WEBP", save_all=True, append_images=images, duration=duration, loop=0, quality=80)


def _save_mp4(frames: Iterator[NDArray[np.uint8]], path: Path, frames_per_second: float) -> None:
    import imageio_ffmpeg

    first = next(frames)
    height, width = first.shape[:2]
    # The temporary name does not end in .mp4, so the container format is given.
    output = ["-f", "mp4", "-movflags", "+faststart"]
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=frames_per_second, quality=8, codec=_encoder(), macro_block_size=2,
        output_params=output,
    )  # fmt: skip
    writer.send(None)
    for frame in itertools.chain([first], frames):
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def _encoder() -> str | None:
    """libx264 where imageio-ffmpeg has an ffmpeg of its own; None lets it encode a film with each encoder to see."""
    import imageio_ffmpeg

    own = Path(imageio_ffmpeg.get_ffmpeg_exe()).is_relative_to(Path(imageio_ffmpeg.__file__).parent)
    return "libx264" if own else None
