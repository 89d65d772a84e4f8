"""The original's stage 1 written from its formulas, in float64 with plain torch operations, for `test_original.py`."""

import math

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

SPANS = {"position": (0, 3), "opacity": (3, 4), "scale": (4, 7), "rotation": (7, 11), "rgb": (11, 14)}
WEIGHTS = {"position": 1.0, "opacity": 1e-3, "scale": 1e-3, "rotation": 1.0, "rgb": 1.0}


def mosaic(views: list[Tensor]) -> Tensor:
    """Six images [C,H,W] as three rows of two."""
    return torch.cat([torch.cat(views[i : i + 2], dim=2) for i in (0, 2, 4)], dim=1)


def views_of(image: Tensor) -> list[Tensor]:
    """Inverse of `mosaic`."""
    h, w = image.shape[1] // 3, image.shape[2] // 2
    return [image[:, r * h : (r + 1) * h, c * w : (c + 1) * w] for r in range(3) for c in range(2)]


def encode(vae: AutoencoderKL, inputs: Tensor, noise: Tensor) -> Tensor:
    """Code of a mosaic [3,3H,2W] in 0..1: image scale, VAE sample, latent scale."""
    moments = vae.quant_conv(vae.encoder(((2 * inputs - 1) * 0.5 / 0.8)[None]))[0]
    mean, log_variance = moments.chunk(2)
    return ((mean + (log_variance / 2).exp() * noise) * 0.18215 - 0.22) * 0.75


def decode(vae: AutoencoderKL, others: nn.Conv2d, code: Tensor, size: int) -> Tensor:
    """Raw mosaic [14,3·size,2·size]: path `last_layer`, both heads, ×1.6 on all channels."""
    decoder = vae.decoder
    x = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(((code / 0.75 + 0.22) / 0.18215)[None])))
    for block in decoder.up_blocks:
        x = block(x)
    rows = torch.arange(3 * size) * x.shape[2] // (3 * size)
    columns = torch.arange(2 * size) * x.shape[3] // (2 * size)
    x = decoder.conv_norm_out(x[:, :, rows][:, :, :, columns])
    x = x / (1 + (-x).exp())
    return torch.cat([others(x), decoder.conv_out(x)], dim=1)[0] * 1.6


def activate(raw: Tensor, bias: float) -> Tensor:
    """The original's activations; quaternions are divided by a norm over the mosaic's rows."""
    parts = {name: raw[first:last] for name, (first, last) in SPANS.items()}
    scale = 0.1 * (1 + (parts["scale"] + bias).exp()).log()
    norm = parts["rotation"].square().sum(dim=1, keepdim=True).sqrt()
    return torch.cat(
        [
            parts["position"].clip(-1, 1),
            1 / (1 + (-parts["opacity"]).exp()),
            scale.clip(math.exp(-10), math.exp(-2)),
            parts["rotation"] / norm,
            0.5 * parts["rgb"].tanh() + 0.5,
        ]
    )


def render(views: list[Tensor], c2w: Tensor, fov_y_deg: float, side: int) -> tuple[Tensor, Tensor]:
    """Premultiplied color [3,side,side] and alpha [1,side,side] of splatter images, Gaussian by Gaussian.

    Quaternions are not normalized; blur 0.3 px², maximal alpha 0.99, near plane 0.2.
    """
    gaussians = torch.cat([view.permute(1, 2, 0).reshape(-1, 14) for view in views])
    turn = torch.linalg.inv(c2w)[:3, :3]
    seen = (gaussians[:, :3] - c2w[:3, 3]) @ turn.T
    order = seen[:, 2].argsort(stable=True)
    limit = math.tan(math.radians(fov_y_deg) / 2)
    focal = side / (2 * limit)
    x = torch.arange(side, dtype=torch.float64) + 0.5
    light, color = torch.ones(side, side, dtype=torch.float64), torch.zeros(3, side, side, dtype=torch.float64)
    stopped = torch.zeros(side, side, dtype=torch.bool)
    for i in order[seen[order, 2] > 0.2].tolist():
        (px, py, z), g = seen[i], gaussians[i]
        tx, ty = (px / z).clip(-1.3 * limit, 1.3 * limit), (py / z).clip(-1.3 * limit, 1.3 * limit)
        zero = torch.zeros_like(z)
        jacobian = torch.stack([focal / z, zero, -focal * tx / z, zero, focal / z, -focal * ty / z]).view(2, 3)
        half = jacobian @ turn @ rotation(g[7:11]) @ torch.diag(g[4:7])
        spread = half @ half.T + 0.3 * torch.eye(2, dtype=torch.float64)
        d = torch.stack(
            torch.broadcast_tensors(x[None] - focal * px / z - side / 2, x[:, None] - focal * py / z - side / 2)
        )
        power = torch.einsum("ihw,ij,jhw->hw", d, torch.linalg.inv(spread), d)
        alpha = (g[3] * (-power / 2).exp()).clip(max=0.99)
        alpha = torch.where(alpha < 1 / 255, 0, alpha)
        stopped = stopped | (light * (1 - alpha) < 1e-4)
        alpha = torch.where(stopped, 0, alpha)
        color = color + light * alpha * g[11:14, None, None]
        light = light * (1 - alpha)
    return color, 1 - light[None]


def rotation(q: Tensor) -> Tensor:
    """3DGS's matrix of a quaternion of any length, w first."""
    w, x, y, z = q
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows).view(3, 3)


def splat_loss(predicted: list[Tensor], truth: Tensor) -> Tensor:
    """Weighted sum of the attributes' mean squared errors; truth [6,14,S,S]."""
    stacked = torch.stack(predicted)
    total = torch.zeros((), dtype=torch.float64)
    for name, (first, last) in SPANS.items():
        total = total + WEIGHTS[name] * (stacked[:, first:last] - truth[:, first:last]).square().mean()
    return total
