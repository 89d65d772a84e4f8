"""Test scenes for rasterizers, and images and gradients to compare."""

import numpy as np
import torch
from torch import Tensor

from z1g.gaussians.channels import CHANNELS
from z1g.geometry.camera import Cameras, orbit_c2w
from z1g.render import Rasterizer, RenderOutput

FOV = 49.1
"""Vertical field of view in degrees."""


def cameras(b: int, v: int, height: int, width: int) -> Cameras:
    """[b,v] cameras around the origin, of images of height × width."""
    poses = [[orbit_c2w(17.0 * j - 25, 50.0 * j + 20 * i + 5, 1.5) for j in range(v)] for i in range(b)]
    return Cameras(torch.from_numpy(np.array(poses)), FOV, height, width)


def gaussians(kind: str, b: int, n: int, seed: int = 0) -> Tensor:
    """Activated Gaussians [b,n,14] in float64, quaternions not normalized."""
    g = torch.randn(b, n, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    position, opacity, scale, _, rgb = (g[..., channels] for channels in CHANNELS.values())
    position *= 0.2
    opacity.copy_(torch.sigmoid(2 * opacity))
    scale.copy_(torch.exp(0.6 * scale - 4))
    rgb.copy_(torch.sigmoid(rgb))
    if kind == "trained":
        position.copy_(0.4 * torch.nn.functional.normalize(position, dim=-1))
        opacity.copy_(0.5 + 0.49 * opacity)
    elif kind == "huge":
        scale *= 20
    elif kind == "tiny":
        scale *= 1e-4
    elif kind == "needles":
        scale[..., 0] = 0.3
        scale[..., 1:] = 1e-3
    elif kind == "behind":
        position[:, ::2] *= 12
    elif kind == "transparent":
        opacity[:, ::2] = 0
    elif kind == "opaque":
        opacity.fill_(1)
    elif kind == "nan":
        position[:, ::3, 0] = torch.nan
        scale[:, 1::3, 1] = torch.inf
    return g


def flat(output: RenderOutput) -> Tensor:
    """Color, alpha and depth as one tensor [B,V,5,H,W]."""
    return torch.cat([output.rgb, output.alpha, output.depth], dim=2)


def gradient(backend: Rasterizer, g: Tensor, c: Cameras, weight: Tensor) -> Tensor:
    """Gradient [B,N,14] in float64 of the weighted sum of color over gray, alpha and depth."""
    leaf = g.clone().requires_grad_(True)
    # On a gray background, so that color depends on alpha too.
    output = backend.render(leaf, c)
    image = torch.cat([output.over(torch.tensor(0.3)), output.alpha, output.depth], dim=2)
    (image * weight.to(image)).sum().backward()
    assert leaf.grad is not None
    return leaf.grad.double()
