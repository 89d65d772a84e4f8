"""The optimizer of a training run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from z1g.training.compact_adam import CompactAdamW
from z1g.training.objective import Objective
from z1g.training.options import OptimizerOptions


def adamw(objective: Objective, options: OptimizerOptions, seed: int) -> torch.optim.Optimizer:
    """AdamW for the trained parameters of an objective. seed: of stochastic rounding."""
    rest: dict[str, Any] = {"lr": options.lr, "weight_decay": options.weight_decay, "betas": options.betas}
    groups = _groups(objective, options.lr)
    if options.state == "float32":
        return torch.optim.AdamW(groups, **rest, fused=True)
    return CompactAdamW(groups, **rest, state=options.state, seed=seed)


def _groups(objective: Objective, lr: float) -> list[dict[str, Any]]:
    """Trained parameters by their learning rates, the most common factor 1 first, which logs show."""
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(objective.rate_factor(name), []).append(parameter)
    return [{"params": group, "lr": lr * factor} for factor, group in groups.items() if group]
