"""Benchmark of inference from condition images to splatter images: the original's way and ours."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor

from z1g.bench.diffusion_size import SIZES, Size, build, teraflops_a_sample
from z1g.bench.machine import device_name, guarded, matmul_rate, memory_mib, synchronize, versions
from z1g.bench.variants import ATTENTION, Variant
from z1g.config.tree import Experiment
from z1g.core.device import default_device
from z1g.gaussians.channels import SplatOptions
from z1g.inference.method import ImageToSplats
from z1g.representations.codec import Trained
from z1g.sampling.options import InferOptions

FLAGS = ("fp32", *ATTENTION, "graphs")
ORIGINAL_STEPS, ORIGINAL_GUIDANCE = 75, 4.0
T = TypeVar("T")


def measure(
    size_name: str, variants: Sequence[str], steps: int, repeats: int, seconds: float,
    guidance: float = ORIGINAL_GUIDANCE,
) -> dict[str, Any]:  # fmt: skip
    """Objects/s and seconds from condition images to splatter images, with sampling in `steps` steps, and its parts.

    guidance: 1 for one pass of the UNet a step, as of distilled networks; the original's way always has its own.
    Measurements stop after `seconds`. Raises UserError for an invalid variant.
    """
    size, device, began = SIZES[size_name], default_device(), time.perf_counter()
    parsed = [Variant.parse(name, FLAGS) for name in variants]
    figures: dict[str, Any] = {
        "size": size_name,
        "steps": steps,
        "guidance": guidance,
        "device": device_name(device.type),
    }
    figures["versions"] = versions()
    figures["matmul"] = guarded("matmul", lambda: {"tflops": round(matmul_rate(device), 1)}, device)
    figures["work"] = guarded("work", partial(_work, size, device), device)
    figures["original_way"] = original = guarded(
        "original_way", partial(_original_way, size, device, steps=ORIGINAL_STEPS), device
    )
    figures["runs"] = []
    for variant in parsed:
        run = partial(_ours, size, variant, steps, guidance, repeats, device)
        row = guarded(variant.name, run, device, began + seconds)
        if "objects_per_s" in row and "objects_per_s" in original:
            row["ratio_to_original_way"] = round(row["objects_per_s"] / original["objects_per_s"], 1)
        figures["runs"].append(row)
    figures["wall_s"] = round(time.perf_counter() - began, 1)
    return figures


def _work(size: Size, device: torch.device) -> dict[str, Any]:
    denoiser = build(size, device, vision=False)
    return {"tflop_a_forward": teraflops_a_sample(size, denoiser, device, backward=False)}


def _ours(
    size: Size, variant: Variant, steps: int, guidance: float, repeats: int, device: torch.device
) -> dict[str, Any]:  # fmt: skip
    options = InferOptions(
        steps=steps,
        guidance=guidance,
        precision="fp32" if "fp32" in variant.on else "auto",
        attention=variant.attention,
        cuda_graphs="graphs" in variant.on,
    )
    method = networks(size, options, device)
    seeds = list(range(variant.batch))
    row = _time(lambda images: method(images, seeds), size, variant.batch, repeats, device)
    return row | _parts(method, random_images(size, variant.batch, device), seeds, repeats, device)


def _parts(
    method: ImageToSplats, images: Tensor, seeds: Sequence[int], repeats: int, device: torch.device
) -> dict[str, float]:  # fmt: skip
    """Median seconds of what a warm call consists of, each called alone: the condition's networks, UNet and decoder."""
    condition, condition_s = _median(lambda: method.condition(images), repeats, device)
    codes, unet_s = _median(lambda: method.sampled(condition, seeds), repeats, device)
    _, decode_s = _median(lambda: method.decode(codes), repeats, device)
    return {"condition_s": condition_s, "unet_s": unet_s, "decode_s": decode_s}


def _median(run: Callable[[], T], repeats: int, device: torch.device) -> tuple[T, float]:
    """The result of a call, and median seconds of a call."""
    calls = []
    for _ in range(repeats):
        synchronize(device)
        began = time.perf_counter()
        result = run()
        synchronize(device)
        calls.append(time.perf_counter() - began)
    return result, round(median(calls), 4)


def _original_way(size: Size, device: torch.device, *, steps: int) -> dict[str, Any]:
    """One object at a time in fp32, without CUDA graphs."""
    options = InferOptions(steps=steps, guidance=ORIGINAL_GUIDANCE, precision="fp32", cuda_graphs=False)
    method = networks(size, options, device)
    method.options = options.model_copy(update={"steps": 2})
    method(random_images(size, 1, device), [0])
    method.options = options
    return _time(lambda images: method(images, [0]), size, 1, 0, device)


def networks(size: Size, options: InferOptions, device: torch.device) -> ImageToSplats:
    """The trained method with networks of a size and random weights."""
    config = Experiment(model=size.model, representation=size.representation, splat=SplatOptions(size=size.splats))
    codec = config.new_codec().requires_grad_(False).eval().for_inference(device)
    statistics = {
        "mean": torch.zeros(1, device=device),
        "deviation": torch.ones(1, device=device),
        "zero_latent": torch.zeros(1, *size.condition_latent, device=device),
    }
    denoiser = build(size, device, vision=True).requires_grad_(False).eval()
    return ImageToSplats(Trained(codec, denoiser, statistics), options)


def random_images(size: Size, batch: int, device: torch.device) -> Tensor:
    """Random condition images [batch,3,side,side]."""
    return torch.rand(batch, 3, size.condition, size.condition, device=device)


def _time(
    run: Callable[[Tensor], object], size: Size, batch: int, repeats: int, device: torch.device
) -> dict[str, Any]:  # fmt: skip
    """Seconds of the first call, and mean seconds and objects/s of later calls (of the first without `repeats`)."""
    images, seconds = random_images(size, batch, device), []
    for _ in range(1 + repeats):
        synchronize(device)
        began = time.perf_counter()
        run(images)
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    later = seconds[1:] or seconds
    mean = sum(later) / len(later)
    return {
        "batch": batch,
        "first_call_s": round(seconds[0], 3),
        "seconds": round(mean, 3),
        "objects_per_s": round(batch / mean, 3),
        "memory_mib": memory_mib(device),
    }
