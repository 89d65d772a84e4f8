"""Commands of the DAG's stages, which all operate on a stage folder."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from z1g.cli.arguments import between, existing_folder, fraction, some_path
from z1g.core import heartbeat
from z1g.core.errors import Preempted, Terminated, UserError
from z1g.core.files import remove_unfinished
from z1g.core.imports import kept
from z1g.core.locks import waiting
from z1g.core.stages import CHUNKED, TRAINED
from z1g.jobs.budget import require_budget
from z1g.jobs.launch import ResourceRequest, devices, is_rank, requeue, train_together
from z1g.jobs.records import beat_file, job_name, lock_file, recorded, visible_gpus
from z1g.plan.folder import StageFolder, require_job
from z1g.training.rungs import rung_name

log = logging.getLogger("z1g")
SAMPLING = ("codes", "infer")
"""Stages that use the networks of a model and train none of them."""
MOST = 4096
"""Limit of threads, GPUs and nodes: OpenMP and torch crash on larger numbers of threads."""
MOST_GB = 100_000
"""Limit of a GPU's memory, as of `resources`."""


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
        parser.add_argument(
            "--gpu-memory-gb", type=between(0, MOST_GB), default=0, help="memory to use of each GPU, GB; 0: all of it"
        )


def add_job_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Arguments for a job's resources and outputs."""
    parser.add_argument("--threads", type=between(0, MOST), default=0, help="CPU threads; 0: torch's default")
    parser.add_argument("--gpus", type=between(0, MOST), help="GPUs of the job; default: all that are visible")
    parser.add_argument("--nodes", type=between(1, MOST), default=1, help="SLURM nodes to train on")
    parser.add_argument(
        "--outputs", type=some_path, nargs="*", default=(), help="skip the job if another job has written all of these"
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
    for output in arguments.outputs:
        if not Path(os.path.abspath(output)).is_relative_to(os.path.abspath(arguments.folder)):
            raise UserError(f"--outputs {output}: it is not in {arguments.folder}")
    with _preemptible(verb):
        _job(verb, arguments, part)


def _job(verb: str, arguments: argparse.Namespace, part: dict[str, Any]) -> None:
    """Run the whole stage, or `part` of it: a chunk, or the training until a rung."""
    chunk, until = part.get("chunk"), part.get("until")
    job = job_name(verb, chunk) if until is None else f"rung-{rung_name(until)}"
    # A training until a rung is a part of its stage's job to those who watch.
    beat = beat_file(arguments.folder, job_name(verb, chunk))
    if is_rank():
        node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        log.info("rank %s of %s on node %s", os.environ["RANK"], os.environ.get("WORLD_SIZE"), node)
        threads = max(arguments.threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), min(arguments.threads, 1))
        first = os.environ["RANK"] == "0"
        with heartbeat.beating(beat, arguments.gpus or 0) if first else contextlib.nullcontext():
            _run(verb, arguments, threads, part)
        return
    gpus = None if arguments.gpus is None else arguments.gpus // arguments.nodes
    request = ResourceRequest(gpus, arguments.nodes, arguments.threads)
    with waiting(lock_file(arguments.folder, verb, chunk)) as (waited, held):
        if waited and arguments.outputs and all(output.exists() for output in arguments.outputs):
            log.info("another job has written %s", ", ".join(map(str, arguments.outputs)))
            return
        # Of killed attempts at this job, and of plans; a plan and jobs of other chunks may be writing theirs now.
        remove_unfinished(
            arguments.folder, f"{job}." if chunk is not None else "", but=("stage.json", "manifest.jsonl")
        )
        _attempt(job, verb, arguments, part, request, held, beat)


def _attempt(
    job: str, verb: str, arguments: argparse.Namespace, part: dict[str, Any], request: ResourceRequest, held: int,
    beat: Path,
) -> None:  # fmt: skip
    """Run the job on its devices, in one process or several, and record it. `held`: its lock, which they inherit."""
    with devices(request) as leases:
        require_budget(arguments.folder, request.gpus)
        together = request.nodes * request.ranks_per_node > 1
        devices_in_all = len(visible_gpus(0)) * request.nodes
        try:
            # Of several processes, the first rank gives the sign of life.
            with (
                _preemptible(verb),
                contextlib.nullcontext() if together else heartbeat.beating(beat, devices_in_all),
                recorded(arguments.folder, job, arguments.outputs, request.nodes),
            ):
                if together:
                    train_together(request, [held, *leases])
                else:
                    _run(verb, arguments, arguments.threads, part)
        except Preempted:
            requeue()
            raise
        finally:
            heartbeat.remove(beat)  # that of a killed rank


@contextlib.contextmanager
def _preemptible(verb: str) -> Iterator[None]:
    """Let SIGTERM outside of the training loop, which writes a checkpoint first, preempt a job that trains."""
    try:
        yield
    except Terminated as error:
        if verb not in TRAINED:
            raise
        raise Preempted(
            "stopped on request outside of training; the same command continues from the latest checkpoint"
        ) from error


def _run(verb: str, arguments: argparse.Namespace, threads: int, part: dict[str, Any]) -> None:
    limit_threads(threads)
    if verb in TRAINED and arguments.gpu_memory_gb:
        from z1g.core.device import limit_gpu_memory

        limit_gpu_memory(arguments.gpu_memory_gb)
    _module(verb).run(StageFolder.open(arguments.folder), threads=threads, **part)


def _module(verb: str) -> ModuleType:
    """The module of a stage, with the libraries that it imports."""
    name = f"z1g.stages.{verb}"
    if name in sys.modules:
        return sys.modules[name]
    with kept():
        if verb in SAMPLING:
            from z1g.networks.lean import import_networks

            import_networks()
        return importlib.import_module(name)
