"""Objects that are rendered in one call are rendered as if alone; gsplat's calls, seen by a stand-in for gsplat."""

import json
from dataclasses import replace

import pytest
import torch
from support.renders import cameras, gaussians
from support.stand_in_gsplat import StandIn
from torch import Tensor

from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.gaussians.channels import CHANNELS
from z1g.geometry.camera import Cameras
from z1g.render import Rasterizer, RenderOutput
from z1g.render._gsplat import draw
from z1g.render.cpu import Cpu
from z1g.render.diff_gaussian import DiffGaussian
from z1g.render.gsplat import Gsplat
from z1g.render.reference import Reference

NEAR = 1.2
"""Hides a part of every scene."""


def on_backgrounds(output: RenderOutput, background: Tensor) -> Tensor:
    """Color on each object's background [B,3], alpha and depth [B,V,5,H,W]."""
    return torch.cat([output.over(background[:, None, :, None, None]), output.alpha, output.depth], dim=2)


def batched_and_looped(backend: Rasterizer, g: Tensor, c: Cameras) -> list[tuple[Tensor, Tensor]]:
    """Images and gradients of all objects, rendered in one call and in one call each."""
    draws = torch.Generator().manual_seed(7)
    background = torch.rand(len(g), 3, generator=draws, dtype=torch.float64).to(g)
    shape = (*c.c2w.shape[:2], 5, c.height, c.width)
    weight = torch.rand(shape, generator=draws, dtype=torch.float64).to(g)
    results = []
    for rows in ([slice(0, len(g))], [slice(i, i + 1) for i in range(len(g))]):
        leaf = g.clone().requires_grad_(True)
        parts = [on_backgrounds(backend.render(leaf[row], replace(c, c2w=c.c2w[row])), background[row]) for row in rows]
        images = torch.cat(parts)
        (images * weight).sum().backward()
        assert leaf.grad is not None
        results.append((images.detach(), leaf.grad))
    return results


@pytest.mark.parametrize("kind", ["random", "nan", "behind"])
@pytest.mark.parametrize(("b", "v", "height", "width"), [(3, 2, 19, 41), (2, 1, 16, 16)])
@pytest.mark.parametrize("backend", [Reference(), Cpu()], ids=["reference", "cpu"])
def test_a_batch_is_its_objects(backend: Rasterizer, b: int, v: int, height: int, width: int, kind: str) -> None:
    g = gaussians(kind, b, 70, seed=3)
    g = g.float() if isinstance(backend, Cpu) else g
    (images, slope), (expected, expected_slope) = batched_and_looped(backend, g, cameras(b, v, height, width))
    tolerance = 1e-6 if isinstance(backend, Cpu) else 1e-12
    torch.testing.assert_close(images, expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(slope, expected_slope, atol=tolerance * float(expected_slope.abs().max()), rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["random", "trained", "nan", "behind"])
@pytest.mark.parametrize(("b", "v", "height", "width"), [(5, 3, 64, 64), (2, 2, 19, 41), (3, 1, 96, 128)])
@pytest.mark.parametrize("backend", [Gsplat(), DiffGaussian()], ids=["gsplat", "diff_gaussian"])
def test_a_batch_is_its_objects_on_a_gpu(
    backend: Rasterizer, b: int, v: int, height: int, width: int, kind: str
) -> None:
    g, c = gaussians(kind, b, 2000, seed=3).float().cuda(), cameras(b, v, height, width).to("cuda")
    try:
        (images, slope), (expected, expected_slope) = batched_and_looped(backend, g, c)
    except UserError as error:
        if "needs the package" not in str(error) and "built from source" not in str(error):
            raise
        pytest.skip(str(error))
    # Each pixel sums the same numbers in the same order; gradients are summed by atomic additions in any order.
    torch.testing.assert_close(images, expected, atol=1e-6, rtol=0)
    for name, channel in CHANNELS.items():
        size = float(expected_slope[..., channel].abs().max())
        off = (slope - expected_slope)[..., channel].abs().max()
        assert off <= 1e-4 * size, name
    if kind == "nan":
        assert slope.isfinite().all()
        assert not slope[~g.isfinite().all(dim=2)].any()


@pytest.mark.parametrize("kind", ["random", "nan", "transparent"])
@pytest.mark.parametrize(("b", "v", "height", "width"), [(3, 2, 19, 41), (1, 1, 16, 16)])
def test_one_call_of_gsplat_draws_all_objects(b: int, v: int, height: int, width: int, kind: str) -> None:
    g, c, gsplat = gaussians(kind, b, 60, seed=5), cameras(b, v, height, width), StandIn()
    draws = torch.Generator().manual_seed(1)
    background = torch.rand(b, 3, generator=draws)
    weight = torch.rand(b, v, 5, height, width, generator=draws)
    actual_leaf = g.float().requires_grad_(True)
    single = replace(c, c2w=c.c2w.float())
    actual = on_backgrounds(draw(gsplat, actual_leaf, single, NEAR), background)
    (actual * weight).sum().backward()
    leaf = g.float().double().requires_grad_(True)
    judged = Reference(near=NEAR).render(leaf, replace(c, c2w=single.c2w.double()))
    expected = on_backgrounds(judged, background.double())
    (expected * weight.double()).sum().backward()
    assert gsplat.calls == ["projection", "isect", "offsets", "pixels"]
    assert 0 < float(expected[:, :, 3].detach().mean()) < 1
    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=0)
    assert actual_leaf.grad is not None
    assert leaf.grad is not None
    off = (actual_leaf.grad.double() - leaf.grad).abs().amax(dim=(0, 1)) / leaf.grad.abs().amax(dim=(0, 1))
    assert off.max() < 1e-4
    assert not actual_leaf.grad[~g.isfinite().all(dim=2)].any()


@pytest.mark.parametrize("used", [["rgb"], ["alpha"], ["depth"], ["rgb", "alpha"]])
def test_gradients_of_some_outputs_are_those_of_the_reference(used: list[str]) -> None:
    g, c = gaussians("random", 2, 40, seed=6), cameras(2, 2, 12, 20)
    single, slopes = replace(c, c2w=c.c2w.float()), []
    for precision in (torch.float32, torch.float64):
        leaf = g.float().to(precision).requires_grad_(True)
        if precision == torch.float32:
            output = draw(StandIn(), leaf, single, NEAR)
        else:
            output = Reference(near=NEAR).render(leaf, replace(c, c2w=single.c2w.double()))
        sum(getattr(output, name).square().sum() for name in used).backward()
        assert leaf.grad is not None
        slopes.append(leaf.grad.double())
    torch.testing.assert_close(slopes[0], slopes[1], atol=1e-4 * float(slopes[1].abs().max()), rtol=0)


def test_the_benchmark_compares_one_call_with_a_call_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--objects", "3", "--splats", "50", "--size", "16", "--views", "2", "--repeats", "1"]
    assert main(["bench", "render", "--backend", "cpu", "--against", "looped", *sizes, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["objects"] == 3
    assert figures["against"]["backend"] == "looped"
    assert figures["ratio"]["forward_backward"] > 0
