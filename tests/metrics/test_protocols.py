"""Protocols: images, views and means behind a figure, against numpy, and columns that never mix two of them."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio

from z1g.core.errors import UserError
from z1g.metrics import AlphaIou, FdEffLite0, ImagePair, Psnr
from z1g.metrics.protocols import KINDS, Custom, Lgm, Own, Protocol, Zero1ToG
from z1g.stages.measuring import Measure


def pair(views: int = 4, side: int = 16, seed: int = 0) -> ImagePair:
    """Random images on white."""
    draw = np.random.default_rng(seed)
    alpha, alpha_true = (draw.uniform(0, 1, (views, 1, side, side)) for _ in range(2))
    rgb, rgb_true = (draw.uniform(0, 1, (views, 3, side, side)) for _ in range(2))
    white = [color * a + 1 - a for color, a in ((rgb, alpha), (rgb_true, alpha_true))]
    return ImagePair(*(torch.from_numpy(x).float() for x in (*white, alpha, alpha_true)))


def psnr(error: np.ndarray) -> float:
    return float(-10 * np.log10(error.mean()))


@given(seed=st.integers(0, 1000), n=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_psnr_of_all_views_at_once_is_never_above_the_mean_over_views(seed: int, n: int) -> None:
    images = pair(n, 8, seed)
    error = (images.rgb.double() - images.rgb_true.double()).square().numpy()
    measure = Measure({"psnr": Psnr()}, Lgm(resolution=None))
    (at_once,) = measure.pooled(images).values()
    assert at_once is not None
    expected = peak_signal_noise_ratio(images.rgb_true.double().numpy(), images.rgb.double().numpy(), data_range=1.0)
    assert at_once == pytest.approx(expected, abs=1e-6)
    assert at_once <= np.mean([psnr(view) for view in error]) + 1e-6
    assert measure.views(images) == {}


@pytest.mark.parametrize(("background", "value"), [("white", 1.0), ("gray", 0.5), ("black", 0.0)])
def test_backgrounds(background: str, value: float) -> None:
    images = pair()
    seen = Custom.model_validate({"background": background}).prepared(images)
    for rgb, alpha, found in (
        (images.rgb, images.alpha, seen.rgb),
        (images.rgb_true, images.alpha_true, seen.rgb_true),
    ):
        color = rgb.double() - (1 - alpha.double())
        np.testing.assert_allclose(found.numpy(), (color + (1 - alpha.double()) * value).numpy(), atol=1e-6)


def test_images_are_made_smaller_before_they_are_compared() -> None:
    images = pair(side=32)
    seen = Custom(resolution=16).prepared(images)
    assert seen.rgb.shape == (4, 3, 16, 16)
    assert float(seen.rgb.mean()) == pytest.approx(float(images.rgb.mean()), abs=0.01)
    noise = [float((x.rgb - x.rgb_true).square().mean()) for x in (images, seen)]
    assert noise[1] < 0.6 * noise[0], "noise is averaged, which raises PSNR"


def test_views_are_the_first_ones_and_too_few_are_an_error() -> None:
    images = pair(4)
    measure = Measure({"psnr": Psnr()}, Custom(views=2))
    (values,) = measure.views(images).values()
    expected = [psnr((images.rgb[i].double() - images.rgb_true[i].double()).square().numpy()) for i in range(2)]
    assert values == pytest.approx(expected, abs=1e-4)
    assert measure.chosen([7, 8, 9]) == [7, 8]
    with pytest.raises(UserError, match=r"protocol custom\.5views needs 5 test views; there are 4; increase camera"):
        Measure({"psnr": Psnr()}, Custom(views=5)).views(images)


def test_our_protocol_changes_nothing() -> None:
    images = pair()
    plain, own = Measure({"psnr": Psnr()}), Measure({"psnr": Psnr()}, Own())
    assert plain.views(images) == own.views(images)
    assert own.pooled(images) == {}
    assert own.description() == plain.description()
    assert "protocol" not in own.description()


def protocols() -> list[Protocol]:
    """Many different ones."""
    choices = itertools.product((None, 3), (None, 64), ("white", "black"), ("views", "object"))
    custom = [
        Custom.model_validate({"views": v, "resolution": r, "background": b, "pooling": p}) for v, r, b, p in choices
    ]
    return [Own(), *custom, Lgm(), Lgm(resolution=256), Lgm(resolution=None), Zero1ToG(), Zero1ToG(views=10)]


def test_different_protocols_have_different_columns() -> None:
    columns = [protocol.column("psnr") for protocol in protocols()]
    assert len(set(columns)) == len(columns)
    assert columns[0] == "psnr"
    assert Zero1ToG(views=10).label("PSNR") == "PSNR (zero_1_to_g.10views.pooled)"


def test_pooled_metrics_are_described_as_those_of_objects() -> None:
    metrics = {"psnr": Psnr(), "alpha_iou": AlphaIou(), "fd": FdEffLite0()}
    about = Measure(metrics, Zero1ToG()).description()
    scopes = {name: info["scope"] for name, info in about["metrics"].items()}
    key = "@zero_1_to_g.21views.pooled"
    assert scopes == {f"psnr{key}": "object", f"alpha_iou{key}": "object", f"fd{key}": "set"}
    assert about["protocol"]["facts"]["cameras"] == "unknown"


def test_a_mean_of_pixels_is_the_same_pooled() -> None:
    images = pair()
    measure = Measure({"alpha_iou": AlphaIou()}, Custom(pooling="object"))
    (value,) = measure.pooled(images).values()
    assert value == pytest.approx(float(AlphaIou().compute(images).mean()))


@pytest.mark.parametrize("kind", KINDS)
def test_every_protocol_says_what_is_known_of_each_of_its_parts(kind: type[Protocol]) -> None:
    parts = {"views", "cameras", "resolution", "background", "normalization", "metrics", "objects"}
    assert kind.facts.keys() == parts
    assert all(kind.facts.values())


def test_identical_images_stay_at_the_cap() -> None:
    images = pair()
    same = ImagePair(images.rgb_true, images.rgb_true, images.alpha_true, images.alpha_true)
    assert Psnr().pooled(same) == 100.0
    assert math.isfinite(Psnr().pooled(images))
