"""Rotary embedding of tokens by attribute, row and column (Su et al. 2021, in three dimensions)."""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

THETA = 1e4


def axes(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head that are rotated by attribute, row and column, each an even number.

    A fifth and twice two fifths, as in the published method, which has 8, 16 and 16 of 40; the rest is not rotated.
    """
    pairs = head_dim // 2
    attribute = max(1, pairs // 5)
    place = (pairs - attribute) // 2
    return 2 * attribute, 2 * place, 2 * place


@lru_cache(maxsize=32)
def table(attributes: int, side: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [attributes·side², head_dim/2] of the angles of all tokens, in float32.

    Pair i of an axis of d channels is rotated by the position times THETA^(-2i/d). Tokens are in the order of
    attributes, rows and columns. Raises ValueError if a head has less than six channels.
    """
    if head_dim < 6:
        raise ValueError(f"heads of {head_dim} channels are too small for three axes, which need six")
    shape = (attributes, side, side)
    positions = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64) for n in shape]).view(-1, 3)
    angles = [
        position[:, None] * THETA ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        for position, width in zip(positions.unbind(dim=1), axes(head_dim), strict=True)
    ]
    rest = head_dim // 2 - sum(part.shape[1] for part in angles)
    angle = torch.cat([*angles, positions.new_zeros(len(positions), rest)], dim=1)
    return angle.cos().float().to(device), angle.sin().float().to(device)


class Rotary(nn.Module):
    """Rotates queries or keys [R,A·N,H,D] of N tokens of each of A attributes, a square, by attribute, row and column.

    A module without weights, so that it can be fused.
    """

    def __init__(self, attributes: int) -> None:
        super().__init__()
        self.attributes = attributes

    def forward(self, x: Tensor) -> Tensor:
        cos, sin = (angle[:, None].to(x.dtype) for angle in self.angles(x))
        even, odd = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)

    def angles(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [A·N,D/2] for such an x, see `table`."""
        side = math.isqrt(x.shape[1] // self.attributes)
        return table(self.attributes, side, x.shape[-1], x.device)
