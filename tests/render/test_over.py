"""Images on backgrounds by kernels, against their definition in float64. Without a GPU, Triton interprets them."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from z1g.render import _over
from z1g.render.base import RenderOutput

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def as_gsplat(b: int, v: int, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Color and alpha as views of images whose channels are next to each other, as gsplat's are."""
    image, alpha = drawn(b, v, h, w, 4, seed=0), drawn(b, v, h, w, 1, seed=1)
    return image[..., :3].movedim(-1, 2), alpha.movedim(-1, 2)


def contiguous(b: int, v: int, h: int, w: int) -> tuple[Tensor, Tensor]:
    return drawn(b, v, 3, h, w, seed=0), drawn(b, v, 1, h, w, seed=1)


@pytest.mark.parametrize("made", [as_gsplat, contiguous])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 1, 1), (3, 2, 33, 40)])
def test_values_and_gradients(made: object, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_over, "fused", lambda device: True)
    rgb, alpha = (x.requires_grad_(True) for x in made(*shape))  # type: ignore[operator]
    background, upstream = drawn(shape[0], 1, 3, 1, 1, seed=2), drawn(shape[0], shape[1], 3, *shape[2:], seed=3)
    out = RenderOutput(rgb, alpha, alpha).over(background)
    assert type(out.grad_fn).__name__ == "_OverBackward"
    slopes = torch.autograd.grad(out, (rgb, alpha), upstream)
    exact = rgb.detach().double() + (1 - alpha.detach().double()) * background.double()
    torch.testing.assert_close(out.double(), exact, atol=1e-6, rtol=0)
    assert torch.equal(slopes[0], upstream)
    of_alpha = -(upstream.double() * background.double()).sum(2, keepdim=True)
    torch.testing.assert_close(slopes[1].double(), of_alpha, atol=1e-6, rtol=0)


def test_other_images_and_backgrounds_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, colors of pixels, trained colors, other types and cut images have the same result."""
    monkeypatch.setattr(_over, "fused", lambda device: True)
    rgb, alpha = (x.requires_grad_(True) for x in contiguous(2, 3, 4, 6))
    colors = drawn(2, 1, 3, 1, 1, seed=2)
    trained = colors.clone().requires_grad_(True)
    for image, share, background in (
        (rgb, alpha, 1.0), (rgb, alpha, drawn(2, 3, 3, 4, 6, seed=4)), (rgb, alpha, trained),
        (rgb.double(), alpha.double(), colors.double()), (rgb[..., 1:], alpha[..., 1:], colors),
        (rgb[:, :2], alpha[:, :2], colors),
    ):  # fmt: skip
        out = RenderOutput(image, share, share).over(background)
        assert type(out.grad_fn).__name__ != "_OverBackward"
        torch.testing.assert_close(out, image + (1 - share) * background)
