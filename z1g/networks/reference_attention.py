"""Reference attention: the denoised mosaic attends to the condition image's self-attention tokens (Zero123++, §2.2).

The UNet runs twice with the same weights. The *write* pass on the noised condition latent stores the input tokens of
each self-attention (`attn1`); the *read* pass appends them to the keys and values of the same layer.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, XFormersAttnProcessor
from torch import Tensor

from z1g.networks.attention_kernels import package as selected
from z1g.networks.plain_attention import PlainAttention

Memory = dict[str, Tensor]
UNet = Callable[..., tuple[Tensor, ...]]


class ReferenceAttention:
    """Attention processor of one layer. With `self_attention=False`, it is plain cross-attention."""

    def __init__(self, name: str, self_attention: bool) -> None:
        self.name, self.self_attention = name, self_attention
        self.inner, self.xformers = PlainAttention(), XFormersAttnProcessor()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        write: Memory | None = None,
        read: Memory | None = None,
        package: str = "",
        **_: Any,
    ) -> Tensor:
        """[B,N,C] -> [B,N,C]; `write` receives this layer's tokens, `read` has those of the condition.

        package: whose kernels compute it, see `attention_kernels.package`.
        """
        appended: Tensor | None = None
        if self.self_attention:
            if write is not None:
                write[self.name] = hidden_states
            if read is not None:
                appended = read[self.name]
        if package == "xformers":
            if appended is not None:
                encoder_hidden_states = torch.cat([hidden_states, appended], dim=1)
            result: Tensor = self.xformers(attn, hidden_states, encoder_hidden_states, attention_mask)
            return result
        return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, appended, package)


def install(unet: UNet2DConditionModel) -> None:
    """Set the processors of all attention layers of the UNet."""
    layers = {name: name.split(".")[-2] == "attn1" for name in unet.attn_processors}
    unet.set_attn_processor({name: ReferenceAttention(name, is_self) for name, is_self in layers.items()})


def run(
    unet: UNet, sample: Tensor, timestep: Tensor, tokens: Tensor, class_labels: Tensor | None = None, **options: Any
) -> Tensor:
    """Run one pass of the UNet. options: for its attention, such as `write=` or `read=` of `ReferenceAttention`."""
    # Passed as an argument, because blocks that the backward pass recomputes run outside `kernels`.
    arguments = {**options, "package": selected()}
    output = unet(
        sample, timestep, encoder_hidden_states=tokens, class_labels=class_labels, cross_attention_kwargs=arguments,
        return_dict=False,
    )  # fmt: skip
    return output[0]
