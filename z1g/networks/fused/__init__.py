"""Networks on a GPU in fewer passes over its memory."""

import importlib.util

import torch

OLDEST = (8, 0)
"""Compute capability: Ampere's GPUs are the first that calculate in bfloat16."""


def available(device: torch.device) -> bool:
    """Whether the kernels run on this device."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= OLDEST
