"""The 14 channels: their table, splitting and joining, and the order of Gaussians."""

import numpy as np
import pytest
import torch

from z1g.gaussians import channels as splat


def test_channel_table() -> None:
    table = {name: (c.start, c.stop) for name, c in splat.CHANNELS.items()}
    expected = {"position": (0, 3), "opacity": (3, 4), "scale": (4, 7), "rotation": (7, 11), "rgb": (11, 14)}
    assert table == expected
    assert list(table) == list(expected)
    assert (splat.N_CHANNELS, splat.N_GEOMETRY) == (14, 11)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_split_and_join(dim: int) -> None:
    x = torch.arange(14.0**3).reshape(14, 14, 14)
    parts = splat.split(x, dim)
    assert {name: part.shape[dim] for name, part in parts.items()} == {
        "position": 3, "opacity": 1, "scale": 3, "rotation": 4, "rgb": 3,
    }  # fmt: skip
    torch.testing.assert_close(splat.join(parts, dim), x)
    torch.testing.assert_close(splat.join(dict(reversed(parts.items())), dim), x)


def test_gaussians_are_row_major_view_by_view() -> None:
    images = torch.arange(6 * 14 * 9.0).reshape(1, 6, 14, 3, 3)
    gaussians = splat.to_gaussians(images)
    assert gaussians.shape == (1, 54, 14)
    view, row, column = 4, 2, 1
    torch.testing.assert_close(gaussians[0, view * 9 + row * 3 + column], images[0, view, :, row, column])
    torch.testing.assert_close(splat.to_images(gaussians, 3), images)


def test_rgb_activation() -> None:
    x = np.linspace(-6, 6, 25)
    expected = 0.5 * np.tanh(x) + 0.5
    np.testing.assert_allclose(splat.activate_rgb(torch.from_numpy(x)).numpy(), expected, atol=1e-12)
