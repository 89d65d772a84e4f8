"""Which kernels compute attention, with a package that stands in for FlashAttention 4; on a GPU with it itself."""

import importlib.machinery
import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor

from z1g.core.errors import UserError
from z1g.networks import attention_kernels
from z1g.networks.attention_kernels import attention


def exact(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by its definition, in float64: heads [B,N,heads,D]."""
    query, key, value = (x.double().transpose(1, 2) for x in (query, key, value))
    shares = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(dim=3)
    return (shares @ value).transpose(1, 2)


def heads(*sizes: int, width: int = 64, dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, n, 3, width, generator=generator).to(device, dtype) for n in sizes]


class Flash4(types.ModuleType):
    """In place of `flash_attn.cute`. Some versions return the normalizers, too."""

    def __init__(self, pair: bool) -> None:
        super().__init__("flash_attn.cute")
        self.__spec__ = importlib.machinery.ModuleSpec("flash_attn.cute", None)
        self.pair, self.calls = pair, 0

    def flash_attn_func(self, query: Tensor, key: Tensor, value: Tensor) -> Any:
        self.calls += 1
        result = exact(query, key, value).to(query.dtype)
        return (result, None) if self.pair else result


@pytest.fixture(params=[False, True], ids=["output", "output and normalizers"])
def flash4(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Flash4:
    fake, around = Flash4(request.param), types.ModuleType("flash_attn")
    around.__spec__ = importlib.machinery.ModuleSpec("flash_attn", None, is_package=True)
    around.__path__ = []
    monkeypatch.setitem(sys.modules, "flash_attn", around)
    monkeypatch.setitem(sys.modules, "flash_attn.cute", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(attention_kernels, "probe_flash4", lambda device: None)
    return fake


def test_torch_computes_attention() -> None:
    query, key, value = heads(5, 7, 7)
    torch.testing.assert_close(attention(query, key, value).double(), exact(query, key, value), atol=1e-5, rtol=0)


def test_flash4_is_used_for_half_precision_with_heads_it_has_kernels_for(flash4: Flash4) -> None:
    for dtype, width, used in (
        (torch.bfloat16, 64, 1), (torch.float16, 128, 1), (torch.bfloat16, 136, 0), (torch.bfloat16, 20, 0),
        (torch.float32, 64, 0),
    ):  # fmt: skip
        before, given = flash4.calls, heads(5, 7, 7, width=width, dtype=dtype)
        out = attention(*given, package="flash4")
        assert flash4.calls - before == used
        torch.testing.assert_close(out.double(), exact(*given), atol=2e-2, rtol=0)
    before = flash4.calls
    attention(*heads(5, 7, 7, dtype=torch.bfloat16))
    assert flash4.calls == before, "not where it was not chosen"


@pytest.mark.usefixtures("flash4")
def test_a_package_is_selected_during_a_block() -> None:
    with attention_kernels.kernels("flash4"):
        assert attention_kernels.package() == "flash4"
        with attention_kernels.kernels("cudnn"):
            assert attention_kernels.package() == "flash4", "a list of torch's kernels is for what others do not do"
    assert attention_kernels.package() == ""


def test_flash4_where_it_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    monkeypatch.delitem(sys.modules, "flash_attn.cute", raising=False)
    with pytest.raises(UserError, match=r"flash4 is not installed: pip install 'z1g\[flash4\]', or choose auto"):
        attention_kernels.require("flash4")
    fake, around = Flash4(pair=False), types.ModuleType("flash_attn")
    around.__spec__, around.__path__ = importlib.machinery.ModuleSpec("flash_attn", None, is_package=True), []
    monkeypatch.setitem(sys.modules, "flash_attn", around)
    monkeypatch.setitem(sys.modules, "flash_attn.cute", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="flash4 needs a GPU with CUDA"):
        attention_kernels.require("flash4")

    def old(*_: Tensor) -> Tensor:
        raise RuntimeError("compute capability 8.0 is not supported\nand more")

    monkeypatch.setattr(fake, "flash_attn_func", old)
    attention_kernels.probe_flash4.cache_clear()
    with pytest.raises(UserError, match=r"on this GPU \(compute capability 8.0 is not supported\); it needs a Hopper"):
        attention_kernels.probe_flash4("cpu")


@pytest.mark.parametrize("quiet", [torch.inference_mode, torch.no_grad])
def test_flash4_is_tried_with_gradients(quiet: Any, flash4: Flash4, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backward pass is another kernel; sampling, which asks first, computes no gradients."""
    monkeypatch.undo()
    for name, module in (("flash_attn", types.ModuleType("flash_attn")), ("flash_attn.cute", flash4)):
        monkeypatch.setitem(sys.modules, name, module)
    asked: list[bool] = []
    monkeypatch.setattr(Flash4, "flash_attn_func", lambda _, q, k, v: asked.append(q.requires_grad) or (q + k + v))
    attention_kernels.probe_flash4.cache_clear()
    with quiet():
        attention_kernels.probe_flash4("cpu")
    assert asked == [True]


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("tokens", [77, 600, 700])
def test_flash4_on_a_gpu(tokens: int) -> None:
    """Values and gradients against the definition in float64; relative errors of whole tensors."""
    pytest.importorskip("flash_attn.cute")
    given = [x.requires_grad_(True) for x in heads(600, tokens, tokens, dtype=torch.bfloat16, device="cuda")]
    out = attention(*given, package="flash4")
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    found = torch.autograd.grad(out, given, upstream)
    twins = [x.detach().double().requires_grad_(True) for x in given]
    expected = exact(*twins)
    wanted = torch.autograd.grad(expected, twins, upstream.double())
    for actual, right in zip([out, *found], [expected, *wanted], strict=True):
        assert float((actual.double() - right).norm() / right.norm()) < 1e-2
