"""Reference attention: the denoised mosaic attends to the condition image's self-attention tokens (Zero123++, §2.2).

The UNet runs twice with the same weights. The *write* pass on the noised condition latent stores the input tokens of
each self-attention (`attn1`); the *read* pass appends them to the keys and values of the same layer.
"""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, XFormersAttnProcessor
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from z1g.core.errors import UserError
from z1g.networks.plain_attention import PlainAttention

Memory = dict[str, Tensor]
UNet = Callable[..., tuple[Tensor, ...]]
KERNELS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
_xformers = ContextVar("xformers", default=False)


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
        xformers: bool = False,
        **_: Any,
    ) -> Tensor:
        """[B,N,C] -> [B,N,C]; `write` receives this layer's tokens, `read` has those of the condition."""
        if self.self_attention:
            if write is not None:
                write[self.name] = hidden_states
            if read is not None:
                encoder_hidden_states = torch.cat([hidden_states, read[self.name]], dim=1)
        inner = self.xformers if xformers else self.inner
        result: Tensor = inner(attn, hidden_states, encoder_hidden_states, attention_mask)
        return result


def install(unet: UNet2DConditionModel) -> None:
    """Set the processors of all attention layers of the UNet."""
    layers = {name: name.split(".")[-2] == "attn1" for name in unet.attn_processors}
    unet.set_attn_processor({name: ReferenceAttention(name, is_self) for name, is_self in layers.items()})


def kernels(preferred: str) -> AbstractContextManager[None]:
    """Select attention kernels during the block: torch's default (`auto`), or `flash` or `cudnn` where supported.

    `xformers`: kernels of that package, see `require`.
    """
    if preferred == "auto":
        return nullcontext()
    if preferred == "xformers":
        return _with_xformers()
    others = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    order = [KERNELS[preferred], *(other for other in others if other is not KERNELS[preferred])]
    context: AbstractContextManager[None] = sdpa_kernel(order, set_priority=True)
    return context


def require(preferred: str) -> None:
    """Raise UserError if the kernels are not available, which can only happen for `xformers`."""
    if preferred != "xformers":
        return
    if importlib.util.find_spec("xformers") is None:
        raise UserError("attention: xformers is not installed: pip install 'z1g[xformers]', or choose auto")
    if not torch.cuda.is_available():
        raise UserError("attention: xformers needs a GPU with CUDA; auto works on any device")
    probe_xformers("cuda")


@cache
def probe_xformers(device: str) -> None:
    """Raise UserError if the package has no kernels: wheels for other versions of torch or CUDA install, too."""
    from xformers.ops import memory_efficient_attention  # type: ignore[import-not-found]

    heads = torch.zeros(1, 16, 16, device=device, dtype=torch.bfloat16)
    try:
        memory_efficient_attention(heads, heads, heads)
    except NotImplementedError as error:
        raise UserError(
            f"attention: xformers has no kernels for torch {torch.__version__} with CUDA {torch.version.cuda}; install "
            "its wheel for these (python -m xformers.info says what it was made for), or choose auto"
        ) from error


@contextmanager
def _with_xformers() -> Iterator[None]:
    require("xformers")
    token = _xformers.set(True)
    try:
        yield
    finally:
        _xformers.reset(token)


def run(
    unet: UNet, sample: Tensor, timestep: Tensor, tokens: Tensor, class_labels: Tensor | None = None, **options: Any
) -> Tensor:
    """Run one pass of the UNet. options: for its attention, such as `write=` or `read=` of `ReferenceAttention`."""
    # Passed as an argument, because blocks that the backward pass recomputes run outside `kernels`.
    arguments = {**options, "xformers": _xformers.get()}
    output = unet(
        sample, timestep, encoder_hidden_states=tokens, class_labels=class_labels, cross_attention_kwargs=arguments,
        return_dict=False,
    )  # fmt: skip
    return output[0]
