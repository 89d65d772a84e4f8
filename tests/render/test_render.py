"""Rasterizers on scenes with known images, and their behavior."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.renders import FOV, cameras, flat, gaussians
from torch import Tensor

from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.gaussians import ply
from z1g.gaussians.channels import CHANNELS
from z1g.geometry.camera import Cameras, orbit_c2w
from z1g.render import Rasterizer
from z1g.render.auto import Auto
from z1g.render.cpu import Cpu
from z1g.render.diff_gaussian import DiffGaussian
from z1g.render.gsplat import Gsplat
from z1g.render.reference import Reference


def render_with_gradient(backend: Rasterizer, g: Tensor, c: Cameras, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    leaf = g.detach().to(dtype).clone().requires_grad_(True)
    image = flat(backend.render(leaf, Cameras(c.c2w.to(dtype), c.fov_y_deg, c.height, c.width)))
    weight = torch.rand(image.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)
    (image * weight).sum().backward()
    assert leaf.grad is not None
    return image.detach().double(), leaf.grad.double()


def ball(position: tuple[float, float, float], opacity: float, scale: float, rgb: tuple[float, float, float]) -> Tensor:
    return torch.tensor([*position, opacity, scale, scale, scale, 1, 0, 0, 0, *rgb], dtype=torch.float64)


def test_one_gaussian_has_the_closed_form() -> None:
    c = Cameras(torch.from_numpy(orbit_c2w(0, 0, 1.5))[None, None], FOV, 33, 33)
    g = ball((0, 0, 0), 0.8, 0.05, (1.0, 0.5, 0.25))[None, None]
    output = Reference().render(g, c)
    variance = (c.focal * 0.05 / 1.5) ** 2 + 0.3
    y, x = torch.meshgrid(torch.arange(33) + 0.5 - 16.5, torch.arange(33) + 0.5 - 16.5, indexing="ij")
    alpha = 0.8 * torch.exp(-(x**2 + y**2).double() / (2 * variance))
    alpha = torch.where(alpha >= 1 / 255, alpha, 0.0)
    torch.testing.assert_close(output.alpha[0, 0, 0], alpha, atol=1e-12, rtol=0)
    torch.testing.assert_close(output.rgb[0, 0, 1], 0.5 * alpha, atol=1e-12, rtol=0)
    torch.testing.assert_close(output.depth[0, 0, 0], 1.5 * alpha, atol=1e-12, rtol=0)


@pytest.mark.parametrize("backend", [Reference(), Cpu()])
def test_the_nearer_of_two_covers_the_farther(backend: Rasterizer) -> None:
    c = Cameras(torch.from_numpy(orbit_c2w(0, 0, 1.5))[None, None], FOV, 17, 17)
    far, near = ball((0, 0, -0.2), 0.9, 0.1, (1, 0, 0)), ball((0, 0, 0.2), 0.6, 0.1, (0, 1, 0))
    output = backend.render(torch.stack([far, near])[None], c)
    center = flat(output)[0, 0, :, 8, 8].tolist()
    assert center == pytest.approx([0.4 * 0.9, 0.6, 0, 1 - 0.4 * 0.1, 0.6 * 1.3 + 0.4 * 0.9 * 1.7], abs=1e-5)


@pytest.mark.parametrize("backend", [Reference(), Cpu()])
def test_pixels_are_at_the_projected_positions(backend: Rasterizer) -> None:
    c = Cameras(torch.from_numpy(orbit_c2w(0, 0, 1.5))[None, None], FOV, 32, 48)
    g = ball((0.2, 0.3, 0), 0.9, 0.01, (1, 1, 1))[None, None]
    alpha = backend.render(g, c).alpha[0, 0, 0]
    row, column = divmod(int(alpha.argmax()), 48)
    assert column == int(24 + c.focal * 0.2 / 1.5)
    assert row == int(16 - c.focal * 0.3 / 1.5)


def test_reference_gradients_are_those_of_finite_differences() -> None:
    g, c = gaussians("random", 1, 4, seed=5), cameras(1, 1, 9, 8)
    g[..., CHANNELS["scale"]] = 0.1
    g[..., 3] = 0.5
    leaf = g.requires_grad_(True)

    def smooth(x: Tensor) -> Tensor:
        return flat(Reference().render(x, c)).square().sum()

    assert torch.autograd.gradcheck(smooth, (leaf,), eps=1e-7, atol=2e-4, rtol=2e-3)


def test_at_the_alpha_cap_the_gradient_of_opacity_is_zero() -> None:
    c = Cameras(torch.from_numpy(orbit_c2w(0, 0, 1.5))[None, None], FOV, 1, 1)
    for backend in (Reference(), Cpu()):
        g = ball((0, 0, 0), 1.0, 0.3, (1, 1, 1))[None, None].requires_grad_(True)
        backend.render(g, c).alpha.sum().backward()
        assert g.grad is not None
        assert g.grad[0, 0, 3] == 0


def test_same_bits_for_any_number_of_threads() -> None:
    g, c = gaussians("trained", 1, 400).float(), cameras(1, 3, 48, 48)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(render_with_gradient(Cpu(), g, c, torch.float32))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@given(seed=st.integers(0, 2**16))
@settings(max_examples=8, deadline=None)
def test_the_order_of_gaussians_does_not_matter(seed: int) -> None:
    g, c = gaussians("random", 1, 60, seed).float(), cameras(1, 1, 16, 16)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(flat(Cpu().render(g, c)), flat(Cpu().render(g[:, order], c)), atol=1e-6, rtol=0)


def test_the_background_is_blended_by_transmittance() -> None:
    output = Cpu().render(gaussians("random", 1, 30).float(), cameras(1, 1, 24, 24))
    gray = torch.tensor([0.1, 0.5, 0.9]).view(1, 1, 3, 1, 1)
    torch.testing.assert_close(output.over(gray), output.rgb + (1 - output.alpha) * gray)
    torch.testing.assert_close(output.over(0.0), output.rgb)


def test_nothing_to_draw_gives_empty_images() -> None:
    for backend in (Reference(), Cpu()):
        output = backend.render(torch.zeros(1, 5, 14), cameras(1, 1, 8, 8))
        assert flat(output).abs().max() == 0


def test_auto_takes_the_cpu_backend_for_cpu_tensors() -> None:
    g, c = gaussians("random", 1, 40).float(), cameras(1, 1, 16, 16)
    assert torch.equal(flat(Auto().render(g, c)), flat(Cpu().render(g, c)))


def test_missing_backends_raise_a_one_line_error() -> None:
    g, c = gaussians("random", 1, 4).float(), cameras(1, 1, 8, 8)
    for backend, word in ((Gsplat(), "GPU"), (DiffGaussian(), "docs/install.md")):
        with pytest.raises(UserError, match=word) as caught:
            backend.render(g, c)
        assert "\n" not in str(caught.value)


def test_without_numba_plain_torch_renders(monkeypatch: pytest.MonkeyPatch) -> None:
    g, c = gaussians("random", 1, 40).float(), cameras(1, 1, 16, 16)
    with_numba = flat(Cpu().render(g, c))
    monkeypatch.delitem(sys.modules, "z1g.render._blend")
    monkeypatch.setitem(sys.modules, "numba", None)
    torch.testing.assert_close(flat(Cpu().render(g, c)), with_numba, atol=2e-5, rtol=0)


def test_the_benchmark_prints_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--splats", "200", "--size", "16", "--views", "2", "--repeats", "2"]
    assert main(["bench", "render", "--backend", "cpu", *sizes, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["forward_ms"] > 0
    assert figures["forward_backward_ms"] > 0
    assert torch.__version__.startswith(figures["versions"]["torch"])
    assert main(["bench", "render", "--backend", "cpuu", *sizes]) == 2


def test_the_benchmark_compares_two_backends_in_turns(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--splats", "200", "--size", "16", "--views", "2", "--repeats", "2"]
    assert main(["bench", "render", "--backend", "cpu", "--against", "torch", *sizes, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["against"]["backend"] == "torch"
    for part in ("forward", "forward_backward"):
        ratio = figures[part + "_ms"] / figures["against"][part + "_ms"]
        assert figures["ratio"][part] == pytest.approx(ratio)


def test_the_benchmark_draws_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--size", "16", "--views", "2", "--repeats", "1"]
    ply.write(tmp_path / "x.ply", gaussians("trained", 1, 50)[0], np.eye(4))
    assert main(["bench", "render", "--ply", str(tmp_path / "x.ply"), *sizes, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splats"] == 50
    assert main(["bench", "render", "--ply", str(tmp_path / "none.ply"), *sizes]) == 2
    assert "none.ply is not a file" in capsys.readouterr().err
