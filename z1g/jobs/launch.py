"""Assignment of GPUs to a stage's process, and launching of distributed training on one or more nodes.

Accelerate reads the ranks from the environment variables of torchrun. Torchrun itself is not used: on SIGTERM it kills
its workers after 30 seconds, which may be too short for a checkpoint, and it hides that they stopped on request.
"""

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from z1g.core.errors import EXIT_PREEMPTED, Preempted, UserError
from z1g.core.names import counted
from z1g.jobs.leases import leased

log = logging.getLogger("z1g")
BY_SRUN = "Z1G_RANK_BY_SRUN"
"""Set for processes that `srun` starts as ranks; other SLURM steps have process ids too, which are not ranks."""
GRACE_S = 60.0
"""Time limit for the other processes after one has failed, and for SLURM to requeue a job."""


@dataclass(frozen=True)
class ResourceRequest:
    """Resources requested for a job: GPUs per node (None: all visible ones), nodes, and cores per node."""

    gpus: int | None
    nodes: int
    threads: int

    @property
    def ranks_per_node(self) -> int:
        """One process per GPU, or one per node without GPUs."""
        return max(self.gpus or 0, 1)


def is_rank() -> bool:
    """Whether this process is a rank of distributed training. Sets RANK and LOCAL_RANK if it was started by srun."""
    if BY_SRUN in os.environ:
        os.environ.update(RANK=os.environ["SLURM_PROCID"], LOCAL_RANK=os.environ["SLURM_LOCALID"])
    return "RANK" in os.environ


@contextlib.contextmanager
def devices(request: ResourceRequest) -> Iterator[list[int]]:
    """Make only the requested GPUs visible to this process and its children; yields descriptors to pass to children.

    The GPUs are those of the allocation in a SLURM job, else leased ones. Raises UserError if there are too few.
    """
    if request.gpus is None:
        yield []
        return
    if in_slurm():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        if len(visible.split(",") if visible else []) < request.gpus:
            raise UserError(
                f"{request.gpus} GPUs per node were requested, but SLURM gave job {os.environ['SLURM_JOB_ID']} "
                f'"{visible}"; does its partition have GPUs (resources.<stage>.partition, Z1G_SLURM_PARTITION)?'
            )
        _show(visible.split(",")[: request.gpus])
        yield []
        return
    if request.nodes > 1:
        raise UserError(f"{request.nodes} nodes were requested; only `--profile slurm` starts jobs on more than one")
    with leased(request.gpus) as (names, descriptors):
        _show(names)
        yield descriptors


def _show(gpus: Sequence[str]) -> None:
    log.info("GPUs: %s", ",".join(gpus) or "none")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if not gpus:
        os.environ["ACCELERATE_USE_CPU"] = "true"


def in_slurm() -> bool:
    """Whether this process belongs to a SLURM job."""
    return "SLURM_JOB_ID" in os.environ


def train_together(request: ResourceRequest, inherited: Sequence[int]) -> None:
    """Start this command once per rank and wait. Raises Preempted or UserError depending on the ranks' exit codes.

    SIGTERM is passed on to every rank, and all ranks checkpoint and exit together. `inherited` are descriptors of locks
    that must be held as long as any rank runs.
    """
    world = request.ranks_per_node * request.nodes
    log.info("%d processes on %s", world, counted(request.nodes, "node"))
    if request.nodes > 1:
        meeting = _meeting(world, request.ranks_per_node, socket.gethostname())
        exit_code = _run([(_srun(request), {**os.environ, **meeting, BY_SRUN: "1"})], inherited)
    else:
        exit_code = run_ranks(sys.orig_argv, world, os.environ, inherited)
    if exit_code == EXIT_PREEMPTED:
        raise Preempted("all ranks stopped on request; the same command continues from their checkpoint")
    if exit_code:
        raise UserError(f"one of {world} processes ended with exit code {exit_code}; see its message above")


def run_ranks(
    command: Sequence[str], world: int, environment: Mapping[str, str], inherited: Sequence[int]
) -> int:  # fmt: skip
    """Run a command once per rank on this machine and wait; returns the exit code of the first failure, else 0.

    A failure ends the other ranks. `environment` gets the variables of torchrun.
    """
    shared = {**environment, **_meeting(world, world, "127.0.0.1")}
    ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world))
    return _run([(list(command), {**shared, **rank}) for rank in ranks], inherited)


def _meeting(world: int, per_node: int, address: str) -> dict[str, str]:
    """Variables that ranks find each other with."""
    return {
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(per_node),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(_free_port()),
    }


def _srun(request: ResourceRequest) -> list[str]:
    if shutil.which("srun") is None:
        raise UserError("srun is not on PATH, so training cannot be spread over nodes")
    options = [f"--nodes={request.nodes}", f"--ntasks={request.nodes * request.ranks_per_node}"]
    options += [
        f"--ntasks-per-node={request.ranks_per_node}",
        f"--cpus-per-task={_share(request)}",
        "--kill-on-bad-exit=0",
    ]
    if request.gpus:
        options += [f"--gpus-per-node={request.gpus}"]
    return ["srun", *options, *sys.orig_argv]


def _share(request: ResourceRequest) -> int:
    return max(request.threads // request.ranks_per_node, 1)


def _free_port() -> int:
    # Another process may take the port before rank 0 does; then the job fails at once and is tried again.
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _run(commands: Sequence[tuple[list[str], Mapping[str, str]]], inherited: Sequence[int]) -> int:
    """Run commands in parallel and return the first failure's exit code. SIGTERM is passed on; a failure ends all."""
    running = [subprocess.Popen(command, env=env, pass_fds=tuple(inherited)) for command, env in commands]
    processes = list(running)
    # SLURM itself signals the tasks of srun, and srun would kill them on SIGTERM.
    pairs = zip(processes, commands, strict=True)
    signaled = [process for process, (command, _) in pairs if command[0] != "srun"]
    previous = signal.signal(signal.SIGTERM, lambda *_: _signal(signaled, signal.SIGTERM))
    exit_code, deadline = 0, float("inf")
    try:
        while running:
            for process in [process for process in running if process.poll() is not None]:
                running.remove(process)
                if process.returncode and not exit_code:
                    exit_code, deadline = process.returncode, time.monotonic() + GRACE_S
                    if exit_code != EXIT_PREEMPTED:
                        _signal(running, signal.SIGTERM)
            if time.monotonic() > deadline:
                _signal(running, signal.SIGKILL)
            time.sleep(0.1)
    finally:
        _signal(processes, signal.SIGKILL)
        signal.signal(signal.SIGTERM, previous)
    return exit_code


def _signal(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def requeue() -> None:
    """Requeue the running SLURM job after a checkpoint, so that it does not count as failed.

    Does nothing outside SLURM, or if the job is already being canceled or preempted, which SLURM or Snakemake handles.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or shutil.which("scontrol") is None:
        return
    state = subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True, check=False)
    if state.stdout.strip() != "RUNNING":
        return
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        log.warning("SLURM did not requeue job %s: %s", job, done.stderr.strip())
        return
    log.info("SLURM requeued job %s", job)
    time.sleep(GRACE_S)  # SLURM ends this process in the meantime
