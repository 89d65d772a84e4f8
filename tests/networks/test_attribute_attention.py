"""Attention across attributes: by the definition in float64, whose tokens are seen, and a network that is as before."""

import math

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from hypothesis import given
from hypothesis import strategies as st
from support.diffusion import normal
from torch import Tensor

from z1g.core.seeding import seeded
from z1g.networks.multiview.attention import install
from z1g.networks.multiview.attributes import AttributeAttention, insert, inserted
from z1g.networks.multiview.rotary import Rotary, axes, table

SIDE, WIDTH, HEADS = 2, 24, 2


def by_definition(x: np.ndarray, attributes: int, side: int) -> np.ndarray:
    """Vectors [attributes·side²,D], each pair a complex number times exp(i·position·theta^(-2i/d)) of its axis."""
    width = x.shape[1]
    first = 2 * max(1, width // 2 // 5)
    second = 2 * ((width // 2 - first // 2) // 2)
    out = x.copy()
    for row, (a, y, z) in enumerate((a, y, z) for a in range(attributes) for y in range(side) for z in range(side)):
        start = 0
        for position, channels in ((a, first), (y, second), (z, second)):
            for i in range(0, channels, 2):
                pair = complex(x[row, start + i], x[row, start + i + 1])
                turned = pair * np.exp(1j * position * 10_000.0 ** (-i / channels))
                out[row, start + i : start + i + 2] = turned.real, turned.imag
            start += channels
    return out


@pytest.mark.parametrize("width", [6, 8, 24, 40, 64, 80])
@pytest.mark.parametrize(("attributes", "side"), [(2, 2), (5, 4)])
def test_rotary_embedding_is_its_definition(width: int, attributes: int, side: int) -> None:
    x = normal(2, attributes * side**2, 3, width, dtype=torch.float64)
    actual = Rotary(attributes)(x)
    assert actual.shape == x.shape
    for row, head in ((0, 0), (1, 2)):
        expected = by_definition(x[row, :, head].numpy(), attributes, side)
        np.testing.assert_allclose(actual[row, :, head].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("width", "expected"), [(40, (8, 16, 16)), (80, (16, 32, 32)), (160, (32, 64, 64))])
def test_axes_are_the_published_ones(width: int, expected: tuple[int, int, int]) -> None:
    assert axes(width) == expected


@given(width=st.integers(3, 100).map(lambda n: 2 * n))
def test_axes_fit_every_head(width: int) -> None:
    assert sum(axes(width)) <= width
    assert all(part >= 2 and part % 2 == 0 for part in axes(width))


def test_small_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="heads of 4 channels"):
        table(2, 2, 4, torch.device("cpu"))


def test_products_depend_on_differences_of_places() -> None:
    """The property for which the embedding exists."""
    query, key = normal(1, 40, seed=1, dtype=torch.float64), normal(1, 40, seed=2, dtype=torch.float64)
    many = [Rotary(5)(x.expand(1, 80, 1, 40)).view(5, 4, 4, 40) for x in (query, key)]
    first = (many[0][3, 2, 1] * many[1][1, 1, 0]).sum()
    second = (many[0][4, 3, 3] * many[1][2, 2, 2]).sum()
    other = (many[0][4, 3, 3] * many[1][2, 2, 1]).sum()
    assert first.item() == pytest.approx(second.item(), abs=1e-5)
    assert abs(first.item() - other.item()) > 1e-2


def layer() -> Attention:
    with seeded(3):
        return Attention(query_dim=WIDTH, heads=HEADS, dim_head=WIDTH // HEADS).requires_grad_(False)


@pytest.mark.parametrize("rotary", [False, True])
def test_two_attributes_of_two_views_by_hand(rotary: bool) -> None:
    """Two objects: rows are (object, attribute, view), each token a row of the image."""
    attn, x = layer(), normal(2 * 2 * 2, SIDE**2, WIDTH)
    actual = AttributeAttention(2, 2, Rotary(2) if rotary else None)(attn, x).numpy()
    weights = {name: value.double().numpy() for name, value in attn.state_dict().items()}
    for b in range(2):
        for v in range(2):
            rows = [b * 4 + a * 2 + v for a in range(2)]
            tokens = np.concatenate([x[row].double().numpy() for row in rows])
            query, key, value = (tokens @ weights[f"to_{name}.weight"].T for name in "qkv")
            mixed = np.zeros_like(query)
            for head in range(HEADS):
                part = slice(head * 12, head * 12 + 12)
                q, k = query[:, part], key[:, part]
                if rotary:
                    q, k = by_definition(q, 2, SIDE), by_definition(k, 2, SIDE)
                scores = np.exp(q @ k.T / math.sqrt(12))
                mixed[:, part] = scores / scores.sum(axis=1, keepdims=True) @ value[:, part]
            expected = mixed @ weights["to_out.0.weight"].T + weights["to_out.0.bias"]
            for i, row in enumerate(rows):
                np.testing.assert_allclose(actual[row], expected[4 * i : 4 * i + 4], atol=1e-5)


def test_a_token_sees_its_view_in_all_attributes_and_nothing_else() -> None:
    attributes, views = 3, 2
    attn, x = layer(), normal(2 * attributes * views, SIDE**2, WIDTH).requires_grad_()
    row = attributes * views + 1 * views + 1
    AttributeAttention(attributes, views, Rotary(attributes))(attn, x)[row, 2].sum().backward()
    assert x.grad is not None
    seen = (x.grad.abs().amax(dim=2) > 0).view(2, attributes, views, SIDE**2)
    expected = torch.zeros_like(seen)
    expected[1, :, 1] = True
    assert torch.equal(seen, expected)


def unet() -> UNet2DConditionModel:
    with seeded(1):
        network = UNet2DConditionModel(
            in_channels=4, out_channels=4, block_out_channels=(16, 16), layers_per_block=1, attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=8, norm_num_groups=4,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
    return network.requires_grad_(False).eval()


def run(network: UNet2DConditionModel, x: Tensor, **options: bool) -> Tensor:
    output: Tensor = network(
        x, torch.tensor(300), encoder_hidden_states=normal(len(x), 1, 8, seed=4), return_dict=False,
        cross_attention_kwargs=options or None,
    )[0]  # fmt: skip
    return output


@torch.no_grad()
def test_before_training_the_network_is_as_it_was() -> None:
    x = normal(12, 4, 8, 8)
    plain, grown = unet(), unet()
    insert(grown, 3, 2, rotary=True)
    assert plain.state_dict().keys() < grown.state_dict().keys()
    torch.testing.assert_close(run(grown, x), run(plain, x), atol=1e-6, rtol=0)
    install(plain, 2)
    install(cross := unet(), 2)
    insert(cross, 3, 2, rotary=True)
    torch.testing.assert_close(run(cross, x), run(plain, x), atol=1e-6, rtol=0)


def moved(network: UNet2DConditionModel) -> UNet2DConditionModel:
    """The network with an attention across attributes that does something."""
    with torch.no_grad():
        for i, parameter in enumerate(inserted(network)):
            parameter.add_(0.3 * normal(*parameter.shape, seed=i))
    return network


def test_views_and_attributes_of_an_object_meet() -> None:
    """Across views through one attention, across attributes through the other one; other objects are not seen."""
    network = unet()
    install(network, 2)
    insert(network, 3, 2, rotary=True)
    moved(network)
    x = normal(12, 4, 8, 8).requires_grad_()
    run(network, x)[8].sum().backward()
    assert x.grad is not None
    assert (x.grad.flatten(1).abs().amax(dim=1) > 0).tolist() == [False] * 6 + [True] * 6


@torch.no_grad()
def test_alone_an_attribute_needs_no_other() -> None:
    plain, grown = unet(), unet()
    install(plain, 2)
    install(grown, 2)
    insert(grown, 3, 2, rotary=True)
    moved(grown)
    x = normal(4, 4, 8, 8)
    torch.testing.assert_close(run(grown, x, alone=True), run(plain, x), atol=1e-6, rtol=0)
    assert not torch.allclose(run(grown, normal(6, 4, 8, 8)), run(plain, normal(6, 4, 8, 8)), atol=1e-3)


def test_initial_weights_do_not_depend_on_what_ran_before() -> None:
    first, second = unet(), unet()
    insert(first, 3, 2, rotary=False)
    torch.rand(7)
    insert(second, 3, 2, rotary=False)
    assert all(torch.equal(a, b) for a, b in zip(inserted(first), inserted(second), strict=True))
    assert len(inserted(first)) == 7 * 4, "a norm and four layers, of which one has a bias, of each block"


def test_other_blocks_are_refused() -> None:
    other = unet()
    other.mid_block.attentions[0].transformer_blocks[0].norm_type = "ada_norm"
    with pytest.raises(ValueError, match="not those of Stable Diffusion"):
        insert(other, 3, 2, rotary=False)
