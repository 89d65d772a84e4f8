"""`z1g film`: a film of splats along a camera path."""

import argparse
import sys

from z1g.cli.arguments import between, some_path
from z1g.core.errors import UserError
from z1g.core.files import require_place
from z1g.core.names import counted

FORMATS = (".mp4", ".webp")


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `film`."""
    parser.add_argument("splats", nargs="+", type=some_path, help="files to show side by side: .ply, .splat or .spz")
    parser.add_argument("--path", type=some_path, help="a camera path that z1g view has saved; default: one turn")
    parser.add_argument(
        "--out", type=some_path, help="the .mp4 or .webp file to write; default: next to the first input"
    )
    parser.add_argument("--size", type=between(16, 2048), default=512, help="side of each object's image, pixels")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Write the film."""
    from z1g.core.device import default_device
    from z1g.gaussians import files as splat_files
    from z1g.inference.film import FRAMES_PER_SECOND, CameraPath, frames, views_of
    from z1g.render.auto import Auto
    from z1g.render.video import save_frames, video_extension

    out = arguments.out or arguments.splats[0].with_suffix(f".film{video_extension()}")
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"--out {out}: films are written as {' or '.join(FORMATS)}")
    if out.suffix.lower() == ".mp4" and video_extension() != ".mp4":
        raise UserError(f"--out {out}: .mp4 needs pip install imageio-ffmpeg; .webp needs nothing")
    require_place(out)
    views = views_of(None if arguments.path is None else CameraPath.read(arguments.path))
    objects = [splat_files.read(file).to(default_device()) for file in arguments.splats]
    save_frames(frames(objects, views, Auto(), arguments.size), out, round(1000 / FRAMES_PER_SECOND))
    sys.stdout.write(f"{out}: {counted(len(views), 'frame')}\n")
