"""Fused GPU kernels of network layers, with fewer passes over memory."""

import importlib.util

import torch

MIN_CAPABILITY = (8, 0)
"""Least compute capability: Ampere is the first architecture with bfloat16 arithmetic."""


def available(device: torch.device) -> bool:
    """Whether the kernels can run on this device."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= MIN_CAPABILITY
