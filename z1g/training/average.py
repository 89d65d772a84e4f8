"""Exponential moving average of trained weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """An average of weights beside the weights."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, finite: Tensor) -> None:
        """Move the average by one step, where the scalar `finite` is 1; 0 leaves it as it is."""
        change = list(torch._foreach_sub([p.detach() for p in self.parameters], self.values))
        torch._foreach_mul_(change, (1 - self.decay) * finite)
        torch._foreach_add_(self.values, change)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and average."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            kept = parameter.clone()
            parameter.copy_(value)
            value.copy_(kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The average in the place of the weights while the block runs."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
