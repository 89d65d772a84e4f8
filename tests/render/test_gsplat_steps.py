"""The steps of gsplat that `render: gsplat` takes draw what gsplat's `rasterization` draws, bit for bit."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from support.renders import cameras, flat, gaussians
from torch import Tensor

from z1g.gaussians.channels import CHANNELS, split
from z1g.geometry.camera import Cameras
from z1g.render import _pixels, _separate
from z1g.render.gsplat import Gsplat
from z1g.render.projection import finite

pytestmark = pytest.mark.gpu
SIZES = [(1, 1, 64, 64), (3, 1, 19, 41), (1, 5, 50, 7), (2, 4, 96, 128)]
"""Objects, views, height and width."""
GRADIENT = 1e-3
"""Largest difference of gradients, as a share of the largest: atomic additions come in any order."""


@pytest.fixture(params=["kernels", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With our kernels, and as where there are none."""
    pytest.importorskip("gsplat")
    monkeypatch.setattr(_pixels, "FEW", 0)
    if request.param == "torch":
        monkeypatch.setattr(_separate, "fused", lambda device: False)
        monkeypatch.setattr(_pixels, "usable", lambda means: False)
    elif not _separate.fused(torch.device("cuda", torch.cuda.current_device())):
        pytest.skip("no Triton for this GPU")


def scene(kind: str, b: int, v: int, height: int, width: int) -> tuple[Tensor, Cameras]:
    c = cameras(b, v, height, width)
    return gaussians(kind, b, 3000, seed=4).float().cuda(), Cameras(c.c2w.float().cuda(), c.fov_y_deg, height, width)


def whole(g: Tensor, c: Cameras, near: float) -> Tensor:
    """Color, alpha and depth [B,V,5,H,W] by gsplat's entry point."""
    from gsplat import rasterization

    parts = {name: part.contiguous() for name, part in split(finite(g, dim=2)[0], dim=2).items()}
    image, alpha, _ = rasterization(
        means=parts["position"], quats=parts["rotation"], scales=parts["scale"], opacities=parts["opacity"][..., 0],
        colors=parts["rgb"], viewmats=c.world_to_camera(), Ks=c.intrinsics(), width=c.width, height=c.height,
        near_plane=near, render_mode="RGB+D", packed=False,
    )  # fmt: skip
    return torch.cat([image[..., :3], alpha, image[..., 3:]], dim=-1).movedim(-1, 2)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", ["random", "trained", "behind", "transparent", "nan", "huge"])
@pytest.mark.parametrize("sizes", SIZES)
def test_images_are_equal_and_gradients_close(kind: str, sizes: tuple[int, int, int, int]) -> None:
    g, c = scene(kind, *sizes)
    images, slopes = [], []
    for draw in (lambda x: flat(Gsplat(near=1.2).render(x, c)), lambda x: whole(x, c, 1.2)):
        leaf = g.clone().requires_grad_(True)
        image = draw(leaf)
        weight = torch.rand(image.shape, generator=torch.Generator().manual_seed(5)).to(image)
        (image * weight).sum().backward()
        assert leaf.grad is not None
        images.append(image.detach())
        slopes.append(leaf.grad)
    assert images[0].any()
    assert torch.equal(*images)
    for name, channel in CHANNELS.items():
        ours, theirs = (slope[..., channel] for slope in slopes)
        assert ours.isfinite().all()
        assert (ours - theirs).abs().max() <= GRADIENT * theirs.abs().max(), name


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("context", [nullcontext, torch.no_grad, lambda: torch.autocast("cuda", torch.bfloat16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_are_equal_in_other_contexts(context: Any, dtype: torch.dtype) -> None:
    g, c = scene("trained", 2, 3, 40, 56)
    expected = whole(g.to(dtype).float(), c, 0.01).to(dtype)
    with context():
        # New cameras, whose poses are computed here.
        actual = flat(Gsplat().render(g.to(dtype), Cameras(c.c2w, c.fov_y_deg, c.height, c.width)))
    assert actual.dtype == dtype
    assert not actual.requires_grad
    assert torch.equal(actual, expected)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("used", ["rgb", "alpha", "depth"])
def test_gradients_of_one_output_are_close(used: str) -> None:
    g, c = scene("trained", 2, 2, 33, 48)
    channels = {"rgb": slice(0, 3), "alpha": slice(3, 4), "depth": slice(4, 5)}[used]
    ours, theirs = g.clone().requires_grad_(True), g.clone().requires_grad_(True)
    with torch.autocast("cuda", torch.bfloat16):
        getattr(Gsplat().render(ours, c), used).square().sum().backward()
    whole(theirs, c, 0.01)[:, :, channels].square().sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert (ours.grad - theirs.grad).abs().max() <= GRADIENT * theirs.grad.abs().max()
