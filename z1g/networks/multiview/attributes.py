"""Attention across the attributes of a view, one more layer of the transformer blocks of a UNet of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from z1g.core.seeding import seeded
from z1g.networks.multiview.rotary import Rotary
from z1g.networks.plain_attention import attended

SEED = 3
"""Of the initial weights of new layers."""
LAYERS = ("norm_attributes", "attn_attributes")
"""Names of the new layers of a block."""


class AttributeAttention:
    """Attention processor: the tokens of a view attend to those of the same view in all attributes.

    Rows are images, in the order of objects, attributes and views.
    """

    def __init__(self, attributes: int, views: int, rotary: Rotary | None) -> None:
        """rotary: rotates queries and keys; None: nothing does."""
        self.attributes, self.views, self.rotary = attributes, views, rotary

    def __call__(self, attn: Attention, hidden_states: Tensor, package: str = "", **_: Any) -> Tensor:
        """[B·A·V,N,C] -> [B·A·V,N,C]; N is a square number. package: see `attention_kernels`."""
        by_view = hidden_states.unflatten(0, (-1, self.attributes, self.views)).transpose(1, 2)
        tokens = by_view.flatten(0, 1).flatten(1, 2)
        mixed = attended(attn, tokens, turn=self.rotary, package=package)
        apart = mixed.unflatten(0, (-1, self.views)).unflatten(2, (self.attributes, -1))
        result: Tensor = apart.transpose(1, 2).flatten(0, 2)
        return result


class AttributeBlock(nn.Module):
    """A block of diffusers with one more attention, between those to its own image and to the prompt.

    The weights of the block keep their names. The last layer of the new attention is zero, so that it changes nothing
    before training.
    """

    def __init__(self, block: BasicTransformerBlock, attributes: int, views: int, rotary: bool) -> None:
        """Raises ValueError if the block is of another form than those of Stable Diffusion."""
        super().__init__()
        if block.norm_type != "layer_norm" or block.attn2 is None or block.only_cross_attention:
            raise ValueError("blocks of this UNet are not those of Stable Diffusion")
        self.norm1, self.attn1, self.norm2, self.attn2 = block.norm1, block.attn1, block.norm2, block.attn2
        self.norm3, self.ff = block.norm3, block.ff
        self.norm_attributes = nn.LayerNorm(block.dim)
        self.rotary = Rotary(attributes) if rotary else None
        self.attn_attributes = Attention(
            query_dim=block.dim,
            heads=block.num_attention_heads,
            dim_head=block.attention_head_dim,
            processor=AttributeAttention(attributes, views, self.rotary),
        )
        nn.init.zeros_(self.attn_attributes.to_out[0].weight)
        nn.init.zeros_(self.attn_attributes.to_out[0].bias)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        class_labels: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """[R,N,C] -> [R,N,C]. `alone` in `cross_attention_kwargs`: of one attribute, without the new attention."""
        for norm, layer in self.branches(encoder_hidden_states, cross_attention_kwargs):
            hidden_states = hidden_states + layer(norm(hidden_states))
        return hidden_states

    def branches(
        self, context: Tensor | None, options: dict[str, Any] | None
    ) -> Iterator[tuple[nn.LayerNorm, Callable[[Tensor], Tensor]]]:
        """What is added to the tokens one after the other: the norm of a branch, and its layer. See `forward`."""
        rest = dict(options or {})
        alone = rest.pop("alone", False)
        yield self.norm1, partial(self.attn1, **rest)
        if not alone:
            yield self.norm_attributes, partial(self.attn_attributes, **rest)
        yield self.norm2, partial(self.attn2, encoder_hidden_states=context, **rest)
        yield self.norm3, self.ff


def insert(unet: UNet2DConditionModel, attributes: int, views: int, rotary: bool) -> None:
    """Add the attention across attributes to all blocks of a UNet, in place, with initial weights of a fixed seed."""
    with seeded(SEED):
        for module in list(unet.modules()):
            if isinstance(module, Transformer2DModel):
                blocks = [AttributeBlock(block, attributes, views, rotary) for block in module.transformer_blocks]
                module.transformer_blocks = nn.ModuleList(blocks)


def new_layers(unet: UNet2DConditionModel) -> list[str]:
    """Names of the layers that `insert` added."""
    return [name for name, _ in unet.named_modules() if name.rpartition(".")[2] in LAYERS]


def inserted(unet: UNet2DConditionModel) -> list[nn.Parameter]:
    """Parameters of the layers that `insert` added."""
    return [p for name in new_layers(unet) for p in unet.get_submodule(name).parameters()]
