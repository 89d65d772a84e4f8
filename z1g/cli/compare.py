"""`z1g compare`: compare results."""

import argparse
import sys
from pathlib import Path

from z1g.cli.arguments import existing_folder

FORMATS = ("rich", "md", "csv", "tex", "json")


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `compare`."""
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="result",
        help="ablations (by name, with all their seeds, or the folder of one run), metrics ids, or paths to "
        "metrics.jsonl",
    )
    parser.add_argument("--results", type=existing_folder, default=Path("results"), help="results folder")
    parser.add_argument("--split", choices=("test", "test_unseen", "train"), default="test",
                        help="split of the objects to compare; test_unseen: objects of unseen categories")  # fmt: skip
    parser.add_argument("--source", default="sampled", help="splats to compare: sampled, autodecoder, fitted, …")
    parser.add_argument("--format", choices=FORMATS, default="rich", help="output format")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Print the comparison."""
    from z1g.report.compare import compare
    from z1g.report.compare_text import FORMATS as WRITERS

    comparison = compare(arguments.results, arguments.targets, arguments.split, arguments.source)
    sys.stdout.write(WRITERS[arguments.format](comparison))
