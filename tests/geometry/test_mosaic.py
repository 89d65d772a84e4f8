"""Mosaics of six views: their order and round trips."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from z1g.geometry import mosaic


def test_views_are_in_reading_order() -> None:
    views = torch.arange(6.0)[None, :, None, None, None].expand(1, 6, 1, 2, 3)
    tiled = mosaic.tile(views)
    assert tiled.shape == (1, 1, 6, 6)
    assert tiled[0, 0, ::2, ::3].tolist() == [[0, 1], [2, 3], [4, 5]]


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_untile_inverts_tile(b: int, c: int, h: int, w: int, seed: int) -> None:
    views = torch.randn(b, 6, c, h, w, generator=torch.Generator().manual_seed(seed))
    tiled = mosaic.tile(views)
    assert tiled.shape == (b, c, 3 * h, 2 * w)
    torch.testing.assert_close(mosaic.untile(tiled), views)
    torch.testing.assert_close(tiled[:, :, h : 2 * h, w:], views[:, 3])


def test_a_mosaic_has_six_views() -> None:
    with pytest.raises(ValueError, match="6 views, not 5"):
        mosaic.tile(torch.zeros(1, 5, 3, 2, 2))
