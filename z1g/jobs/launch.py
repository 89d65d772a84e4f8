"""How a stage's process comes to its GPUs, and one training to several processes, on one node or many.

Accelerate reads the ranks from the same variables that torchrun sets. Torchrun itself is not used: it answers SIGTERM
by ending its workers after 30 seconds and hides that they stopped on request, and a checkpoint may take longer.
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
from z1g.jobs.leases import leased

log = logging.getLogger("z1g")
BY_SRUN = "Z1G_RANK_BY_SRUN"
"""Set for processes that `srun` starts as ranks; other steps of SLURM have numbers too, which are no ranks."""
GRACE_S = 60.0
"""How long the other processes may go on when one has failed, and how long to wait for SLURM to requeue a job."""


@dataclass(frozen=True)
class Asked:
    """What a job was told to use: GPUs on each node (None: what is there), nodes, and cores on each node."""

    gpus: int | None
    nodes: int
    threads: int

    @property
    def ranks_per_node(self) -> int:
        """One process a GPU, or one a node without."""
        return max(self.gpus or 0, 1)


def is_rank() -> bool:
    """Whether this process is one of several that train together; takes its number from srun where that started it."""
    if BY_SRUN in os.environ:
        os.environ.update(RANK=os.environ["SLURM_PROCID"], LOCAL_RANK=os.environ["SLURM_LOCALID"])
    return "RANK" in os.environ


@contextlib.contextmanager
def devices(asked: Asked) -> Iterator[list[int]]:
    """Let this process and its children see just the GPUs that were asked for; the descriptors to pass to children.

    In a SLURM job these are the allocation's, elsewhere leased ones. Raises UserError where there are too few.
    """
    if asked.gpus is None:
        yield []
        return
    if in_slurm():
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        if len(given.split(",") if given else []) < asked.gpus:
            raise UserError(
                f"{asked.gpus} GPUs on each node were asked for, but SLURM gave job {os.environ['SLURM_JOB_ID']} "
                f'"{given}"; does its partition have GPUs (resources.<stage>.partition, Z1G_SLURM_PARTITION)?'
            )
        _show(given.split(",")[: asked.gpus])
        yield []
        return
    if asked.nodes > 1:
        raise UserError(f"{asked.nodes} nodes are asked for; only `--profile slurm` starts a job on more than one")
    with leased(asked.gpus) as (names, descriptors):
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


def train_together(asked: Asked, inherited: Sequence[int]) -> None:
    """Start this very command once a rank, and wait. Raises Preempted or UserError as the ranks ended.

    SIGTERM reaches every rank, which checkpoint and leave together. `inherited` are locks that must last as long as any
    of them lives.
    """
    per_node = asked.ranks_per_node
    world = per_node * asked.nodes
    shared = {
        **os.environ,
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(per_node),
        "MASTER_ADDR": "127.0.0.1" if asked.nodes == 1 else socket.gethostname(),
        "MASTER_PORT": str(_free_port()),
    }
    if asked.nodes > 1:
        commands = [(_srun(asked), {**shared, BY_SRUN: "1"})]
    else:
        ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world))
        commands = [(list(sys.orig_argv), {**shared, **rank}) for rank in ranks]
    log.info("%d processes on %d nodes", world, asked.nodes)
    worst = _run(commands, inherited)
    if worst == EXIT_PREEMPTED:
        raise Preempted("all ranks stopped on request; the same command goes on from their checkpoint")
    if worst:
        raise UserError(f"one of {world} processes ended with {worst}; its own message stands above")


def _srun(asked: Asked) -> list[str]:
    if shutil.which("srun") is None:
        raise UserError("srun is not on PATH, so training cannot be spread over nodes")
    options = [f"--nodes={asked.nodes}", f"--ntasks={asked.nodes * asked.ranks_per_node}"]
    options += [f"--ntasks-per-node={asked.ranks_per_node}", f"--cpus-per-task={_share(asked)}", "--kill-on-bad-exit=0"]
    if asked.gpus:
        options += [f"--gpus-per-node={asked.gpus}"]
    return ["srun", *options, *sys.orig_argv]


def _share(asked: Asked) -> int:
    return max(asked.threads // asked.ranks_per_node, 1)


def _free_port() -> int:
    # Somebody else may take the port before rank 0 does; then the job fails at once and is tried again.
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _run(commands: Sequence[tuple[list[str], Mapping[str, str]]], inherited: Sequence[int]) -> int:
    """Run all at once; the exit code of the first that failed. SIGTERM is passed on; a failure ends the others."""
    running = [subprocess.Popen(command, env=env, pass_fds=tuple(inherited)) for command, env in commands]
    everyone = list(running)
    # SLURM signals the tasks of srun itself, and srun would answer a SIGTERM by killing them.
    pairs = zip(everyone, commands, strict=True)
    heard = [process for process, (command, _) in pairs if command[0] != "srun"]
    previous = signal.signal(signal.SIGTERM, lambda *_: _signal(heard, signal.SIGTERM))
    worst, deadline = 0, float("inf")
    try:
        while running:
            for process in [process for process in running if process.poll() is not None]:
                running.remove(process)
                if process.returncode and not worst:
                    worst, deadline = process.returncode, time.monotonic() + GRACE_S
                    if worst != EXIT_PREEMPTED:
                        _signal(running, signal.SIGTERM)
            if time.monotonic() > deadline:
                _signal(running, signal.SIGKILL)
            time.sleep(0.1)
    finally:
        _signal(everyone, signal.SIGKILL)
        signal.signal(signal.SIGTERM, previous)
    return worst


def _signal(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def requeue() -> None:
    """Ask SLURM to queue the running job again after a checkpoint, so that it does not count as failed.

    Nothing happens outside SLURM, nor where the job is already being canceled or preempted: then SLURM or Snakemake
    decides.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or shutil.which("scontrol") is None:
        return
    state = subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True, check=False)
    if state.stdout.strip() != "RUNNING":
        return
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        log.warning("SLURM does not requeue job %s: %s", job, done.stderr.strip())
        return
    log.info("SLURM queues job %s again", job)
    time.sleep(GRACE_S)  # SLURM ends this process meanwhile
