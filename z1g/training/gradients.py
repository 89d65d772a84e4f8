"""Averages of gradients over the ranks, in buckets of many tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

BUCKET_SIZE = 2**25
"""Values per all-reduce."""


def average(gradients: Sequence[Tensor], world: int, bucket_size: int = BUCKET_SIZE) -> None:
    """Replace gradients, tensors of one type in the same order on every rank, with their means over `world` ranks."""
    for bucket in buckets(gradients, bucket_size):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        torch.distributed.all_reduce(flat)
        flat /= world
        parts = flat.split([gradient.numel() for gradient in bucket])
        torch._foreach_copy_(bucket, [part.view(g.shape) for part, g in zip(parts, bucket, strict=True)])


def buckets(gradients: Sequence[Tensor], size: int = BUCKET_SIZE) -> list[list[Tensor]]:
    """Tensors in groups of at most `size` values, in order; a larger tensor is a group of its own."""
    groups: list[list[Tensor]] = []
    free = 0
    for gradient in gradients:
        if free < gradient.numel() or not groups:
            groups.append([])
            free = size
        groups[-1].append(gradient)
        free -= gradient.numel()
    return groups
