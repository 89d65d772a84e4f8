"""Losses of a step, read from the device one step later, so that the device never waits for the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor

FINITE, STOP = "finite", "stop"


@dataclass(frozen=True)
class Outcome:
    """Figures of one step during the copy from the device."""

    step: int
    names: tuple[str, ...]
    values: Tensor
    arrived: torch.cuda.Event | None

    @classmethod
    def sent(cls, step: int, figures: dict[str, Tensor]) -> Outcome:
        """Start copying scalars to the host."""
        values = torch.stack([value.detach().float().reshape(()) for value in figures.values()])
        if values.device.type != "cuda":
            return cls(step, tuple(figures), values.cpu(), None)
        host = torch.empty(len(values), pin_memory=True)
        host.copy_(values, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return cls(step, tuple(figures), host, arrived)

    def read(self) -> dict[str, float]:
        """The figures. Waits until this step is done, but not for later steps."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))


def everywhere(accelerator: Accelerator, flag: Tensor, how: Literal["all", "any"]) -> Tensor:
    """All-reduce a flag, 0 or 1, over the ranks, without synchronizing with the host."""
    if accelerator.num_processes == 1:
        return flag
    total: Tensor = accelerator.reduce(flag, "sum")
    return (total == accelerator.num_processes if how == "all" else total > 0).float()
