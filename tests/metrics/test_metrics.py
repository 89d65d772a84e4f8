"""Metrics against published implementations, closed forms and general properties."""

import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from support.vgg import vgg16_features
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.slots import kinds
from z1g.losses import Comparison
from z1g.losses.lpips import LpipsLoss
from z1g.metrics import ImagePair, Metric
from z1g.metrics.alpha_iou import AlphaIou
from z1g.metrics.lpips import Lpips, StLpips
from z1g.metrics.psnr import Psnr
from z1g.metrics.ssim import Ssim
from z1g.networks import perceptual


def smooth(v: int, side: int, seed: int) -> Tensor:
    small = torch.rand(v, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, (side, side), mode="bicubic").clamp(0, 1)


def images(rgb: Tensor, truth: Tensor, alpha: Tensor | None = None, alpha_true: Tensor | None = None) -> ImagePair:
    ones = torch.ones_like(rgb[:, :1])
    return ImagePair(rgb, truth, ones if alpha is None else alpha, ones if alpha_true is None else alpha_true)


@pytest.mark.parametrize("offset", [1.0, 0.1, 1e-3, 1e-6, 0.0])
def test_psnr_of_an_offset_is_its_decibels_up_to_the_cap(offset: float) -> None:
    flat = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    expected = min(100.0, -20 * np.log10(max(offset, 1e-12)))
    assert Psnr().compute(images(flat + offset, flat)).tolist() == pytest.approx([expected] * 2, abs=1e-4)


def test_psnr_equals_scikit_image() -> None:
    a, b = smooth(3, 24, 0), smooth(3, 24, 1)
    actual = Psnr().compute(images(a, b)).tolist()
    expected = [peak_signal_noise_ratio(y.numpy(), x.numpy(), data_range=1) for x, y in zip(a, b, strict=True)]
    assert actual == pytest.approx(expected, abs=1e-4)


def test_ssim_equals_scikit_image_inside_the_window() -> None:
    a, b = smooth(2, 32, 0), (smooth(2, 32, 0) + 0.1 * smooth(2, 32, 1)).clamp(0, 1)
    actual = Ssim().compute(images(a, b)).tolist()
    for value, x, y in zip(actual, a, b, strict=True):
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        # scikit-image's mean leaves out the border of half a window, where its full map uses mirrored pixels.
        mean, full = structural_similarity(x.double().numpy(), y.double().numpy(), channel_axis=0, full=True, **options)
        assert value == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-5)
        assert value == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize(("a", "b"), [(0.2, 0.7), (0.0, 1.0), (0.5, 0.5)])
def test_ssim_of_flat_images_is_its_luminance_term(a: float, b: float) -> None:
    flat = torch.ones(1, 3, 11, 16)
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert Ssim().compute(images(a * flat, b * flat)).item() == pytest.approx(expected, abs=1e-6)


def test_ssim_refuses_images_below_its_window() -> None:
    a = smooth(1, 10, 0)
    with pytest.raises(UserError, match="11 pixels"):
        Ssim().compute(images(a, a))


def test_alpha_iou_counts_pixels() -> None:
    first, second = torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4)
    first[0, 0, :2], second[0, 0, 1:3] = 1, 1
    first[1, 0, 0, 0] = 0.6
    rgb = torch.zeros(3, 3, 4, 4)
    actual = AlphaIou().compute(images(rgb, rgb, first, second)).tolist()
    assert actual == pytest.approx([4 / 12, 0, 1])
    assert AlphaIou(threshold=0.7).compute(images(rgb, rgb, first, second)).tolist()[1] == 1


@given(seed=st.integers(0, 1000), threshold=st.floats(0.05, 0.95))
@settings(max_examples=15, deadline=None)
def test_alpha_iou_is_symmetric_bounded_and_1_for_itself(seed: int, threshold: float) -> None:
    first, second = smooth(2, 8, seed)[:, :1], smooth(2, 8, seed + 1)[:, :1]
    rgb = torch.zeros(2, 3, 8, 8)
    metric = AlphaIou(threshold=threshold)
    forth, back = (metric.compute(images(rgb, rgb, x, y)) for x, y in ((first, second), (second, first)))
    assert torch.equal(forth, back)
    assert ((forth >= 0) & (forth <= 1)).all()
    assert metric.compute(images(rgb, rgb, first, first)).tolist() == [1, 1]


@given(seed=st.integers(0, 1000), noise=st.floats(0.01, 0.2))
@settings(max_examples=15, deadline=None)
def test_more_noise_is_worse_and_none_is_best(seed: int, noise: float) -> None:
    truth = smooth(1, 24, seed)
    grain = torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed))
    for metric in (Psnr(), Ssim()):
        values = [
            metric.compute(images(truth + factor * noise * grain, truth)).item() for factor in (0.0, 0.5, 1.0, 2.0)
        ]
        assert values == sorted(values, reverse=True)
    assert Psnr().compute(images(truth, truth)).item() == 100
    assert Ssim().compute(images(truth, truth)).item() == pytest.approx(1)


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_ssim_is_symmetric_and_bounded(seed: int) -> None:
    a, b = smooth(1, 16, seed), smooth(1, 16, seed + 1)
    forth, back = Ssim().compute(images(a, b)).item(), Ssim().compute(images(b, a)).item()
    assert forth == pytest.approx(back, abs=1e-6)
    assert -1 <= forth <= 1


def test_st_lpips_is_zero_for_equal_images_and_grows_with_blur() -> None:
    truth = smooth(2, 48, 3)
    truth[:, :, ::4] = 0
    blurred = [torch.nn.functional.avg_pool2d(truth, k, 1, k // 2) for k in (3, 9)]
    values = [StLpips().compute(images(x, truth)).mean().item() for x in (truth, *blurred)]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[0] < values[1] < values[2]


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_st_lpips_is_symmetric_and_not_negative(seed: int) -> None:
    a, b = smooth(1, 64, seed), smooth(1, 64, seed + 1)
    forth, back = StLpips().compute(images(a, b)).item(), StLpips().compute(images(b, a)).item()
    assert forth == pytest.approx(back, rel=1e-4)
    assert forth > 0


@pytest.mark.parametrize(("shape", "seen"), [((16, 16), (64, 64)), ((32, 48), (64, 96)), ((64, 80), (64, 80))])
def test_st_lpips_enlarges_small_images_in_proportion(shape: tuple[int, int], seen: tuple[int, int]) -> None:
    a, b = smooth(2, 96, 0)[..., : shape[0], : shape[1]], smooth(2, 96, 1)[..., : shape[0], : shape[1]]
    x, y = (torch.nn.functional.interpolate(p, seen, mode="bilinear", antialias=True) for p in (a, b))
    expected = perceptual.st_lpips("alex").network(x, y, normalize=True).flatten()
    assert StLpips().compute(images(a, b)).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_lpips_without_weights_says_so() -> None:
    a = smooth(1, 64, 0)
    with pytest.raises(UserError, match="trunk"):
        Lpips().compute(images(a, a))


@pytest.mark.slow
def test_lpips_is_the_papers_distance_on_the_trunk_of_the_file(trunk: Path) -> None:
    import lpips as package

    a, b = smooth(2, 64, 0), smooth(2, 64, 1)
    features = vgg16_features()
    stored = torch.load(trunk, weights_only=True)
    features.load_state_dict({name.removeprefix("features."): value for name, value in stored.items()})
    file = Path(package.__file__).parent / "weights/v0.1/vgg.pth"
    heads = torch.load(file, map_location="cpu", weights_only=True)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, y = ((p - mean[:, None, None]) / deviation[:, None, None] for p in (a, b))
    expected, head = torch.zeros(2), 0
    with torch.no_grad():
        for i, layer in enumerate(features[:30]):
            x, y = layer(x), layer(y)
            if i in (3, 8, 15, 22, 29):
                difference = torch.nn.functional.normalize(x, dim=1) - torch.nn.functional.normalize(y, dim=1)
                expected += (difference.square() * heads[f"lin{head}.model.1.weight"]).sum(dim=1).mean(dim=(1, 2))
                head += 1
    metric, loss = Lpips(trunk=str(trunk)), LpipsLoss(trunk=str(trunk), resolution=64)
    assert metric.compute(images(a, b)).tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert metric.compute(images(a, a)).tolist() == pytest.approx([0, 0], abs=1e-7)
    assert loss.compute(Comparison(rgb=a[None], rgb_true=b[None])).item() == pytest.approx(
        expected.mean().item(), rel=1e-4
    )


@pytest.mark.slow
def test_loading_networks_prints_nothing_and_draws_nothing(trunk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        perceptual.st_lpips.__wrapped__("alex")
        perceptual.lpips.__wrapped__(str(trunk))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert capsys.readouterr() == ("", "")


class Payload:
    """A pickle that would create a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.slow
def test_lpips_refuses_foreign_files_with_one_line_and_runs_none(tmp_path: Path) -> None:
    file, created = tmp_path / "foreign.pth", tmp_path / "created"
    for content in ({"features.0.weight": torch.zeros(1)}, {"features.0.weight": "text"}, {1: 2}, [1, 2]):
        torch.save(content, file)
        assert_refused(file)
    for raw in (b"", b"hello", b"PK\x03\x04", pickle.dumps(Payload(created), protocol=2)):
        file.write_bytes(raw)
        assert_refused(file)
    torch.save(Payload(created), file)
    assert_refused(file)
    assert not created.exists()


def assert_refused(file: Path) -> None:
    with pytest.raises(UserError, match="is not torchvision's VGG16") as caught:
        perceptual.lpips(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metric", [cls() for cls in kinds(Metric).values()], ids=lambda m: m.kind)
def test_every_metric_says_what_it_is(metric: Metric) -> None:
    assert metric.label
    assert metric.reference
    assert isinstance(metric.higher_is_better, bool)
    assert isinstance(metric.unit, str)


def test_metrics_return_one_value_per_view() -> None:
    a, b = smooth(4, 16, 0), smooth(4, 16, 1)
    for metric in (Psnr(), Ssim(), AlphaIou(), StLpips()):
        values = metric.compute(images(a, b))
        assert values.shape == (4,)
        assert np.isfinite(values.numpy()).all()
