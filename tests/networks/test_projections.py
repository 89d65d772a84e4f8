"""Queries, keys and values whose gradients products add, against autograd in float64."""

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from z1g.networks import projections
from z1g.networks.projections import projected


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer() -> Attention:
    torch.manual_seed(0)
    return Attention(query_dim=12, heads=3, dim_head=4)


@pytest.mark.parametrize("appended", [False, True])
@pytest.mark.parametrize("frozen", ["", "to_q", "to_k", "tokens", "appended"])
def test_gradients(appended: bool, frozen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = [drawn(2, n, 12, seed=i) for i, n in ((1, 7), (2, 7 + 3 * appended), (3, 7 + 3 * appended))]
    outcomes = []
    for adds in (True, False):
        attn, dtype = layer(), torch.float32 if adds else torch.float64
        attn.to(dtype)
        monkeypatch.setattr(projections, "_adds", lambda tokens, layers, adds=adds: adds)
        tokens, more = drawn(2, 7, 12, seed=4).to(dtype), drawn(2, 3, 12, seed=5).to(dtype)
        for name, leaf in {"tokens": tokens, "appended": more}.items():
            leaf.requires_grad_(name != frozen)
        for name in ("to_q", "to_k", "to_v"):
            getattr(attn, name).requires_grad_(name != frozen)
        out = projected(attn, tokens, None, more if appended else None)
        torch.autograd.backward(out, [slope.to(dtype) for slope in upstream])
        weights = [getattr(attn, name).weight.grad for name in ("to_q", "to_k", "to_v")]
        outcomes.append([*(x.detach() for x in out), tokens.grad, more.grad, *weights])
    for actual, expected in zip(*outcomes, strict=True):
        assert (actual is None) == (expected is None)
        if actual is not None:
            torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-5)


def test_only_plain_layers_on_a_gpu_add() -> None:
    """On a CPU results stay those of diffusers to the bit; adapters and layers under autocast have other types."""
    attn, tokens = layer(), drawn(2, 7, 12, seed=4).requires_grad_(True)
    layers = [attn.to_q, attn.to_k, attn.to_v]
    assert not projections._adds(tokens, layers)
    if torch.cuda.is_available():
        attn, tokens = attn.cuda(), tokens.detach().cuda()
        layers = [attn.to_q, attn.to_k, attn.to_v]
        assert projections._adds(tokens, layers)
        assert not projections._adds(tokens.half(), layers)
        assert not projections._adds(tokens, [*layers[:2], nn.Sequential(attn.to_v)])
        with torch.autocast("cuda", torch.bfloat16):
            assert not projections._adds(tokens, layers)
        with torch.no_grad():
            assert not projections._adds(tokens, layers)


def test_appended_tokens_are_keys_and_values_only() -> None:
    attn, tokens, more = layer(), drawn(2, 7, 12, seed=4), drawn(2, 3, 12, seed=5)
    query, key, value = projected(attn, tokens, None, more)
    both = torch.cat([tokens, more], dim=1)
    assert torch.equal(query, attn.to_q(tokens))
    assert torch.equal(key, attn.to_k(both))
    assert torch.equal(value, attn.to_v(both))
    context = drawn(2, 4, 12, seed=6)
    assert torch.equal(projected(attn, tokens, context, None)[2], attn.to_v(context))
