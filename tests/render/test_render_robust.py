"""The CPU rasterizer with non-finite numbers, threads, processes, autocast and unusual uses of autograd."""

import multiprocessing
import os
import subprocess
import sys

import pytest
import torch
from support.concurrent_renders import render_in_child, render_scene
from support.renders import cameras, flat, gaussians, gradient

from z1g.bench.render import measure
from z1g.core.errors import UserError
from z1g.gaussians.channels import CHANNELS, N_CHANNELS
from z1g.render import Rasterizer
from z1g.render.cpu import Cpu
from z1g.render.reference import Reference

BACKENDS = [Reference(), Cpu()]
ids = [backend.kind for backend in BACKENDS]


@pytest.mark.parametrize("backend", BACKENDS, ids=ids)
@pytest.mark.parametrize("channel", range(N_CHANNELS))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e12])
def test_a_non_finite_gaussian_does_not_change_the_others(backend: Rasterizer, channel: int, value: float) -> None:
    g, c = gaussians("random", 1, 40).float(), cameras(1, 1, 16, 16)
    alone = flat(backend.render(g[:, 1:], c))
    expected = gradient(backend, g[:, 1:], c, torch.ones(1))
    g[0, 0, channel] = value
    assert torch.equal(flat(backend.render(g, c)), alone)
    actual = gradient(backend, g, c, torch.ones(1))
    assert not actual[:, 0].any()
    torch.testing.assert_close(actual[:, 1:], expected)


@pytest.mark.parametrize("backend", BACKENDS, ids=ids)
@pytest.mark.parametrize("channel", range(N_CHANNELS))
@pytest.mark.parametrize("value", [0.0, 1e8, -1e8, 1e-30])
def test_gradients_stay_finite_at_the_ends_of_the_range(backend: Rasterizer, channel: int, value: float) -> None:
    g, c = gaussians("random", 1, 40).float(), cameras(1, 1, 16, 16)
    g[0, ::4, channel] = value
    assert gradient(backend, g, c, torch.ones(1)).isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS, ids=ids)
def test_nothing_in_front_of_the_camera(backend: Rasterizer) -> None:
    c = cameras(1, 1, 8, 24)
    assert not flat(backend.render(torch.empty(1, 0, 14), c)).any()
    g = gaussians("random", 1, 20)
    g[..., CHANNELS["position"]] = 1.1 * c.c2w[0, 0, :3, 3]
    leaf = g.requires_grad_(True)
    image = flat(backend.render(leaf, c))
    image.sum().backward()
    assert not image.any()
    assert leaf.grad is not None
    assert not leaf.grad.any()


@pytest.mark.parametrize("backend", BACKENDS, ids=ids)
def test_the_result_has_the_type_of_the_input(backend: Rasterizer) -> None:
    g, c = gaussians("random", 1, 20), cameras(1, 1, 16, 16)
    expected = flat(backend.render(g, c))
    for dtype, tolerance in ((torch.float64, 0.0), (torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        image = flat(backend.render(g.to(dtype), c))
        assert image.dtype == dtype
        torch.testing.assert_close(image.double(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS, ids=ids)
def test_autocast_does_not_round_the_poses(backend: Rasterizer) -> None:
    g, c = gaussians("random", 1, 40).float(), cameras(1, 1, 16, 16)
    expected = flat(backend.render(g, c))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(flat(backend.render(g, c)), expected)


@pytest.mark.slow
def test_many_splats_give_the_same_bits_for_any_number_of_threads() -> None:
    # Large enough that torch parallelizes the projection.
    g, c = gaussians("trained", 2, 9000).float(), cameras(2, 6, 48, 32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append((flat(Cpu().render(g, c)), gradient(Cpu(), g, c, torch.ones(1))))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for image, slope in results[1:]:
        assert torch.equal(image, results[0][0])
        assert torch.equal(slope, results[0][1])


@pytest.mark.slow
def test_a_spawned_child_draws_the_same_bits() -> None:
    expected = b"".join(x.numpy().tobytes() for x in render_scene())
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=render_in_child, args=(queue,))
    child.start()
    actual = queue.get(timeout=60)
    child.join()
    assert actual == expected


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_threads_can_render_concurrently(layer: str) -> None:
    # In a separate process, because numba selects its threads once, and workqueue aborts the process on misuse.
    program = "from support.concurrent_renders import render_in_threads; render_in_threads()"
    environment = os.environ | {"NUMBA_THREADING_LAYER": layer, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    if "No threading layer could be loaded" in result.stderr:
        pytest.skip(f"this numba has no {layer} threads")
    assert result.returncode == 0, result.stderr


def test_images_changed_in_place_have_no_gradient() -> None:
    g, c = gaussians("random", 1, 20).float().requires_grad_(True), cameras(1, 1, 16, 16)
    image = Cpu().render(g, c).rgb
    with pytest.raises(RuntimeError):
        image.clamp_(0, 0.5).sum().backward()


def test_second_derivatives_are_refused() -> None:
    g, c = gaussians("random", 1, 20).float().requires_grad_(True), cameras(1, 1, 16, 16)
    (slope,) = torch.autograd.grad(Cpu().render(g, c).rgb.square().sum(), g, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_a_graph_may_be_kept_and_used_again() -> None:
    g, c = gaussians("random", 1, 20).float().requires_grad_(True), cameras(1, 1, 16, 16)
    loss = Cpu().render(g, c).rgb.sum()
    (first,) = torch.autograd.grad(loss, g, retain_graph=True)
    (second,) = torch.autograd.grad(loss, g)
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_without_numba_there_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.warns(UserWarning, match="plain torch"):
        Cpu().render(gaussians("random", 1, 5).float(), cameras(1, 1, 8, 8))


def test_the_bench_measures_every_cpu_path() -> None:
    for backend in ("cpu", "reference", "torch"):
        figures = measure(backend, splats=100, size=16, views=2, repeats=2, device="cpu")
        assert min(figures["forward_ms"], figures["forward_backward_ms"]) > 0
        assert figures["backend"] == backend
    with pytest.raises(UserError, match="cpu"):
        measure("cpuu", splats=1, size=16, views=1, repeats=1, device="cpu")


@pytest.mark.parametrize("device", ["", "x", "-9", "a/b.zip", "\udcff", "meta", "mps", "cuda:999"])
def test_a_benchmark_refuses_a_device_that_does_not_exist(device: str) -> None:
    with pytest.raises(UserError, match="--device"):
        measure("cpu", splats=1, size=16, views=1, repeats=1, device=device)
