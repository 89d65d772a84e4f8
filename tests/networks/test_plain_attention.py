"""Attention of Stable Diffusion's layers against diffusers' processor and the definition in float64."""

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from z1g.networks.plain_attention import PlainAttention, attended, is_plain


def layer(**options: Any) -> Attention:
    torch.manual_seed(0)
    return Attention(query_dim=12, heads=3, dim_head=4, **options)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("across", [False, True])
def test_is_diffusers_attention(across: bool) -> None:
    """To the bit, in values and gradients."""
    attn = layer(cross_attention_dim=5 if across else None)
    results = []
    for processor in (PlainAttention(), AttnProcessor2_0()):
        tokens = drawn(2, 7, 12).requires_grad_(True)
        out = processor(attn, tokens, drawn(2, 6, 5, seed=1) if across else None)
        out.backward(drawn(2, 7, 12, seed=2))
        results.append((out.detach(), tokens.grad))
    for actual, expected in zip(*results, strict=True):
        assert torch.equal(actual, expected)


def test_definition() -> None:
    """softmax(Q K' / √d) V of each head, with queries and keys turned by a function."""
    attn, tokens, context = layer(cross_attention_dim=5).double(), drawn(2, 7, 12).double(), drawn(2, 6, 5).double()
    heads = torch.empty(2, 7, 3, 4, dtype=torch.float64)
    query, key = 2 * tokens @ attn.to_q.weight.T, 2 * context @ attn.to_k.weight.T
    value = context @ attn.to_v.weight.T
    for row in range(2):
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            shares = (query[row, :, part] @ key[row, :, part].T / 2).exp()
            heads[row, :, head] = shares / shares.sum(1, keepdim=True) @ value[row, :, part]
    expected = heads.flatten(2) @ attn.to_out[0].weight.T + attn.to_out[0].bias
    torch.testing.assert_close(attended(attn, tokens, context, turn=lambda x: 2 * x), expected)


@pytest.mark.parametrize(
    "options",
    [{"rescale_output_factor": 2.0}, {"residual_connection": True}, {"qk_norm": "layer_norm"}, {"norm_num_groups": 3}],
    ids=lambda options: next(iter(options)),
)
def test_other_layers_are_left_to_diffusers(options: dict[str, Any]) -> None:
    attn, tokens = layer(**options), drawn(2, 7, 12)
    assert not is_plain(attn)
    assert is_plain(layer())
    assert torch.equal(PlainAttention()(attn, tokens), AttnProcessor2_0()(attn, tokens))


def test_masks_are_left_to_diffusers() -> None:
    attn, tokens, mask = layer(), drawn(2, 7, 12), torch.zeros(2, 1, 7)
    mask[:, :, 4:] = -torch.inf
    out = PlainAttention()(attn, tokens, None, mask)
    assert torch.equal(out, AttnProcessor2_0()(attn, tokens, None, mask))
    assert not torch.equal(out, PlainAttention()(attn, tokens))
