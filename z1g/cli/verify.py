"""`z1g verify`: check an ablation's results."""

import argparse
import sys
from pathlib import Path

from z1g.cli.arguments import at_least, between, some_path
from z1g.cli.stage import MOST
from z1g.plan.runs import run_folder

EXIT_BROKEN = 1


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `verify`."""
    parser.add_argument("run", type=some_path, help="name of a run, or its folder results/ablations/<name>")
    parser.add_argument("--results", type=some_path, default=Path("results"), help="results folder of named runs")
    parser.add_argument(
        "--sample", type=at_least(0), default=2, help="number of objects to evaluate again; 0: check digests only"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the choice of objects")
    parser.add_argument("--threads", type=between(0, MOST), default=0, help="CPU threads; 0: torch's default")


def main(verb: str, arguments: argparse.Namespace) -> int:
    """Print a line for each check. Returns 0 if all pass, 1 if one fails or cannot be made."""
    from z1g.cli.stage import limit_threads
    from z1g.stages.verify import verify

    limit_threads(arguments.threads)
    folder = run_folder(str(arguments.run), arguments.results).absolute()
    held = []
    for finding in verify(folder, arguments.sample, arguments.seed):
        word = {True: "ok", False: "BROKEN", None: "UNKNOWN"}[finding.holds] if finding.counts else "-"
        held += [finding.holds] if finding.counts else []
        sys.stdout.write(f"{word:<8} {finding.what}: {finding.detail}\n")
        sys.stdout.flush()
    verdict = "does not hold" if False in held else "cannot be checked in full" if None in held else "holds"
    sys.stdout.write(f"{folder.name} {verdict}: {held.count(True)} of {len(held)} checks are good\n")
    return 0 if all(held) else EXIT_BROKEN
