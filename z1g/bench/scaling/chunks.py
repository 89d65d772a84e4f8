"""Times chunks of objects on one GPU, while other processes work on theirs."""

import time
from collections.abc import Callable
from typing import Any

import torch

from z1g.bench.balls import ball
from z1g.bench.infer import networks, random_images
from z1g.bench.machine import memory_mib, synchronize
from z1g.bench.scaling.job import FIT_STEPS, Job
from z1g.core.device import default_device
from z1g.fitting.optimize import Fit
from z1g.fitting.queue import FitQueue
from z1g.sampling.options import InferOptions

WARM_UP_STEPS = 3


def measure(job: Job, rank: int, world: int, together: Callable[[], object]) -> dict[str, Any]:
    """Seconds of each chunk, after a shorter one that selects kernels. `together` waits until all processes call it.

    A chunk is in memory from the beginning; reading and writing files is not timed.
    """
    device = default_device()
    began = time.perf_counter()
    work = {"fit": _fit, "infer": _infer}[job.stage](job, rank, device)
    figures = {"warm_up_s": round(time.perf_counter() - began, 1)}
    seconds = []
    for _ in range(job.repeats):
        together()
        began = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return {**figures, "seconds": {"step": seconds}, "memory_mib": memory_mib(device)}


def _fit(job: Job, rank: int, device: torch.device) -> Callable[[], object]:
    config, options = job.config, job.config.fit
    steps = FIT_STEPS[job.size] if job.base is None else None
    options = options if steps is None else options.model_copy(update={"steps": steps})
    scenes = [ball(config, job.image, rank * job.batch + i) for i in range(job.batch)]
    fit = Fit(options, config.splat.size, config.render, config.camera)
    short = Fit(options.model_copy(update={"steps": WARM_UP_STEPS}), fit.size, fit.rasterizer, fit.camera)
    for _ in FitQueue(short).run(scenes):
        pass
    return lambda: list(FitQueue(fit).run(scenes))


def _infer(job: Job, rank: int, device: torch.device) -> Callable[[], object]:
    size = job.diffusion
    options = job.config.infer if job.base is not None else InferOptions()
    changes: dict[str, Any] = {"steps": job.steps, "cuda_graphs": True}
    if job.base is None:
        changes["attention"] = job.unet.attention
    method = networks(size, options.model_copy(update=changes), device)
    images, seeds = random_images(size, job.batch, device), [rank * job.batch + i for i in range(job.batch)]
    method(images, seeds)
    return lambda: method(images, seeds)
