"""Commands of the DAG's stages, which all operate on a stage folder."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from z1g.cli.arguments import at_least, existing_folder, fraction
from z1g.core.errors import Preempted
from z1g.core.locks import waiting
from z1g.core.stages import CHUNKED, TRAINED
from z1g.jobs.launch import ResourceRequest, devices, is_rank, requeue, train_together
from z1g.jobs.records import job_name, recorded
from z1g.plan.folder import StageFolder, require_job
from z1g.training.rungs import rung_name

log = logging.getLogger("z1g")


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Arguments of a stage command."""
    parser.add_argument("folder", type=existing_folder, help=f"results/{verb}/<id>, with its stage.json")
    add_job_arguments(parser)
    if verb in CHUNKED:
        parser.add_argument("--chunk", type=int, required=True, help="index of the chunk of objects")
    if verb in TRAINED:
        parser.add_argument(
            "--until",
            type=fraction,
            metavar="FRACTION",
            help="stop at this fraction of the steps, with a checkpoint, and write what is measured there to "
            "rungs/FRACTION.json; without it, training continues from there",
        )


def add_job_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Arguments for a job's resources and outputs."""
    parser.add_argument("--threads", type=at_least(0), default=0, help="CPU threads; 0: torch's default")
    parser.add_argument("--gpus", type=at_least(0), help="GPUs of the job; default: all that are visible")
    parser.add_argument("--nodes", type=at_least(1), default=1, help="SLURM nodes to train on")
    parser.add_argument(
        "--outputs", type=Path, nargs="*", default=(), help="skip the job if another job has written all of these"
    )


def limit_threads(threads: int) -> None:
    """Limit the thread pools that torch and numba create when they are first imported.

    Idle threads of larger pools spin between tasks and occupy cores of other jobs.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if threads > 0:
        # An imported numba rejects another number; its threads are then limited for each call.
        later = () if "numba" in sys.modules else ("NUMBA_NUM_THREADS",)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", *later):
            os.environ[name] = str(threads)


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Run the stage with exclusive access to its output, on the requested GPUs, with one process per GPU."""
    chunk = arguments.chunk if verb in CHUNKED else None
    until = arguments.until if verb in TRAINED else None
    part: dict[str, Any] = {} if chunk is None else {"chunk": chunk}
    part |= {} if until is None else {"until": until}
    # Before anything is written, since a mistyped folder must stay as it is.
    require_job(arguments.folder, verb, chunk)
    if verb in TRAINED and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
    if is_rank():
        node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        log.info("rank %s of %s on node %s", os.environ["RANK"], os.environ.get("WORLD_SIZE"), node)
        threads = max(arguments.threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), min(arguments.threads, 1))
        _run(verb, arguments.folder, threads, part)
        return
    gpus = None if arguments.gpus is None else arguments.gpus // arguments.nodes
    request = ResourceRequest(gpus, arguments.nodes, arguments.threads)
    lock = arguments.folder / ".turns" / (verb if chunk is None else f"{verb}-{chunk:05d}")
    with waiting(lock) as (waited, held):
        if waited and arguments.outputs and all(output.exists() for output in arguments.outputs):
            log.info("another job has written %s", ", ".join(map(str, arguments.outputs)))
            return
        job = job_name(verb, chunk) if until is None else f"rung-{rung_name(until)}"
        with devices(request) as leases:
            try:
                with recorded(arguments.folder, job, arguments.outputs, request.nodes):
                    if request.nodes * request.ranks_per_node > 1:
                        train_together(request, [held, *leases])
                    else:
                        _run(verb, arguments.folder, arguments.threads, part)
            except Preempted:
                requeue()
                raise


def _stop(*_: object) -> None:
    """Handle SIGTERM outside of the training loop, which writes a checkpoint first."""
    raise Preempted("stopped on request outside of training; the same command continues from the latest checkpoint")


def _run(verb: str, folder: Path, threads: int, part: dict[str, Any]) -> None:
    limit_threads(threads)
    importlib.import_module(f"z1g.stages.{verb}").run(StageFolder.open(folder), threads=threads, **part)
