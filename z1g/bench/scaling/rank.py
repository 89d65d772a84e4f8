"""One process of a row: `python -m z1g.bench.scaling.rank JOB FOLDER` measures and writes `FOLDER/rank<n>.json`."""

import json
import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from z1g.core.files import write_json
from z1g.jobs.launch import ResourceRequest, devices

LEASES = "Z1G_BENCH_LEASES"
"""Set for processes that lease a GPU themselves, as jobs of chunks do."""


def main() -> None:
    """Measure. An error is written too, for the parent to name, and ends this process and with it the others."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    job, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        figures = _measured(job, rank, world)
    except Exception as error:
        write_json(
            folder / f"rank{rank}.json", {"error": f"{type(error).__name__}: {' '.join(str(error).splitlines()[:1])}"}
        )
        raise
    write_json(folder / f"rank{rank}.json", figures)


def _measured(request: dict[str, Any], rank: int, world: int) -> dict[str, Any]:
    if world == 1:
        # Like a job with one GPU, which is not distributed.
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            del os.environ[name]
    # Before anything looks for a GPU; importing diffusers does. From then on the visible GPUs are fixed.
    with devices(ResourceRequest(1, 1, 1)) if LEASES in os.environ else nullcontext():
        import torch

        from z1g.bench.machine import device_name, versions
        from z1g.bench.scaling import chunks, training
        from z1g.bench.scaling.job import TRAINED, Job
        from z1g.core.device import default_device

        job = Job(**request)
        if job.stage in TRAINED:
            figures = training.measure(job, rank, world)
        elif world == 1:
            figures = chunks.measure(job, rank, world, lambda: None)
        else:
            torch.distributed.init_process_group("gloo")
            figures = chunks.measure(job, rank, world, torch.distributed.barrier)
        figures |= {"device": device_name(default_device().type), "versions": versions()}
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
    return figures


if __name__ == "__main__":
    main()
