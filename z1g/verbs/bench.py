"""`z1g bench`: measure speed and memory."""

import argparse
import json
import sys


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """What to measure and at which size."""
    parser.add_argument("what", choices=["render"], help="which part")
    parser.add_argument("--backend", default="cpu", help="a rasterizer's kind, or torch for the plain torch path")
    parser.add_argument("--splats", type=int, default=24576, help="Gaussians of the object")
    parser.add_argument("--size", type=int, default=128, help="side of a picture, pixels")
    parser.add_argument("--views", type=int, default=4, help="pictures a call")
    parser.add_argument("--repeats", type=int, default=5, help="calls; medians are reported")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Measure and print."""
    from z1g.bench.render import measure

    sizes = (arguments.splats, arguments.size, arguments.views, arguments.repeats)
    figures = measure(arguments.backend, *sizes, arguments.device)
    if arguments.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        sys.stdout.write("\n".join(f"{name:<22}{value}" for name, value in figures.items()) + "\n")
