"""Attention of wide heads in blocks, against torch's attention."""

import pytest
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL
from diffusers.models import attention_processor
from support.diffusion import normal

from z1g.networks import wide_attention
from z1g.networks.wide_attention import WideAttention, attend


@pytest.mark.parametrize("kept", [0, 10_000])
@pytest.mark.parametrize("scores", [1, 40, 10_000])
def test_wide_attention_is_attention(scores: int, kept: int) -> None:
    """Values and gradients equal torch's in float64, for any block size, recomputed and not."""
    results = []
    for work in (lambda q, k, v: attend(q, k, v, scores, kept), functional.scaled_dot_product_attention):
        leaves = [normal(2, 11, 6, seed=i).double().mul(2).requires_grad_(True) for i in range(3)]
        out = work(*leaves)
        (out * normal(2, 11, 6, seed=9).double()).sum().backward()
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(*results, atol=1e-12, rtol=1e-12)


def test_wide_attention_in_bfloat16() -> None:
    """Within 2 % of the largest float32 value."""
    q, k, v = (normal(1, 50, 64, seed=i) for i in range(3))
    exact = functional.scaled_dot_product_attention(q, k, v)
    half = attend(q.bfloat16(), k.bfloat16(), v.bfloat16()).float()
    assert (half - exact).abs().max() < 0.02 * exact.abs().max()


def test_wide_heads_get_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A VAE decodes the same with it as with diffusers' processor."""
    vae = AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2).double()  # fmt: skip
    wide_attention.install(vae)
    assert not any(isinstance(processor, WideAttention) for processor in vae.attn_processors.values())
    code = normal(2, 4, 5, 6).double()
    expected = vae.decode(code).sample
    monkeypatch.setattr(wide_attention, "WIDE", 8)
    wide_attention.install(vae)
    warned: list[str] = []
    monkeypatch.setattr(attention_processor.logger, "warning", warned.append)
    assert all(isinstance(processor, WideAttention) for processor in vae.attn_processors.values())
    torch.testing.assert_close(vae.decode(code).sample, expected, atol=1e-12, rtol=1e-12)
    assert not warned
