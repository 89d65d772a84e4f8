"""xformers' kernels on a GPU, against attention by its definition in float64."""

import pytest
import torch
from torch import Tensor

from z1g.networks.denoiser import Condition
from z1g.networks.vision.base import VisionSize
from z1g.networks.weights.scratch import Scratch
from z1g.networks.weights.sizes import AutoencoderSize, UNetSize

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("tokens", [77, 600])
def test_memory_efficient_attention_is_attention(dtype: torch.dtype, bound: float, tokens: int) -> None:
    """Values and gradients of heads [B·H,N,C]; relative errors of whole tensors."""
    ops = pytest.importorskip("xformers.ops")
    generator = torch.Generator().manual_seed(0)
    shapes = [(10, 600, 64), (10, tokens, 64), (10, tokens, 64)]
    heads = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    upstream = torch.randn(10, 600, 64, generator=generator, dtype=torch.float64)
    query, key, value = heads
    expected = (query @ key.transpose(1, 2) / 8).softmax(dim=2) @ value
    wanted = torch.autograd.grad(expected, heads, upstream)

    on_gpu = [head.detach().to("cuda", dtype).requires_grad_() for head in heads]
    actual = ops.memory_efficient_attention(*on_gpu, attn_bias=None, scale=1 / 8)
    found = torch.autograd.grad(actual, on_gpu, upstream.to("cuda", dtype))
    for one, other in zip([actual, *found], [expected, *wanted], strict=True):
        assert _distance(one, other) < bound


def test_a_denoiser_gives_the_same_with_either() -> None:
    pytest.importorskip("xformers.ops")
    results: list[tuple[Tensor, Tensor]] = []
    for preferred in ("auto", "xformers"):
        network = Scratch(
            init_seed=1,
            autoencoder_size=AutoencoderSize(channels=[8, 16], latent_channels=4, norm_groups=4),
            unet_size=UNetSize(
                channels=[32, 64], layers_per_block=1, head_dim=16, cross_attention_dim=32, norm_groups=8
            ),
            vision_size=VisionSize(image_size=16, patch_size=8, width=16, layers=1, heads=2),
            prompt_tokens=5,
        ).denoiser()
        network = network.cuda()
        network.attention = preferred
        generator = torch.Generator().manual_seed(2)
        latent, code, zero = (torch.randn(2, 4, 8, 8, generator=generator).cuda() for _ in range(3))
        condition = Condition(latent, torch.randn(2, 32, generator=generator).cuda())
        output = network(code, torch.tensor([100, 800], device="cuda"), condition, zero)
        output.square().mean().backward()
        found = torch.cat([p.grad.flatten() for p in network.unet.parameters() if p.grad is not None])
        results.append((output.detach(), found))
    (output, gradients), (other, others) = results
    assert _distance(other, output) < 2e-3
    assert _distance(others, gradients) < 5e-3


def _distance(actual: Tensor, expected: Tensor) -> float:
    expected = expected.detach().double().cpu()
    return float((actual.detach().double().cpu() - expected).norm() / expected.norm())
