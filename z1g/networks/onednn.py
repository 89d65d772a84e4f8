"""Linear layers by oneDNN on CPUs on which torch's own are slow.

torch multiplies float32 matrices with MKL, which uses half the width of vectors on CPUs that are not Intel's: for the
shapes of a UNet, 106 GFLOP/s on a core of an AMD EPYC with AVX-512, where oneDNN, torch's library for convolutions,
reaches 235. Results differ by rounding.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

CPU = Path("/proc/cpuinfo")
OPERATION = "_linear_pointwise"


def use_onednn(network: nn.Module) -> None:
    """Let oneDNN compute the network's float32 linear layers, in place, if MKL is slow on this CPU.

    For inference: inputs that require gradients are left to torch.
    """
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, OPERATION) and is_slow_for_mkl()):
        return
    for part in network.modules():
        # Other classes may do more in their forward passes.
        if type(part) is nn.Linear and part.weight.dtype == torch.float32 and part.weight.device.type == "cpu":
            part.forward = partial(_linear, part)  # type: ignore[method-assign]


def is_slow_for_mkl() -> bool:
    """Whether this CPU is one of Linux and not Intel's."""
    try:
        return "GenuineIntel" not in CPU.read_text(encoding="utf-8")
    except OSError:
        return False


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer's output [...,O] for x [...,I]."""
    if x.requires_grad or x.dtype != torch.float32:
        return functional.linear(x, layer.weight, layer.bias)
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "none", [], "")
    return result
