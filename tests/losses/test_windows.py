"""Windows of images that losses compare."""

import pytest
import torch

from z1g.losses import Comparison, StLpipsLoss
from z1g.losses.windows import windows


def numbered(objects: int, views: int, height: int, width: int) -> torch.Tensor:
    """Images of which each pixel's value says where it is: row · 1000 + column, alike in all objects and views."""
    where = torch.arange(height)[:, None] * 1000.0 + torch.arange(width)
    return where.expand(objects, views, 1, height, width).clone()


def corner(window: torch.Tensor) -> tuple[int, int]:
    row, column = divmod(int(window.flatten()[0]), 1000)
    return row, column


@pytest.mark.parametrize(("height", "width", "side"), [(40, 40, 24), (33, 50, 8), (24, 31, 24)])
def test_a_window_is_a_connected_part_of_the_image(height: int, width: int, side: int) -> None:
    images = numbered(3, 2, height, width)
    cut = windows(images, side, torch.tensor([0, 7, 100_003]))
    assert cut.shape == (3, 2, 1, side, side)
    for i in range(3):
        for v in range(2):
            row, column = corner(cut[i, v])
            assert torch.equal(cut[i, v], images[i, v][:, row : row + side, column : column + side])


def test_places_depend_on_epoch_and_view_and_not_on_the_object() -> None:
    images = numbered(4, 2, 64, 64)
    cut = windows(images, 32, torch.tensor([5, 5, 6, 5]))
    assert torch.equal(cut[0], cut[1])
    assert torch.equal(cut[0], cut[3])
    assert len({corner(cut[0, 0]), corner(cut[0, 1]), corner(cut[2, 0]), corner(cut[2, 1])}) == 4


def test_places_are_spread_evenly_and_reach_all_pixels() -> None:
    images = numbered(1, 1, 96, 96)
    starts = torch.tensor([corner(windows(images, 33, torch.tensor([e]))[0, 0]) for e in range(256)])
    assert starts.min() >= 0
    assert starts.max() <= 63
    # 64 places an axis in 4 × 4 fields: 16 of 256 each. Independent draws would have fields with less than 8.
    fields = torch.bincount(starts[:, 0] // 16 * 4 + starts[:, 1] // 16, minlength=16)
    assert fields.min() >= 13
    assert fields.max() <= 19
    # So late that a float32 would have lost what is behind the point.
    late = torch.tensor([corner(windows(images, 33, torch.tensor([10**7 + e]))[0, 0]) for e in range(64)])
    assert len({tuple(x) for x in late.tolist()}) > 50


def test_without_an_epoch_the_window_is_the_center() -> None:
    assert corner(windows(numbered(1, 1, 50, 41), 20, None)[0, 0]) == (15, 10)


def test_small_images_stay_whole() -> None:
    images = numbered(2, 1, 32, 20)
    assert torch.equal(windows(images, 32, torch.tensor([1, 2])), images)
    assert windows(images, 24, torch.tensor([1, 2])).shape == (2, 1, 1, 24, 20)


def test_gradients_reach_the_window_alone() -> None:
    images = numbered(1, 1, 30, 30).requires_grad_(True)
    cut = windows(images, 12, torch.tensor([3]))
    row, column = corner(cut[0, 0].detach())
    cut.sum().backward()
    expected = torch.zeros(30, 30)
    expected[row : row + 12, column : column + 12] = 1
    assert images.grad is not None
    assert torch.equal(images.grad[0, 0, 0], expected)


@pytest.mark.slow
def test_a_cropped_perceptual_loss_compares_the_same_window_of_both() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1, 2, 3, 96, 96, generator=generator) for _ in range(2))
    epoch = torch.tensor([4])
    row, column = corner(windows(numbered(1, 1, 96, 96), 64, epoch)[0, 0])
    part = (slice(None), slice(0, 1), slice(None), slice(row, row + 64), slice(column, column + 64))
    by_hand = StLpipsLoss(resolution=64).compute(Comparison(rgb=a[part], rgb_true=b[part])).item()
    cropped = StLpipsLoss(resolution=64, views=1, crop=True)
    assert cropped.compute(Comparison(rgb=a, rgb_true=b, epoch=epoch)).item() == pytest.approx(by_hand, rel=1e-5)
    assert cropped.compute(Comparison(rgb=a, rgb_true=b, epoch=epoch + 1)).item() != pytest.approx(by_hand, rel=1e-4)
