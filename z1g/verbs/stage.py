"""Verbs of the DAG's stages. They all work on a stage folder."""

import argparse
import importlib
import os

from z1g.cli import existing_folder
from z1g.stages import StageFolder

CHUNKED = ("ingest", "fit", "infer")


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Arguments of a stage verb."""
    parser.add_argument("folder", type=existing_folder, help=f"results/{verb}/<id>, with its stage.json")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice")
    if verb in CHUNKED:
        parser.add_argument("--chunk", type=int, required=True, help="which chunk of the objects")


def limit_threads(threads: int) -> None:
    """Bound the thread pools that torch and numba make when they are first imported.

    Idle threads of a larger pool spin between tasks and take the cores of other jobs.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if threads > 0:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ[name] = str(threads)


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Run the stage."""
    limit_threads(arguments.threads)
    folder = StageFolder.open(arguments.folder)
    stage = importlib.import_module(f"z1g.stages.{verb}")
    chunk = {"chunk": arguments.chunk} if verb in CHUNKED else {}
    stage.run(folder, threads=arguments.threads, **chunk)
