"""Times steps of the training loop on one rank: with averages of gradients, without, and the averages alone."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from z1g.bench.diffusion_size import build
from z1g.bench.machine import MIB, memory_mib, synchronize
from z1g.bench.made_up import OBJECTS, MadeUpScenes
from z1g.bench.scaling.job import Job
from z1g.core.device import default_device
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.objectives.diffusion import DiffusionData, DiffusionObjective
from z1g.training.data import Batch, StepData, ahead
from z1g.training.gradients import BUCKET_SIZE, average, buckets
from z1g.training.loop import Trainer
from z1g.training.objective import Objective
from z1g.training.passes import ReplayedPasses

WARM_UP = 8
"""Steps before the timed ones: kernels are selected, graphs are captured and objects are encoded in them."""
DIFFUSION_OBJECTS = 64
DDP_BUCKET = 25 * MIB // 4
"""Values that DistributedDataParallel sends at once by default."""


def measure(job: Job, rank: int, world: int) -> dict[str, Any]:
    """Seconds of each window by what ran in it, bytes of the gradients, and memory.

    step: whole steps of training. own: without averages of gradients. average: averages alone. transfer: all-reduces of
    as many bytes alone. The four alternate; with one rank there are whole steps only. Samples, weights and losses are
    those of training, until the first window without averages.
    """
    with _trainer(job, world) as trainer:
        replayed = trainer.passes if isinstance(trainer.passes, ReplayedPasses) else None
        kinds = 1 if world == 1 else 2
        steps = _steps(trainer, rank, world, WARM_UP + kinds * job.repeats * job.steps)
        began = time.perf_counter()
        for _ in range(WARM_UP):
            next(steps)
        device = trainer.accelerator.device
        synchronize(device)
        figures: dict[str, Any] = {"warm_up_s": round(time.perf_counter() - began, 1)}
        seconds: dict[str, list[float]] = {"step": []}
        alone: dict[str, Callable[[], None]] = {}
        for _ in range(job.repeats):
            seconds["step"].append(_window(trainer, lambda: next(steps), job.steps))
            figures |= {"memory_mib": memory_mib(device)} if len(seconds["step"]) == 1 else {}
            if world > 1:
                with trainer.passes.alone():
                    own = _window(trainer, lambda: next(steps), job.steps)
                # Only now, so that the gradients of this do not count as memory of training.
                alone = alone or _averages(trainer, world, DDP_BUCKET if replayed is None else BUCKET_SIZE)
                for name, work in alone.items():
                    seconds.setdefault(name, []).append(_window(trainer, work, job.steps))
                seconds.setdefault("own", []).append(own)
        return {
            **figures,
            "seconds": seconds,
            "replayed": replayed is not None and replayed.replay is not None,
            "parameters": sum(p.numel() for p in trainer.trained),
            "gradient_bytes": _bytes(trainer.trained),
            "optimizer_bytes": _bytes(
                value
                for state in trainer.optimizer.state.values()
                for value in state.values()
                if isinstance(value, Tensor)
            ),
            "backend": torch.distributed.get_backend() if world > 1 else None,
        }


def _window(trainer: Trainer, work: Callable[[], object], steps: int) -> float:
    """Mean seconds per call on this rank; all ranks begin together."""
    trainer.accelerator.wait_for_everyone()
    synchronize(trainer.accelerator.device)
    began = time.perf_counter()
    for _ in range(steps):
        work()
    synchronize(trainer.accelerator.device)
    return (time.perf_counter() - began) / steps


def _averages(trainer: Trainer, world: int, bucket_size: int) -> dict[str, Callable[[], None]]:
    """Average gradients like those of the model in buckets, or only send as many bytes."""
    gradients = [torch.zeros_like(parameter) for parameter in trainer.trained]
    counts = [sum(tensor.numel() for tensor in bucket) for bucket in buckets(gradients, bucket_size)]
    flat = torch.zeros(max(counts), device=gradients[0].device, dtype=gradients[0].dtype)

    def transfer() -> None:
        for count in counts:
            torch.distributed.all_reduce(flat[:count])

    return {"average": lambda: average(gradients, world, bucket_size), "transfer": transfer}


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _steps(trainer: Trainer, rank: int, world: int, n: int) -> Iterator[None]:
    """Steps of the training loop on this rank's part of the batches, one for each `next`."""
    device = trainer.accelerator.device
    loader = iter(trainer.data.batches(0, n, rank, world, 0))
    batches: Iterator[Batch] = ahead(loader, device.type == "cuda")
    for step, batch in enumerate(batches):
        trainer._step(step, batch)
        yield


@contextmanager
def _trainer(job: Job, world: int) -> Iterator[Trainer]:
    """A trainer of the job's stage with made-up data, whose batch has the job's objects for each rank."""
    device = default_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    train = (job.config.autodecoder if job.stage == "autodecoder" else job.unet).train
    train = train.model_copy(update={"batch_size": job.batch * world, "steps": 1_000_000})
    objective: Objective
    if job.stage == "autodecoder":
        objective = _stage_1(job)
        data = StepData(objective.sample, OBJECTS, train.batch_size, train.seed, in_memory=True)
    else:
        objective = _stage_2(job, device)
        data = StepData(objective.sample, DIFFUSION_OBJECTS, train.batch_size, train.seed)
    with tempfile.TemporaryDirectory(prefix="z1g-bench-") as folder:
        trainer = Trainer(objective, data, train, Path(folder))
        objective.train()
        yield trainer


def _stage_1(job: Job) -> AutodecoderObjective:
    config, codec = job.config, job.config.new_codec()
    if job.base is None:
        # With published weights, the encoder is frozen.
        codec.encoder.requires_grad_(False)
    scenes = MadeUpScenes(config, job.image)
    book = config.autodecoder.codes.book(scenes.ids, codec.code_shape)
    return AutodecoderObjective(config, codec, book, scenes, scenes.ids, None, cache="device")


def _stage_2(job: Job, device: torch.device) -> DiffusionObjective:
    """Stage 2 on random codes and conditions. The image encoder of a scale is trained with the UNet, as in its runs."""
    size, whole = job.diffusion, job.base is not None
    denoiser = job.config.new_denoiser() if whole else build(size, device, vision=False)
    job.unet.finetune.prepare(denoiser)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    n, side = DIFFUSION_OBJECTS, size.condition
    data = DiffusionData(
        codes=normal(n, *size.code),
        latents=normal(n, *size.condition_latent),
        zero_latent=torch.zeros(1, *size.condition_latent),
        embeddings=None if whole else normal(n, size.model.unet_size.cross_attention_dim),
        images=normal(n, 3, side, side).sigmoid() if whole else None,
    )
    return DiffusionObjective(job.unet, denoiser, data)
