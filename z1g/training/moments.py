"""Forms in which Adam's moments are stored between steps: float32, bfloat16, or 8 bits of a block-wise scale.

bfloat16 is rounded stochastically: a moment that moves by less than half of the last bit would otherwise never move.
8-bit moments are those of Dettmers et al., 8-bit Optimizers via Block-wise Quantization, ICLR 2022: each value is the
code of the nearest entry of a table, times the largest magnitude of its block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache

import torch
from torch import Tensor

Stored = dict[str, Tensor]
"""Tensors of a moment by what they hold."""
BLOCK = 256
"""Values that share a scale. Smaller than the paper's 2048, as in its authors' later releases."""
LEAST = torch.finfo(torch.float32).tiny
"""Least divisor of a block."""
DECADES = 7
"""Decades below a block's largest magnitude that have codes of their own."""


class Form(ABC):
    """How the values of a moment, a multiple of `BLOCK`, are stored."""

    @abstractmethod
    def zeros(self, n: int, device: torch.device) -> Stored:
        """Storage of `n` values, all zero."""

    @abstractmethod
    def read(self, stored: Stored) -> Tensor:
        """The values [n] in float32."""

    @abstractmethod
    def write(self, stored: Stored, values: Tensor, draws: torch.Generator) -> Stored:
        """Tensors like `stored` for the values [n], float32. draws: of stochastic rounding, on their device."""


class Float32(Form):
    """Values as they are."""

    def zeros(self, n: int, device: torch.device) -> Stored:
        return {"values": torch.zeros(n, device=device)}

    def read(self, stored: Stored) -> Tensor:
        return stored["values"].clone()

    def write(self, stored: Stored, values: Tensor, draws: torch.Generator) -> Stored:
        return {"values": values}


class BFloat16(Form):
    """The upper half of float32's bits, rounded up as often as the lower half is large."""

    def zeros(self, n: int, device: torch.device) -> Stored:
        return {"values": torch.zeros(n, device=device, dtype=torch.bfloat16)}

    def read(self, stored: Stored) -> Tensor:
        return stored["values"].float()

    def write(self, stored: Stored, values: Tensor, draws: torch.Generator) -> Stored:
        noise = torch.randint(1 << 16, values.shape, generator=draws, dtype=torch.int32, device=values.device)
        # A carry goes on into the exponent, as it should; the lower half is then cut.
        bits = (noise.add_(values.view(torch.int32))).bitwise_and_(-1 << 16)
        return {"values": bits.view(torch.float32).bfloat16()}


class Int8(Form):
    """8 bits of dynamic tree quantization for each value, and a scale of 32 bits for each block.

    signed: whether there are codes of negative values. Without them, only zero has the code of zero, and values and
    shares of the largest that are subnormal, on machines that take these for zero. They do not matter: Adam adds 1e-8
    to the roots that it divides by.
    """

    def __init__(self, *, signed: bool) -> None:
        self.signed = signed

    def zeros(self, n: int, device: torch.device) -> Stored:
        zero = int(table(self.signed, torch.device("cpu")).abs().argmin())
        codes = torch.full((n,), zero, device=device, dtype=torch.uint8)
        return {"codes": codes, "scales": torch.zeros(n // BLOCK, device=device)}

    def read(self, stored: Stored) -> Tensor:
        shares = table(self.signed, stored["codes"].device).index_select(0, stored["codes"].int())
        return shares.view(-1, BLOCK).mul_(stored["scales"][:, None]).view(-1)

    def write(self, stored: Stored, values: Tensor, draws: torch.Generator) -> Stored:
        blocks = values.view(-1, BLOCK)
        scales = blocks.abs().amax(dim=1)
        shares = blocks / scales.clamp(min=LEAST)[:, None]
        codes = torch.bucketize(shares.view(-1), bounds(self.signed, values.device), out_int32=True)
        return {"codes": codes.to(torch.uint8), "scales": scales}


@cache
def table(signed: bool, device: torch.device) -> Tensor:
    """The 256 shares of a block's scale that have codes, ascending, in float32.

    Dynamic tree quantization (Dettmers, 8-Bit Approximations for Parallelism in Deep Learning, ICLR 2016): a decade of
    magnitudes has twice as many shares as the one below, each in the middle of an interval of equal width; 0 and 1 are
    added.
    """
    shares = [torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)]
    for decade in range(DECADES):
        n = 2**decade if signed else 2 ** (decade + 1)
        edges = torch.linspace(0.1, 1.0, n + 1, dtype=torch.float64)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - DECADES + 1)
        shares += [middles, -middles] if signed else [middles]
    return torch.cat(shares).sort().values.float().to(device)


@cache
def bounds(signed: bool, device: torch.device) -> Tensor:
    """The 255 values between neighboring shares, above which the larger one is nearer."""
    shares = table(signed, torch.device("cpu"))
    between = (shares[:-1] + shares[1:]) / 2
    if not signed:
        # A divisor must not become zero by rounding.
        between[0] = 0.0
    return between.to(device)
