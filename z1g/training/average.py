"""Exponential moving average of trained weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of weights, stored next to the weights."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, finite: Tensor) -> None:
        """Update the average if the scalar `finite` is 1; with 0 it is unchanged."""
        change = list(torch._foreach_sub([p.detach() for p in self.parameters], self.values))
        torch._foreach_mul_(change, (1 - self.decay) * finite)
        torch._foreach_add_(self.values, change)

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
