"""`z1g conditions`: write the condition images that other systems must be given."""

import argparse
import sys
from pathlib import Path

from z1g.cli.arguments import between, existing_folder, some_path
from z1g.core.names import counted


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `conditions`."""
    parser.add_argument("--out", type=some_path, required=True, help="the folder to write; it must not exist")
    parser.add_argument("--results", type=existing_folder, default=Path("results"), help="results folder")
    parser.add_argument("--like", help="planned ablation whose objects are used; default: the first")
    parser.add_argument(
        "--objects", type=some_path, help="list of some of its objects: ids, or a CSV with a column object"
    )
    parser.add_argument(
        "--sizes", type=between(16, 4096), nargs="*", default=(), help="sides of further copies of the images, pixels"
    )


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Write the folder."""
    from z1g.peers.conditions import write_conditions
    from z1g.plan.peers import first_planned

    like = arguments.like or first_planned(arguments.results)
    sizes = list(dict.fromkeys(arguments.sizes))
    names = write_conditions(arguments.results, arguments.out, like, sizes, arguments.objects)
    sys.stdout.write(f"{arguments.out}: {counted(len(names), 'object')}; its README.md says how to go on\n")
