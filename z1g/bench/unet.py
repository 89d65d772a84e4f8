"""Benchmark of stage-2 training: the original's way and variants of ours."""

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from z1g.bench.diffusion_size import SIZES, Size, build, teraflops_a_sample
from z1g.bench.machine import device_name, guarded, matmul_rate, memory_mib, synchronize, versions
from z1g.bench.variants import ATTENTION, Variant
from z1g.config.sections import UNetOptions
from z1g.core.device import default_device
from z1g.networks.autoencoder import ImageEncoder
from z1g.networks.diffusion import TIMESTEPS
from z1g.objectives.diffusion import DiffusionData, DiffusionObjective
from z1g.representations import Mosaic
from z1g.training.data import StepData, ahead
from z1g.training.loop import Trainer, one_precision_each

FLAGS = ("fp32", "autocast", *ATTENTION, "unfused", "recompute", "launched")
OBJECTS = 64
WARM_UP = 5
"""Number of steps before the timed ones. Variants with replay record CUDA graphs in the fourth step."""


def measure(size_name: str, variants: Sequence[str], steps: int, seconds: float) -> dict[str, Any]:
    """Samples/s and TFLOP/s of whole training steps, including the optimizer. Measurements stop after `seconds`.

    Of the mosaic, ratios are to the original's way; of other representations, which the original does not have, to the
    same networks layer by layer in the largest batch. Raises UserError for an invalid variant.
    """
    size, device, began = SIZES[size_name], default_device(), time.perf_counter()
    parsed = [Variant.parse(name, FLAGS) for name in variants]
    figures: dict[str, Any] = {"size": size_name, "device": device_name(device.type), "versions": versions()}
    figures["matmul"] = matmul = guarded("matmul", lambda: {"tflops": round(matmul_rate(device), 1)}, device)
    figures["work"] = work = guarded("work", partial(_work, size, device), device)
    if isinstance(size.representation, Mosaic):
        other, way = "original_way", partial(_original_way, size)
    else:
        largest = max(variant.batch for variant in parsed)
        plain = Variant.parse(f"b{largest}+autocast+unfused+launched", FLAGS)
        other, way = "layer_by_layer", partial(_ours, size, plain)
    figures[other] = guarded(other, lambda: way(steps, device), device)
    figures["runs"] = []
    for variant in parsed:
        row = guarded(variant.name, partial(_ours, size, variant, steps, device), device, began + seconds)
        figures["runs"].append(row | _shares(row, work, matmul) | _ratio(row, other, figures[other]))
    done = [row for row in figures["runs"] if "samples_per_s" in row]
    figures["best"] = max(done, key=lambda row: row["samples_per_s"]) if done else None
    figures["wall_s"] = round(time.perf_counter() - began, 1)
    return figures


def _shares(row: dict[str, Any], work: dict[str, Any], matmul: dict[str, Any]) -> dict[str, Any]:
    shares: dict[str, Any] = {}
    if "samples_per_s" in row and "tflop_a_sample" in work:
        shares["tflops"] = round(row["samples_per_s"] * work["tflop_a_sample"], 1)
        if "tflops" in matmul:
            shares["share_of_matmul"] = round(shares["tflops"] / max(matmul["tflops"], 1e-9), 3)
    return shares


def _ratio(row: dict[str, Any], name: str, other: dict[str, Any]) -> dict[str, Any]:
    if "samples_per_s" not in row or "samples_per_s" not in other:
        return {}
    return {f"ratio_to_{name}": round(row["samples_per_s"] / other["samples_per_s"], 2)}


def _work(size: Size, device: torch.device) -> dict[str, Any]:
    denoiser = build(size, device, vision=False)
    parameters = sum(p.numel() for p in denoiser.unet.parameters())
    work = teraflops_a_sample(size, denoiser, device, backward=True)
    return {"parameters_m": round(parameters / 1e6, 1), "tflop_a_sample": work}


def _ours(size: Size, variant: Variant, steps: int, device: torch.device) -> dict[str, Any]:
    """Time whole steps of the training loop on cached codes and conditions."""
    values = {
        "bf16": "autocast" if "autocast" in variant.on else "weights",
        "attention": variant.attention,
        "train": {
            "batch_size": variant.batch,
            "micro_batch": variant.micro,
            "steps": 10_000,
            "precision": "fp32" if "fp32" in variant.on else "auto",
            "speed": {
                "fused": "unfused" not in variant.on,
                "recompute": "recompute" in variant.on,
                "replay": "launched" not in variant.on,
            },
        },
    }
    options = UNetOptions.model_validate(values)
    denoiser = build(size, device, vision=False)
    options.finetune.prepare(denoiser)
    objective = DiffusionObjective(options, denoiser, _data(size))
    one_precision_each()
    data = StepData(objective.sample, OBJECTS, variant.batch, options.train.seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(objective, data, options.train, Path(folder))
        objective.train()
        batches = enumerate(ahead(iter(data.batches(0, WARM_UP + steps, 0, 1, 0)), device.type == "cuda"))
        began = time.perf_counter()
        for step, batch in batches:
            if step == WARM_UP:
                synchronize(device)
                warm_up_s, began = time.perf_counter() - began, time.perf_counter()
            trainer._step(step, batch)
        synchronize(device)
        seconds = (time.perf_counter() - began) / steps
    return {
        "batch": variant.batch,
        "step_s": round(seconds, 4),
        "samples_per_s": round(variant.batch / seconds, 3),
        "memory_mib": memory_mib(device),
        "warm_up_s": round(warm_up_s, 1),
    }


def _data(size: Size) -> DiffusionData:
    return DiffusionData(
        codes=torch.randn(OBJECTS, *size.code),
        latents=torch.randn(OBJECTS, *size.condition_latent),
        zero_latent=torch.zeros(1, *size.condition_latent),
        embeddings=torch.randn(OBJECTS, size.model.unet_size.cross_attention_dim),
    )


def _original_way(size: Size, steps: int, device: torch.device) -> dict[str, Any]:
    """One sample per step in fp32, as in the original: VAE and ViT-H encode the image in every step."""
    denoiser = build(size, device, vision=True)
    denoiser.whole_bf16 = False
    with torch.device(device):
        encoder = ImageEncoder(size.model.autoencoder()).requires_grad_(False)
    optimizer = torch.optim.AdamW(denoiser.unet.parameters(), lr=2e-6, weight_decay=0.05, betas=(0.9, 0.95))
    code = torch.randn(1, *size.code, device=device)
    image = torch.rand(1, 3, size.condition, size.condition, device=device)

    def step(_: int) -> Tensor:
        with torch.no_grad():
            latent = encoder.posterior(2 * image - 1)[0]
            encoder.posterior(torch.zeros_like(image))
            condition = denoiser.condition(latent, image)
        timestep = torch.randint(TIMESTEPS, (1,), device=device)
        noisy = denoiser.schedule.add_noise(code, torch.randn_like(code), timestep)
        velocity = denoiser(noisy, timestep, condition, torch.randn_like(latent))
        loss = functional.mse_loss(denoiser.schedule.x0_from_v(noisy, velocity, timestep), code)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    for i in range(WARM_UP):
        step(i)
    synchronize(device)
    began = time.perf_counter()
    for i in range(steps):
        step(i)
    synchronize(device)
    seconds = (time.perf_counter() - began) / steps
    return {
        "batch": 1,
        "step_s": round(seconds, 4),
        "samples_per_s": round(1 / seconds, 3),
        "memory_mib": memory_mib(device),
    }
