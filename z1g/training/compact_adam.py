"""AdamW whose moments take 2 or 4 bytes a weight instead of 8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.core.lazy import LazyModule
from z1g.core.seeding import numpy_generator
from z1g.networks.fused import available
from z1g.training.moments import BLOCK, LEAST, BFloat16, Float32, Form, Int8, Stored, bounds, table

# Triton is installed with GPU builds of torch.
kernels: Any = LazyModule("z1g.training.kernels")

ROWS, WARPS = 16, 8
"""Blocks of a program of the kernel, and its warps."""
SMALL = 4096
"""Tensors of fewer weights (biases, norms) have moments in float32, as in 8-bit optimizers from their paper on."""
AT_ONCE = 2**22
"""Values that are updated at once: few kernels for small tensors, little temporary memory for large ones."""
EPSILON = 1e-8
FIRST, SECOND = "first_", "root_"
"""Prefixes of the tensors of the first moment, and of the root of the second one, which has half as many decades."""


@dataclass
class _Bucket:
    """Moments of several parameters side by side, each from a block of its own on."""

    parameters: list[nn.Parameter]
    sizes: list[int]
    """Values of each parameter, with what completes its last block."""
    forms: dict[str, Form]
    stored: Stored
    steps: Tensor
    """Steps of each parameter, float32."""
    blocks: Tensor
    """Blocks of each parameter, on the device."""

    def place(self, first: int, last: int) -> slice:
        """Where the values of the parameters from `first` to before `last` are."""
        start = sum(self.sizes[:first])
        return slice(start, start + sum(self.sizes[first:last]))

    def part(self, prefix: str, place: slice) -> Stored:
        """Views of the tensors of a moment at some values. A block has one scale."""
        return {
            name.removeprefix(prefix): value[_of_blocks(place) if name.endswith("scales") else place]
            for name, value in self.stored.items()
            if name.startswith(prefix)
        }


class CompactAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter, ICLR 2019) with moments in bfloat16 or 8 bits.

    A step reads the moments, updates them and the weights in float32, and rounds the moments to store them. As torch's
    fused kernels do, it leaves everything as it was if `found_inf` is 1. Rounding is drawn from (seed, number of the
    step), so that ranks agree and a resumed run draws what one that was never stopped would.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], weight_decay: float,
        state: Literal["bfloat16", "int8"], seed: int,
    ) -> None:  # fmt: skip
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "calls": 0})
        self.form, self.seed = state, seed
        self.found_inf: Tensor | None = None
        self._buckets: list[list[_Bucket]] | None = None

    @property
    def scratch(self) -> int:
        """Bytes that a step needs besides the state: gradients side by side, and about ten values of each at once."""
        largest: int = max(p.numel() for group in self.param_groups for p in group["params"])
        return 4 * (2 * max(largest, AT_ONCE) + 10 * AT_ONCE)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update weights and moments by the gradients; parameters without a gradient are left out."""
        del closure
        for number, (group, buckets) in enumerate(zip(self.param_groups, self._all_buckets(), strict=True)):
            draws = torch.Generator(buckets[0].steps.device)
            draws.manual_seed(int(numpy_generator(self.seed, group["calls"], number).integers(2**63)))
            for bucket in buckets:
                for first, last in _runs(bucket.parameters):
                    self._update(group, bucket, first, last, draws)
            group["calls"] += 1

    def _update(
        self, group: dict[str, Any], bucket: _Bucket, first: int, last: int, draws: torch.Generator
    ) -> None:  # fmt: skip
        """Update parameters of a bucket from `first` to before `last`, which all have gradients."""
        parameters: list[Tensor] = list(bucket.parameters[first:last])
        sizes = bucket.sizes[first:last]
        steps = bucket.steps[first:last]
        finite = torch.ones_like(steps[0]) if self.found_inf is None else 1 - self.found_inf.to(steps).reshape(())
        steps += finite
        change, place = _flat(parameters, sizes), bucket.place(first, last)
        corrections = [
            (1 - beta**steps).repeat_interleave(bucket.blocks[first:last], output_size=len(change) // BLOCK)
            for beta in group["betas"]
        ]
        if isinstance(bucket.forms[FIRST], Int8) and available(change.device):
            _fused(group["betas"], bucket, place, change, corrections, finite)
        else:
            for part in _parts(len(change)):
                at = slice(place.start + part.start, place.start + part.stop)
                bias = [correction[_of_blocks(part)] for correction in corrections]
                change[part] = self._direction(group["betas"], bucket, at, change[part], bias, finite, draws)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"] * finite)
        pieces = zip(parameters, change.split(sizes), strict=True)
        moves = [piece[: p.numel()].view(p.shape) for p, piece in pieces]
        torch._foreach_add_(parameters, moves, alpha=-group["lr"])

    @staticmethod
    def _direction(
        betas: tuple[float, float], bucket: _Bucket, place: slice, gradient: Tensor, corrections: Sequence[Tensor],
        finite: Tensor, draws: torch.Generator,
    ) -> Tensor:  # fmt: skip
        """Update the moments at some values by their gradient, and return Adam's direction, 0 if it is not finite."""
        old = {prefix: bucket.part(prefix, place) for prefix in (FIRST, SECOND)}
        first, root = (bucket.forms[prefix].read(old[prefix]) for prefix in (FIRST, SECOND))
        first.lerp_(gradient, 1 - betas[0])
        root.square_().mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1]).sqrt_()
        usable = finite > 0
        for prefix, values in ((FIRST, first), (SECOND, root)):
            new = bucket.forms[prefix].write(old[prefix], values, draws)
            for name, tensor in old[prefix].items():
                tensor.copy_(torch.where(usable, new[name], tensor))
        first, root = first.view(-1, BLOCK), root.view(-1, BLOCK)
        direction = first.div_(root.div_(corrections[1].sqrt()[:, None]).add_(EPSILON)).div_(corrections[0][:, None])
        return torch.where(usable, direction, 0.0).view(-1)

    def _all_buckets(self) -> list[list[_Bucket]]:
        """Buckets of each group, with their moments, made when they are first needed."""
        if self._buckets is None:
            self._buckets = [
                [self._bucket(form, some) for form, some in _bucketed(group["params"], self.form)]
                for group in self.param_groups
            ]
        return self._buckets

    def _bucket(self, form: str, parameters: list[nn.Parameter]) -> _Bucket:
        sizes, device = [_whole(p.numel()) for p in parameters], parameters[0].device
        forms: dict[str, Form] = {
            "float32": {FIRST: Float32(), SECOND: Float32()},
            "bfloat16": {FIRST: BFloat16(), SECOND: BFloat16()},
            "int8": {FIRST: Int8(signed=True), SECOND: Int8(signed=False)},
        }[form]  # type: ignore[assignment]
        stored = {
            prefix + name: value for prefix in forms for name, value in forms[prefix].zeros(sum(sizes), device).items()
        }
        steps, blocks = torch.zeros(len(sizes), device=device), torch.tensor(sizes, device=device) // BLOCK
        bucket = _Bucket(parameters, sizes, forms, stored, steps, blocks)
        for i, parameter in enumerate(parameters):
            views = {prefix + n: v for prefix in forms for n, v in bucket.part(prefix, bucket.place(i, i + 1)).items()}
            self.state[parameter] = {"step": steps[i], **views}
        return bucket

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, on any device. Raises UserError if its moments have another form."""
        super().load_state_dict({**state_dict, "state": {}})
        self.state.clear()
        self._buckets = None
        if not state_dict["state"]:
            return
        self._all_buckets()
        parameters = [p for group in self.param_groups for p in group["params"]]
        for i, loaded in state_dict["state"].items():
            own = self.state[parameters[i]]
            if {n: (v.shape, v.dtype) for n, v in own.items()} != {n: (v.shape, v.dtype) for n, v in loaded.items()}:
                raise UserError(
                    f"the checkpoint's moments of Adam are not of train.optimizer.state {self.form}; train with the "
                    "state that wrote it, or delete the checkpoints to train from scratch"
                )
            for name, value in own.items():
                value.copy_(loaded[name])


def _fused(
    betas: tuple[float, float], bucket: _Bucket, place: slice, change: Tensor, corrections: Sequence[Tensor],
    finite: Tensor,
) -> None:  # fmt: skip
    """Like `CompactAdamW._direction` for 8-bit moments, with one kernel and in place of the gradient."""
    moments = [bucket.part(prefix, place)[name] for prefix in (FIRST, SECOND) for name in ("codes", "scales")]
    tables = [make(signed, change.device) for signed in (True, False) for make in (table, bounds)]
    blocks = len(change) // BLOCK
    kernels.update[(-(-blocks // ROWS),)](
        change, *moments, *tables, *corrections, finite, blocks, 1 - betas[0], betas[1], 1 - betas[1], EPSILON,
        LEAST=LEAST, ROWS=ROWS, BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip


def _bucketed(parameters: list[nn.Parameter], form: str) -> Iterator[tuple[str, list[nn.Parameter]]]:
    """Parameters in their order, in lists of one form, one device and at most `AT_ONCE` values or one parameter."""
    for name in ("float32", form):
        bucket: list[nn.Parameter] = []
        for parameter in parameters:
            if (parameter.numel() < SMALL) != (name == "float32"):
                continue
            if bucket and sum(_whole(p.numel()) for p in bucket) + _whole(parameter.numel()) > AT_ONCE:
                yield name, bucket
                bucket = []
            bucket.append(parameter)
        if bucket:
            yield name, bucket


def _runs(parameters: list[nn.Parameter]) -> Iterator[tuple[int, int]]:
    """First and next-to-last positions of neighbors that have gradients."""
    first = None
    for i, parameter in enumerate([*parameters, None]):
        has = parameter is not None and parameter.grad is not None
        if has and first is None:
            first = i
        elif not has and first is not None:
            yield first, i
            first = None


def _parts(n: int) -> Iterator[slice]:
    for first in range(0, n, AT_ONCE):
        yield slice(first, min(first + AT_ONCE, n))


def _flat(parameters: Sequence[Tensor], sizes: list[int]) -> Tensor:
    """Gradients in float32, one after the other, each filled up with zeros to its size."""
    pieces: list[Tensor] = []
    for parameter, size in zip(parameters, sizes, strict=True):
        assert parameter.grad is not None
        pieces.append(parameter.grad.reshape(-1).float())
        if size > parameter.numel():
            pieces.append(pieces[-1].new_zeros(size - parameter.numel()))
    return torch.cat(pieces)


def _whole(n: int) -> int:
    """The next multiple of `BLOCK`."""
    return -(-n // BLOCK) * BLOCK


def _of_blocks(place: slice) -> slice:
    return slice(place.start // BLOCK, place.stop // BLOCK)
