"""Networks on a GPU in fewer passes over its memory."""

import importlib.util

import torch


def available(device: torch.device) -> bool:
    """Whether the kernels run on this device."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None
