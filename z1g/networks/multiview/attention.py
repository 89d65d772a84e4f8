"""Self-attention over the tokens of several images of an object, as in Wonder3D (Long et al. 2023) and MVDream."""

from functools import partial
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, XFormersAttnProcessor
from torch import Tensor

from z1g.networks.plain_attention import PlainAttention


class JoinedAttention:
    """Attention processor of a layer whose rows are images: `n` consecutive ones attend to each other's tokens.

    With n = 1, rows are alone, and the layer may be a cross-attention.
    """

    def __init__(self, n: int = 1) -> None:
        self.n = n
        self.inner, self.xformers = PlainAttention(), XFormersAttnProcessor()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        package: str = "",
        **_: Any,
    ) -> Tensor:
        """[R,N,C] -> [R,N,C]; R is a multiple of n. package: whose kernels compute it, see `attention_kernels`."""
        inner = self.xformers if package == "xformers" else partial(self.inner, package=package)
        if self.n == 1:
            alone: Tensor = inner(attn, hidden_states, encoder_hidden_states, attention_mask)
            return alone
        joined: Tensor = inner(attn, hidden_states.unflatten(0, (-1, self.n)).flatten(1, 2))
        apart: Tensor = joined.unflatten(1, (self.n, -1)).flatten(0, 1)
        return apart


def install(unet: UNet2DConditionModel, views: int) -> None:
    """Let the self-attention of a UNet join the tokens of `views` consecutive images; names of weights stay."""
    layers = {name: views if name.split(".")[-2] == "attn1" else 1 for name in unet.attn_processors}
    unet.set_attn_processor({name: JoinedAttention(n) for name, n in layers.items()})
