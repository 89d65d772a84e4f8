"""Exponential moving average of trained weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

AT_ONCE = 2**24
"""Weights whose averages are updated by one kernel."""


class Average:
    """Exponential moving average of weights, stored next to the weights."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, finite: Tensor) -> None:
        """Update the average if the scalar `finite` is 1; with 0 it is unchanged."""
        for parameters, values in self._parts():
            change = list(torch._foreach_sub(parameters, values))
            torch._foreach_mul_(change, (1 - self.decay) * finite)
            torch._foreach_add_(values, change)

    def _parts(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Weights and averages, some at a time, so that their differences are not all in memory."""
        parameters: list[Tensor] = []
        values: list[Tensor] = []
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameters.append(parameter.detach())
            values.append(value)
            if sum(v.numel() for v in values) >= AT_ONCE:
                yield parameters, values
                parameters, values = [], []
        if values:
            yield parameters, values

    @torch.no_grad()
    def swap(self) -> None:
        """Swap weights and average."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            kept = parameter.clone()
            parameter.copy_(value)
            value.copy_(kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the weights with the average while the block runs."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
