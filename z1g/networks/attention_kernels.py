"""Kernels of attention, by the name of the option `attention`: those of torch, of xformers and of FlashAttention 4."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from z1g.core.errors import UserError
from z1g.core.needs import ATTENTION, has_package

if TYPE_CHECKING:
    from collections.abc import Iterator

OF_TORCH = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
WIDEST = 128
"""Most channels of a head in FlashAttention 4."""
_package: ContextVar[str] = ContextVar("package", default="")


def kernels(preferred: str) -> AbstractContextManager[None]:
    """Select attention kernels during the block: torch's default (`auto`), or `flash` or `cudnn` where supported.

    `xformers`, `flash4`: kernels of these packages, see `require` and `package`.
    """
    if preferred == "auto":
        return nullcontext()
    if preferred in ATTENTION:
        return _of_package(preferred)
    others = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    order = [OF_TORCH[preferred], *(other for other in others if other is not OF_TORCH[preferred])]
    context: AbstractContextManager[None] = sdpa_kernel(order, set_priority=True)
    return context


def package() -> str:
    """The package whose kernels were selected by `kernels`; empty for those of torch."""
    return _package.get()


def require(preferred: str) -> None:
    """Raise UserError if the kernels are not available, which can only happen for those of packages."""
    if preferred not in ATTENTION:
        return
    if not has_package(ATTENTION[preferred]):
        raise UserError(f"attention: {preferred} is not installed: pip install 'z1g[{preferred}]', or choose auto")
    if not torch.cuda.is_available():
        raise UserError(f"attention: {preferred} needs a GPU with CUDA; auto works on any device")
    {"xformers": probe_xformers, "flash4": probe_flash4}[preferred]("cuda")


def attention(query: Tensor, key: Tensor, value: Tensor, package: str = "") -> Tensor:
    """softmax(Q K' / √D) V of heads [B,N,heads,D]; keys and values [B,M,heads,D].

    package: `flash4` uses its kernels for bfloat16 and float16 with up to 128 channels a head; all else is torch's.
    """
    half = query.dtype in (torch.bfloat16, torch.float16) and query.dtype == key.dtype == value.dtype
    if package == "flash4" and half and query.shape[-1] <= WIDEST and query.shape[-1] % 8 == 0:
        return flash4(query, key, value)
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)


def flash4(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`attention` by FlashAttention 4, for GPUs from Hopper on. It compiles a kernel when it is used first."""
    from flash_attn.cute import flash_attn_func  # type: ignore[import-not-found]

    _hush_compiler()
    result = flash_attn_func(query, key, value)
    # Versions differ in whether they return the normalizers, too.
    mixed: Tensor = result[0] if isinstance(result, tuple) else result
    return mixed


@cache
def _hush_compiler() -> None:
    """Ignore what FlashAttention's compiler warns of: an argument of its own, in backward passes, too."""
    warnings.filterwarnings("ignore", message="Argument aux_data", category=UserWarning)


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


@cache
def probe_flash4(device: str) -> None:
    """Raise UserError if FlashAttention 4 cannot run here: on older GPUs, or with another version of its compiler."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            heads = torch.zeros(1, 16, 1, 64, device=device, dtype=torch.bfloat16, requires_grad=True)
            flash4(heads, heads, heads).sum().backward()
    # Its compiler can raise nearly anything.
    except Exception as error:
        said = str(error).strip().split("\n", 1)[0] or type(error).__name__
        raise UserError(
            f"attention: flash4 does not work with torch {torch.__version__} on this GPU ({said}); it needs a Hopper "
            "or a later one, and for CUDA 13 'flash-attn-4[cu13]'; cudnn is the fastest otherwise"
        ) from error


@contextmanager
def _of_package(name: str) -> Iterator[None]:
    require(name)
    token = _package.set(name)
    try:
        yield
    finally:
        _package.reset(token)
