"""Mosaics: six images tiled in 3 rows and 2 columns, the layout of Zero123++."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ROWS, COLUMNS = 3, 2


def mosaic_shape(channels: int, side: int) -> tuple[int, int, int]:
    """Channels, height and width of six square images as a mosaic."""
    return channels, ROWS * side, COLUMNS * side


def tile(views: torch.Tensor) -> torch.Tensor:
    """Tile images [B,6,C,H,W] to a mosaic [B,C,3H,2W]; view i is in row i // 2, column i % 2."""
    b, n, c, h, w = views.shape
    if n != ROWS * COLUMNS:
        raise ValueError(f"a mosaic has {ROWS * COLUMNS} views, not {n}")
    grid = views.reshape(b, ROWS, COLUMNS, c, h, w)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(b, c, ROWS * h, COLUMNS * w)


def untile(mosaic: torch.Tensor) -> torch.Tensor:
    """Inverse of `tile`: [B,C,3H,2W] -> [B,6,C,H,W]."""
    b, c, h, w = mosaic.shape
    grid = mosaic.reshape(b, c, ROWS, h // ROWS, COLUMNS, w // COLUMNS)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(b, ROWS * COLUMNS, c, h // ROWS, w // COLUMNS)
