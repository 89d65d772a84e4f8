"""`z1g mesh`: convert a file of Gaussians to a textured mesh."""

import argparse
import sys

from z1g.cli.arguments import between, some_path
from z1g.core.errors import UserError
from z1g.core.files import require_place
from z1g.core.names import counted


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `mesh`."""
    parser.add_argument("splats", type=some_path, help="a .ply, .splat or .spz file")
    parser.add_argument("--out", type=some_path, help="the .glb file to write; default: next to the input")
    parser.add_argument(
        "--faces", type=between(16, 50_000), default=10_000, help="maximum number of triangles, up to 50000"
    )
    parser.add_argument("--texture", type=between(16, 8192), default=1024, help="width of the texture, texels")
    parser.add_argument("--resolution", type=between(16, 512), default=128, help="voxels along the longest side")
    parser.add_argument("--views", type=between(6, 500), default=40, help="number of rendered views to fuse")
    parser.add_argument("--refine", action="store_true", help="optimize mesh and texture on renders (GPU, nvdiffrast)")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Run the command."""
    if arguments.out is not None and arguments.out.suffix.lower() != ".glb":
        raise UserError(f"--out {arguments.out}: meshes are written as .glb")
    from z1g.core.device import default_device
    from z1g.gaussians import files as splat_files
    from z1g.render.auto import Auto
    from z1g.surface.build import MeshOptions, build

    splat_files.format_of(arguments.splats, splat_files.FORMATS)
    out = arguments.out or arguments.splats.with_suffix(".glb")
    require_place(out)
    options = MeshOptions(
        views=arguments.views, resolution=arguments.resolution, faces=arguments.faces, texture=arguments.texture,
        refine=arguments.refine,
    )  # fmt: skip
    mesh = build(splat_files.read(arguments.splats).to(default_device()), Auto(), options)
    mesh.save(out)
    sys.stdout.write(f"{out}: {counted(len(mesh.faces), 'triangle')}\n")
