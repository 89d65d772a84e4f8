"""`z1g config`: documents generated from the configuration classes."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from z1g.config import documents
from z1g.config.catalog import load_ablation
from z1g.plan import neutral


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `config`."""
    parser.add_argument("what", choices=[*GENERATED, "show", "write"], help="write: update all generated files")
    parser.add_argument("--ablation", type=Path, help="show: the ablation file")
    parser.add_argument("--scale", default="full", help="show: its base configuration")


GENERATED: dict[str, tuple[Path, Callable[[], str]]] = {
    "schema": (Path("configs/schema.json"), documents.schema),
    "reference": (Path("docs/configuration.md"), documents.reference),
    "defaults": (Path("configs/full.yaml"), documents.defaults),
    "identity": (Path("z1g/plan/defaults.json"), neutral.document),
}
"""Paths of the generated files and the functions that generate them."""


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Print a document, or write all of them to their files."""
    if arguments.what == "write":
        for path, make in GENERATED.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(make(), encoding="utf-8")
    elif arguments.what == "show":
        if arguments.ablation is None:
            sys.stdout.write(documents.defaults())
        else:
            ablation = load_ablation(arguments.ablation, arguments.scale, Path("configs"))
            sys.stdout.write(documents.resolved(ablation.experiment))
    else:
        sys.stdout.write(GENERATED[arguments.what][1]())
