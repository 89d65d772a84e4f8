"""Verbs of the DAG's stages. They all work on a stage folder."""

import argparse
import importlib

from z1g.cli import existing_folder
from z1g.stages import StageFolder

CHUNKED = ("ingest", "fit", "infer")


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Arguments of a stage verb."""
    parser.add_argument("folder", type=existing_folder, help=f"results/{verb}/<id>, with its stage.json")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice")
    if verb in CHUNKED:
        parser.add_argument("--chunk", type=int, required=True, help="which chunk of the objects")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Run the stage."""
    folder = StageFolder.open(arguments.folder)
    stage = importlib.import_module(f"z1g.stages.{verb}")
    chunk = {"chunk": arguments.chunk} if verb in CHUNKED else {}
    stage.run(folder, threads=arguments.threads, **chunk)
