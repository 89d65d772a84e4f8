"""UNets that see several images: whose tokens a token sees, by gradients and by attention in float64."""

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from support.diffusion import normal
from torch import Tensor

from z1g.core.seeding import seeded
from z1g.networks.multiview.attention import JoinedAttention, install
from z1g.networks.multiview.inputs import with_inputs

WIDTH, HEADS, TOKENS = 8, 2, 3


def layer(cross: int | None = None) -> Attention:
    with seeded(3):
        return Attention(query_dim=WIDTH, heads=HEADS, dim_head=4, cross_attention_dim=cross).requires_grad_(False)


def by_hand(attn: Attention, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Multi-head attention [N,C] of queries [N,C] to keys [M,D] in float64."""
    weights = {name: value.double().numpy() for name, value in attn.state_dict().items()}
    q, k, v = (
        (x @ weights[f"{name}.weight"].T).reshape(len(x), HEADS, -1)
        for name, x in (("to_q", queries), ("to_k", keys), ("to_v", keys))
    )
    out = np.zeros_like(q)
    for head in range(HEADS):
        scores = q[:, head] @ k[:, head].T / np.sqrt(q.shape[2])
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, head] = shares / shares.sum(axis=1, keepdims=True) @ v[:, head]
    return out.reshape(len(queries), -1) @ weights["to_out.0.weight"].T + weights["to_out.0.bias"]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_consecutive_images_attend_to_each_other(n: int) -> None:
    attn, x = layer(), normal(6, TOKENS, WIDTH)
    actual = JoinedAttention(n)(attn, x)
    for first in range(0, 6, n):
        tokens = x[first : first + n].reshape(-1, WIDTH).double().numpy()
        expected = by_hand(attn, tokens, tokens).reshape(n, TOKENS, WIDTH)
        np.testing.assert_allclose(actual[first : first + n].numpy(), expected, atol=1e-5)


def test_other_images_have_no_effect() -> None:
    attn, x = layer(), normal(6, TOKENS, WIDTH).requires_grad_()
    JoinedAttention(3)(attn, x)[1, 2].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().amax(dim=2) > 0
    assert seen[:3].all()
    assert not seen[3:].any()


def test_cross_attention_is_of_each_image_alone() -> None:
    attn, x, prompt = layer(cross=5), normal(4, TOKENS, WIDTH), normal(4, 2, 5, seed=1)
    actual = JoinedAttention(1)(attn, x, prompt)
    for i in range(4):
        expected = by_hand(attn, x[i].double().numpy(), prompt[i].double().numpy())
        np.testing.assert_allclose(actual[i].numpy(), expected, atol=1e-5)


def unet() -> UNet2DConditionModel:
    with seeded(1):
        network = UNet2DConditionModel(
            in_channels=4, out_channels=4, block_out_channels=(8, 8), layers_per_block=1, attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=8, norm_num_groups=4,
        )  # fmt: skip
    return network.requires_grad_(False).eval()


def run(network: UNet2DConditionModel, x: Tensor, **kwargs: Tensor) -> Tensor:
    prompt = normal(len(x), 1, 8, seed=4)
    output: Tensor = network(x, torch.tensor(300), encoder_hidden_states=prompt, return_dict=False, **kwargs)[0]
    return output


def test_a_unet_joins_the_views_of_an_object_and_no_other() -> None:
    network, x = unet(), normal(6, 4, 8, 8).requires_grad_()
    names = set(network.state_dict())
    install(network, 3)
    assert set(network.state_dict()) == names
    run(network, x)[4].sum().backward()
    assert x.grad is not None
    seen = x.grad.flatten(1).abs().amax(dim=1) > 0
    assert seen.tolist() == [False, False, False, True, True, True]


def test_new_channels_and_vectors_leave_the_weights() -> None:
    network, x = unet(), normal(2, 4, 8, 8)
    grown = with_inputs(network, 9, vector=6).eval()
    assert grown.config["in_channels"] == 9
    more = normal(2, 5, 8, 8, seed=7)
    for layer_ in grown.class_embedding.children():
        if hasattr(layer_, "weight"):
            torch.nn.init.zeros_(layer_.weight)
            torch.nn.init.zeros_(layer_.bias)
    labels = normal(2, 6, seed=8)
    with torch.no_grad():
        actual = run(grown, torch.cat([x, more], dim=1), class_labels=labels)
    torch.testing.assert_close(actual, run(network, x), atol=1e-5, rtol=0)
    run(grown, torch.cat([x, more], dim=1), class_labels=labels).sum().backward()
    gradient = grown.conv_in.weight.grad
    assert gradient is not None
    assert (gradient[:, 4:].abs().amax(dim=(0, 2, 3)) > 0).all(), "the new channels learn"


def test_a_unet_grows_twice() -> None:
    once = with_inputs(unet(), 6, vector=3)
    again = with_inputs(once, 8, vector=5)
    assert again.class_embedding.linear_1.in_features == 5
    torch.testing.assert_close(again.conv_in.weight[:, :6], once.conv_in.weight, atol=0, rtol=0)
