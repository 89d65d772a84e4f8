"""LGM: an asymmetric U-Net from posed images to Gaussians (Tang et al., ECCV 2024, arXiv 2402.05054).

Modules have the names of the public checkpoints, which load without conversion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from z1g.gaussians.channels import N_CHANNELS

GROUPS, HEADS = 32, 16
SKIP_SCALE = 0.5**0.5
"""Keeps the variance of sums of two branches."""
IN_CHANNELS = 9
"""Color and the ray in Plücker coordinates: moment o × d and direction d."""


@dataclass(frozen=True)
class Level:
    """One resolution: output channels, residual blocks and whether views attend to each other."""

    channels: int
    blocks: int
    attention: bool


@dataclass(frozen=True)
class Layout:
    """Architecture of a network, derived from its checkpoint."""

    down: tuple[Level, ...]
    up: tuple[Level, ...]
    mid_attention: bool

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Layout:
        """Derive from a state dict. Raises KeyError if it is not a state dict of LGM."""

        def levels(name: str) -> tuple[Level, ...]:
            parsed: list[Level] = []
            while f"unet.{name}.{len(parsed)}.nets.0.conv1.weight" in state:
                prefix = f"unet.{name}.{len(parsed)}"
                blocks = sum(f"{prefix}.nets.{i}.conv1.weight" in state for i in range(16))
                channels = int(state[f"{prefix}.nets.0.conv1.weight"].shape[0])
                parsed.append(Level(channels, blocks, f"{prefix}.attns.0.norm.weight" in state))
            if not parsed:
                raise KeyError(f"unet.{name}.0.nets.0.conv1.weight")
            return tuple(parsed)

        return cls(levels("down_blocks"), levels("up_blocks"), "unet.mid_block.attns.0.norm.weight" in state)


class LGM(nn.Module):
    """Raw splatter images [B,V,14,S',S'] from inputs [B,V,9,S,S]; see `features` for the inputs' channels."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.unet = _UNet(layout)
        self.conv = nn.Conv2d(N_CHANNELS, N_CHANNELS, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        raw: Tensor = self.conv(self.unet(inputs.flatten(0, 1), inputs.shape[1]))
        views: Tensor = raw.unflatten(0, inputs.shape[:2])
        return views


class _UNet(nn.Module):
    def __init__(self, layout: Layout) -> None:
        super().__init__()
        channels = [level.channels for level in layout.down]
        self.conv_in = nn.Conv2d(IN_CHANNELS, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            _Down(channels[max(i - 1, 0)], level, last=i == len(channels) - 1) for i, level in enumerate(layout.down)
        )
        self.mid_block = _Mid(channels[-1], layout.mid_attention)
        before, ups = layout.up[0].channels, []
        for i, level in enumerate(layout.up):
            skip = channels[max(-2 - i, -len(channels))]
            ups.append(_Up(before, skip, level, last=i == len(layout.up) - 1))
            before = level.channels
        self.up_blocks = nn.ModuleList(ups)
        self.norm_out = nn.GroupNorm(GROUPS, before)
        self.conv_out = nn.Conv2d(before, N_CHANNELS, 3, padding=1)

    def forward(self, x: Tensor, views: int) -> Tensor:
        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            x = block(x, views, skips)
        x = self.mid_block(x, views)
        for block in self.up_blocks:
            x = block(x, views, skips)
        result: Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return result


class _Down(nn.Module):
    def __init__(self, before: int, level: Level, *, last: bool) -> None:
        super().__init__()
        c = level.channels
        self.nets = nn.ModuleList(_Residual(before if i == 0 else c, c) for i in range(level.blocks))
        self.attns = _attentions(c, level.blocks, level.attention)
        self.downsample = None if last else nn.Conv2d(c, c, 3, stride=2, padding=1)

    def forward(self, x: Tensor, views: int, skips: list[Tensor]) -> Tensor:
        for net, attn in zip(self.nets, self.attns, strict=True):
            x = attn(net(x), views)
            skips.append(x)
        if self.downsample is not None:
            x = self.downsample(x)
            skips.append(x)
        return x


class _Mid(nn.Module):
    def __init__(self, channels: int, attention: bool) -> None:
        super().__init__()
        self.nets = nn.ModuleList(_Residual(channels, channels) for _ in range(2))
        self.attns = _attentions(channels, 1, attention)

    def forward(self, x: Tensor, views: int) -> Tensor:
        result: Tensor = self.nets[1](self.attns[0](self.nets[0](x), views))
        return result


class _Up(nn.Module):
    def __init__(self, before: int, skip: int, level: Level, *, last: bool) -> None:
        super().__init__()
        c, n = level.channels, level.blocks
        self.nets = nn.ModuleList(
            _Residual((before if i == 0 else c) + (skip if i == n - 1 else c), c) for i in range(n)
        )
        self.attns = _attentions(c, n, level.attention)
        self.upsample = None if last else nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Tensor, views: int, skips: list[Tensor]) -> Tensor:
        for net, attn in zip(self.nets, self.attns, strict=True):
            x = attn(net(torch.cat([x, skips.pop()], dim=1)), views)
        if self.upsample is not None:
            x = self.upsample(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class _Residual(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, before), nn.GroupNorm(GROUPS, after)
        self.conv1, self.conv2 = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(functional.silu(self.norm1(x)))
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        result: Tensor = (hidden + self.shortcut(x)) * SKIP_SCALE
        return result


class _Attention(nn.Module):
    """Self-attention over the pixels of all views of an object together."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(channels, 3 * channels, bias=False), "proj": nn.Linear(channels, channels)}
        )

    def forward(self, x: Tensor, views: int) -> Tensor:
        tokens = self.norm(x).unflatten(0, (-1, views)).movedim(2, -1)
        packed = self.attn["qkv"](tokens.flatten(1, 3)).unflatten(2, (3, HEADS, -1))
        q, k, v = packed.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out = self.attn["proj"](mixed).view(tokens.shape).movedim(-1, 2).flatten(0, 1)
        result: Tensor = (out + x) * SKIP_SCALE
        return result


class _Skipped(nn.Module):
    """Identity without parameters, for levels without attention."""

    def forward(self, x: Tensor, views: int) -> Tensor:
        return x


def _attentions(channels: int, n: int, attention: bool) -> nn.ModuleList:
    return nn.ModuleList(_Attention(channels) if attention else _Skipped() for _ in range(n))


def features(rgb: Tensor, origins: Tensor, directions: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Inputs [V,9,S,S]: normalized color [V,3,S,S], then rays [V,3,S,S] as o × d and d, with d of length 1."""
    scaled = (rgb - torch.tensor(mean).to(rgb)[:, None, None]) / torch.tensor(std).to(rgb)[:, None, None]
    unit = functional.normalize(directions, dim=1)
    return torch.cat([scaled, torch.cross(origins, unit, dim=1), unit], dim=1)
