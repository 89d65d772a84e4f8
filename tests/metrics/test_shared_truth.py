"""What metrics compute of the ground truth is computed once for all pairs of an object."""

from typing import Any

import pytest
import torch
from torch import Tensor

from z1g.metrics.base import ImagePair, ViewMetric
from z1g.metrics.lpips import StLpips
from z1g.metrics.protocols.lgm import Lgm
from z1g.metrics.ssim import Ssim
from z1g.networks.perceptual import st_lpips

pytestmark = pytest.mark.slow


def images(seed: int, n: int = 2, side: int = 70) -> Tensor:
    """Smooth random images [n,3,side,side] in 0..1."""
    coarse = torch.rand(n, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


def pair(seed: int, truth: Tensor, shared: dict[Any, Any] | None = None) -> ImagePair:
    ones = torch.ones(len(truth), 1, *truth.shape[-2:])
    return ImagePair(images(seed), truth, ones, ones, shared={} if shared is None else shared)


def test_distances_are_those_of_the_package() -> None:
    network, truth = st_lpips("alex"), images(0)
    for seed in (1, 2):
        own = network.between(network.features(images(seed)), network.features(truth))
        theirs = network.network(2 * images(seed) - 1, 2 * truth - 1).flatten()
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-7)
    assert own.min() > 0.01


@pytest.mark.parametrize("metric", [StLpips(), Ssim()])
def test_shared_truth_changes_no_value(metric: ViewMetric) -> None:
    truth, shared = images(0), dict[Any, Any]()
    together = [metric.compute(pair(seed, truth, shared)) for seed in (1, 2, 3)]
    alone = [metric.compute(pair(seed, truth)) for seed in (1, 2, 3)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    assert len({value.sum().item() for value in together}) == 3
    assert len(shared) == 1


def test_the_truth_is_seen_once() -> None:
    seen: list[Tensor] = []
    hook = st_lpips("alex").network.scaling_layer.register_forward_hook(lambda *call: seen.append(call[1][0]))
    shared = dict[Any, Any]()
    for seed in (1, 2, 3):
        StLpips().compute(pair(seed, images(0), shared))
    hook.remove()
    assert len(seen) == 4
    assert sum(torch.equal(x, 2 * images(0) - 1) for x in seen) == 1


def test_protocols_share_what_they_prepare() -> None:
    shared = dict[Any, Any]()
    prepared = Lgm().prepared(pair(1, images(0), shared))
    assert prepared.shared is shared
