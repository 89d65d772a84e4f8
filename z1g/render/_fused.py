"""Where the rasterizers' own Triton kernels run."""

from functools import cache

import torch

from z1g.core.device import runs_triton

_runs_triton = cache(runs_triton)
"""Asked at every render."""


def fused(device: torch.device) -> bool:
    """Whether Triton can launch kernels on this device; it does so on the current one only."""
    return device.type == "cuda" and device.index == torch.cuda.current_device() and _runs_triton(device)
