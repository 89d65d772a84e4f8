"""Distribution of a job's cores and memory among processes of a renderer."""

import os
from dataclasses import dataclass
from pathlib import Path

from z1g.meshes.renderers.base import Renderer

LEAST_MB = 1024
"""Blender with a typical object uses about a third of this."""
RENDERERS_PART = 0.9
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
MIB = 2**20


@dataclass(frozen=True)
class Share:
    """Number of concurrent processes, and threads and memory of each."""

    processes: int
    threads: int
    memory_mb: int


def share_out(options: Renderer, threads: int, objects: int, views: int) -> Share:
    """Distribute a job's `threads` cores for rendering `objects` objects with `views` images each."""
    memory_mb = RENDERERS_PART * job_memory_mb(threads)
    processes = options.processes or _processes(options, threads, views, memory_mb)
    processes = max(1, min(processes, objects))
    return Share(processes, max(1, threads // processes), options.memory_mb or int(memory_mb / processes))


def _processes(options: Renderer, threads: int, views: int, memory_mb: float) -> int:
    threads_each = options.threads_each(views)
    if threads_each is None:
        return 1
    return min(threads // threads_each, int(memory_mb / (options.memory_mb or LEAST_MB)))


def job_memory_mb(threads: int) -> float:
    """Memory of this job, MiB: SLURM's allocation, else the machine's memory in proportion to the job's cores."""
    node, cpu = (int(os.environ.get(f"SLURM_MEM_PER_{unit}", 0)) for unit in ("NODE", "CPU"))
    if node or cpu:
        return node or cpu * threads
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in CGROUP_LIMITS:
        limit = file.read_text().strip() if file.is_file() else "max"
        machine = machine if limit == "max" else min(machine, int(limit))
    return machine / MIB * min(1.0, threads / (os.cpu_count() or 1))
