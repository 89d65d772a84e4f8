"""`z1g export`: convert Gaussians to the file formats of other tools."""

import argparse
import sys

from z1g.cli.arguments import some_path
from z1g.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `export`."""
    parser.add_argument("splats", type=some_path, help="a .ply, .splat or .spz file")
    parser.add_argument(
        "--out", type=some_path, required=True, help="the file to write: .ply, .splat, .spz, or .glb (a mesh)"
    )


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Write the file."""
    if arguments.out.suffix.lower() == ".glb":
        from z1g.cli import mesh
        from z1g.cli.main import parser_for

        # A path may begin with a dash.
        mesh.main("mesh", parser_for("mesh").parse_args([f"--out={arguments.out}", "--", str(arguments.splats)]))
        return
    from z1g.gaussians import files as splat_files

    splat_files.format_of(arguments.out, splat_files.FORMATS, also=", and a mesh of them is a .glb file")
    if arguments.out.exists() and arguments.splats.exists() and arguments.out.samefile(arguments.splats):
        raise UserError(
            f"--out {arguments.out} is the file to convert, and formats keep different things; name another"
        )
    gaussians = splat_files.read(arguments.splats)
    splat_files.write(arguments.out, gaussians)
    sys.stdout.write(f"{arguments.out}: {arguments.out.stat().st_size} bytes\n")
