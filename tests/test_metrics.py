"""Metrics against published implementations, closed forms and their own properties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from z1g.config.slot import kinds
from z1g.errors import UserError
from z1g.metrics import Metric, Pictures
from z1g.metrics.alpha_iou import AlphaIou
from z1g.metrics.perceptual import Lpips, StLpips
from z1g.metrics.psnr import Psnr
from z1g.metrics.ssim import Ssim


def smooth(v: int, side: int, seed: int) -> Tensor:
    small = torch.rand(v, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, (side, side), mode="bicubic").clamp(0, 1)


def pictures(rgb: Tensor, truth: Tensor, alpha: Tensor | None = None, alpha_true: Tensor | None = None) -> Pictures:
    ones = torch.ones_like(rgb[:, :1])
    return Pictures(rgb, truth, ones if alpha is None else alpha, ones if alpha_true is None else alpha_true)


def test_psnr_equals_scikit_image() -> None:
    a, b = smooth(3, 24, 0), smooth(3, 24, 1)
    found = Psnr().compute(pictures(a, b)).tolist()
    expected = [peak_signal_noise_ratio(y.numpy(), x.numpy(), data_range=1) for x, y in zip(a, b, strict=True)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_ssim_equals_scikit_image_inside_the_window() -> None:
    a, b = smooth(2, 32, 0), (smooth(2, 32, 0) + 0.1 * smooth(2, 32, 1)).clamp(0, 1)
    found = Ssim().compute(pictures(a, b)).tolist()
    for value, x, y in zip(found, a, b, strict=True):
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        _, full = structural_similarity(
            x.double().numpy(), y.double().numpy(), channel_axis=0, full=True, **options
        )
        assert value == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-5)


def test_ssim_refuses_pictures_below_its_window() -> None:
    a = smooth(1, 10, 0)
    with pytest.raises(UserError, match="11 pixels"):
        Ssim().compute(pictures(a, a))


def test_alpha_iou_counts_pixels() -> None:
    first, second = torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4)
    first[0, 0, :2], second[0, 0, 1:3] = 1, 1
    first[1, 0, 0, 0] = 0.6
    rgb = torch.zeros(3, 3, 4, 4)
    found = AlphaIou().compute(pictures(rgb, rgb, first, second)).tolist()
    assert found == pytest.approx([4 / 12, 0, 1])
    assert AlphaIou(threshold=0.7).compute(pictures(rgb, rgb, first, second)).tolist()[1] == 1


@given(seed=st.integers(0, 1000), noise=st.floats(0.01, 0.2))
@settings(max_examples=15, deadline=None)
def test_more_noise_is_worse_and_none_is_best(seed: int, noise: float) -> None:
    truth = smooth(1, 24, seed)
    grain = torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed))
    for metric in (Psnr(), Ssim()):
        values = [
            metric.compute(pictures(truth + factor * noise * grain, truth)).item() for factor in (0.0, 0.5, 1.0, 2.0)
        ]
        assert values == sorted(values, reverse=True)
    assert Psnr().compute(pictures(truth, truth)).item() == 100
    assert Ssim().compute(pictures(truth, truth)).item() == pytest.approx(1)


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_ssim_is_symmetric_and_bounded(seed: int) -> None:
    a, b = smooth(1, 16, seed), smooth(1, 16, seed + 1)
    forth, back = Ssim().compute(pictures(a, b)).item(), Ssim().compute(pictures(b, a)).item()
    assert forth == pytest.approx(back, abs=1e-6)
    assert -1 <= forth <= 1


def test_st_lpips_is_zero_for_equal_pictures_and_grows_with_blur() -> None:
    truth = smooth(2, 48, 3)
    truth[:, :, ::4] = 0
    blurred = [torch.nn.functional.avg_pool2d(truth, k, 1, k // 2) for k in (3, 9)]
    values = [StLpips().compute(pictures(x, truth)).mean().item() for x in (truth, *blurred)]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[0] < values[1] < values[2]


def test_lpips_without_weights_says_so() -> None:
    a = smooth(1, 64, 0)
    with pytest.raises(UserError, match="trunk"):
        Lpips().compute(pictures(a, a))


@pytest.mark.parametrize("metric", [cls() for cls in kinds(Metric).values()], ids=lambda m: m.kind)
def test_every_metric_says_what_it_is(metric: Metric) -> None:
    assert metric.label
    assert metric.reference
    assert isinstance(metric.higher_is_better, bool)
    assert isinstance(metric.unit, str)


def test_values_come_one_a_view() -> None:
    a, b = smooth(4, 16, 0), smooth(4, 16, 1)
    for metric in (Psnr(), Ssim(), AlphaIou(), StLpips()):
        values = metric.compute(pictures(a, b))
        assert values.shape == (4,)
        assert np.isfinite(values.numpy()).all()
