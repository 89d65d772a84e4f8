"""Mosaics of six views: their order, and the way there and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from z1g.geometry import mosaic


def test_views_stand_in_reading_order() -> None:
    views = torch.arange(6.0)[None, :, None, None, None].expand(1, 6, 1, 2, 3)
    sheet = mosaic.tile(views)
    assert sheet.shape == (1, 1, 6, 6)
    assert sheet[0, 0, ::2, ::3].tolist() == [[0, 1], [2, 3], [4, 5]]


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_untile_inverts_tile(b: int, c: int, h: int, w: int, seed: int) -> None:
    views = torch.randn(b, 6, c, h, w, generator=torch.Generator().manual_seed(seed))
    sheet = mosaic.tile(views)
    assert sheet.shape == (b, c, 3 * h, 2 * w)
    torch.testing.assert_close(mosaic.untile(sheet), views)
    torch.testing.assert_close(sheet[:, :, h : 2 * h, w:], views[:, 3])


def test_a_sheet_holds_six() -> None:
    with pytest.raises(ValueError, match="6 views, not 5"):
        mosaic.tile(torch.zeros(1, 5, 3, 2, 2))
