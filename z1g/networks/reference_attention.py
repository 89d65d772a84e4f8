"""Reference attention: the denoised sheet attends to the condition picture's self-attention tokens (Zero123++, §2.2).

The UNet runs twice on one set of weights. The *write* pass on the noised condition latent keeps the tokens that enter
each self-attention (`attn1`); the *read* pass appends them to the keys and values of the same layer.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Memory = dict[str, Tensor]
UNet = Callable[..., tuple[Tensor, ...]]
KERNELS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


class ReferenceAttention:
    """Attention processor of one layer. Cross-attention layers are built with `remembers=False` and pass through."""

    def __init__(self, name: str, remembers: bool) -> None:
        self.name, self.remembers = name, remembers
        self.inner = AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        write: Memory | None = None,
        read: Memory | None = None,
        **_: Any,
    ) -> Tensor:
        """[B,N,C] -> [B,N,C]; `write` receives this layer's tokens, `read` supplies those of the condition."""
        if self.remembers:
            if write is not None:
                write[self.name] = hidden_states
            if read is not None:
                encoder_hidden_states = torch.cat([hidden_states, read[self.name]], dim=1)
        result: Tensor = self.inner(attn, hidden_states, encoder_hidden_states, attention_mask)
        return result


def install(unet: UNet2DConditionModel) -> None:
    """Give every attention layer of the UNet its processor."""
    layers = {name: name.split(".")[-2] == "attn1" for name in unet.attn_processors}
    unet.set_attn_processor({name: ReferenceAttention(name, remembers) for name, remembers in layers.items()})


def kernels(preferred: str) -> AbstractContextManager[None]:
    """Attention kernels while the block runs: torch's choice (`auto`), or `flash` or `cudnn` wherever they can work."""
    if preferred == "auto":
        return nullcontext()
    others = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    order = [KERNELS[preferred], *(other for other in others if other is not KERNELS[preferred])]
    context: AbstractContextManager[None] = sdpa_kernel(order, set_priority=True)
    return context


def run(unet: UNet, sample: Tensor, timestep: Tensor, tokens: Tensor, **memory: Memory) -> Tensor:
    """One pass of the UNet with `write=` or `read=`."""
    output = unet(sample, timestep, encoder_hidden_states=tokens, cross_attention_kwargs=memory, return_dict=False)
    return output[0]
