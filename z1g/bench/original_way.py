"""Stage 1 as in the original: one object per step, fp16 autocast with a gradient scaler, a loop over views."""

from collections.abc import Callable

import torch
import torch.nn.functional as functional
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from z1g.config.tree import Experiment
from z1g.gaussians.channels import split, to_gaussians
from z1g.geometry.camera import Cameras
from z1g.networks.perceptual import untrained_lpips
from z1g.render import Rasterizer
from z1g.render.auto import Auto
from z1g.render.diff_gaussian import DiffGaussian
from z1g.representations.mosaic.codec import MosaicCodec
from z1g.training.data import Batch

ATTRIBUTE_WEIGHTS = {"position": 1.0, "opacity": 1e-3, "scale": 1e-3, "rotation": 1.0, "rgb": 1.0}


def rasterizer(device: torch.device) -> tuple[Rasterizer, str]:
    """The original's rasterizer, or the default one if that is not installed, and its name."""
    if device.type == "cuda":
        try:
            import diff_gaussian_rasterization  # noqa: F401
        except ImportError:
            return Auto(), "gsplat (diff_gaussian_rasterization is not installed)"
        return DiffGaussian(), "diff_gaussian_rasterization"
    return Auto(), "cpu"


def step_function(
    config: Experiment, codec: MosaicCodec, perceptual_size: int, device: torch.device
) -> Callable[[Batch], float]:
    """Return a function that runs a training step of the original on a prepared batch of one object, and its loss."""
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    codec.vae.set_attn_processor(AttnProcessor2_0())
    encoder, decoder = codec.encoder.to(device), codec.decoder.to(device).train()
    trained = [p for p in decoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.05, betas=(0.9, 0.95))
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    draw, _ = rasterizer(device)
    perceptual = untrained_lpips().network.to(device)

    def losses(batch: Batch) -> Tensor:
        with torch.no_grad():
            mean, deviation = encoder.posterior(2 * batch["inputs"] - 1)
            code = mean + deviation * torch.randn_like(mean)
        splats = decoder(code)
        rgb, alpha = _views(draw, config, splats, batch)
        background = batch["background"][:, None]
        rgb = rgb + (1 - alpha) * background
        truth = batch["rgb"] + (1 - batch["alpha"]) * background
        loss: Tensor = functional.mse_loss(rgb, truth) + functional.mse_loss(alpha, batch["alpha"])
        small, small_truth = (
            functional.interpolate(x.flatten(0, 1) * 2 - 1, (perceptual_size, perceptual_size), mode="bilinear")
            for x in (rgb, truth)
        )
        loss = loss + perceptual(small, small_truth).mean()
        predicted, fitted = split(splats, dim=2), split(batch["splats"], dim=2)
        for name, weight in ATTRIBUTE_WEIGHTS.items():
            loss = loss + weight * functional.mse_loss(predicted[name], fitted[name])
        return loss

    def step(batch: Batch) -> float:
        with torch.autocast(device.type, dtype=half):
            loss = losses(batch)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def _views(draw: Rasterizer, config: Experiment, splats: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Premultiplied color [B,V,3,H,W] and alpha [B,V,1,H,W], rendered with one call per view."""
    gaussians, side = to_gaussians(splats.float()), batch["rgb"].shape[-1]
    outputs = [
        draw.render(gaussians, Cameras(batch["c2w"][:, i : i + 1], config.camera.fov_y_deg, side, side))
        for i in range(batch["c2w"].shape[1])
    ]
    return torch.cat([output.rgb for output in outputs], dim=1), torch.cat([output.alpha for output in outputs], dim=1)
