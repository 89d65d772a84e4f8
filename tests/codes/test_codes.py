"""Code books: optimized codes against PyTorch's Adam, codes of the encoder, and cached codes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor

from z1g.codes.book import EncodedBook, FixedBook, OptimizedBook
from z1g.codes.cache import CachedCodes
from z1g.codes.encoder import EncoderCodes
from z1g.codes.optimized import OptimizedCodes
from z1g.core.errors import UserError

SHAPE = (2, 3, 2)
VISITS = [[0, 2], [1, 2], [0, 1], [2, 0], [1, 2], [0, 2], [2, 2]]


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def no_encoder(how: str) -> Tensor:
    raise AssertionError("this book must not call the encoder")


def book(**options: Any) -> OptimizedBook:
    codes = OptimizedCodes(**{"start": "uniform", "lr": 0.03, **options}).book(["a", "b", "c"], SHAPE)
    assert isinstance(codes, OptimizedBook)
    return codes.train()


def visit(codes: OptimizedBook, index: list[int], accelerator: Accelerator, step: int) -> None:
    loss_of(codes.lookup(torch.tensor(index), no_encoder), step).backward()
    codes.after_backward(accelerator)


def loss_of(code: Tensor, step: int) -> Tensor:
    target = torch.randn(SHAPE, generator=torch.Generator().manual_seed(step)).to(code)
    return ((code - target) ** 2).sum() + (code**3).sum()


def test_adam_is_torchs(accelerator: Accelerator) -> None:
    ours = book()
    theirs = [ours.codes[i].clone().requires_grad_(True) for i in range(3)]
    optimizers = [torch.optim.Adam([code], lr=0.03) for code in theirs]
    for step, index in enumerate(VISITS):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss_of(torch.stack([theirs[i] for i in index]), step).backward()
        for i in set(index):
            optimizers[i].step()
        visit(ours, index, accelerator, step)
    torch.testing.assert_close(ours.codes, torch.stack(theirs).detach(), atol=2e-6, rtol=0)
    assert ours.visits.tolist() == [4, 3, 6]


def test_codes_of_objects_outside_the_batch_are_unchanged(accelerator: Accelerator) -> None:
    ours = book()
    before = ours.codes.clone()
    visit(ours, [0, 2], accelerator, 0)
    torch.testing.assert_close(ours.codes[1], before[1], atol=0, rtol=0)
    assert not torch.equal(ours.codes[0], before[0])


def test_micro_batches_add_up(accelerator: Accelerator) -> None:
    whole, pieces = book(), book()
    for step, index in enumerate(VISITS):
        visit(whole, index, accelerator, step)
        for i in index:
            loss_of(pieces.lookup(torch.tensor([i]), no_encoder), step).backward()
        pieces.after_backward(accelerator)
    torch.testing.assert_close(pieces.codes, whole.codes, atol=1e-6, rtol=0)


def test_reset_is_the_original_s(accelerator: Accelerator) -> None:
    """Adam's first step is lr·sign(gradient); with the original's bug every step is a first step."""
    ours = book(reset_optimizer=True)
    for step in range(4):
        code = ours.lookup(torch.tensor([1]), no_encoder)
        before = ours.codes[1].clone()
        loss_of(code, step).backward()
        ours.after_backward(accelerator)
        torch.testing.assert_close(ours.codes[1] - before, -0.03 * code.grad[0].sign(), atol=1e-5, rtol=0)


def test_a_gradient_that_is_not_finite_is_left_out(accelerator: Accelerator) -> None:
    ours = book()
    before = ours.codes.clone()
    code = ours.lookup(torch.tensor([0, 1]), no_encoder)
    (code * torch.tensor([float("nan"), 1.0])[:, None, None, None]).sum().backward()
    ours.after_backward(accelerator)
    torch.testing.assert_close(ours.codes[0], before[0], atol=0, rtol=0)
    assert not torch.equal(ours.codes[1], before[1])
    assert bool(ours.codes.isfinite().all())


def test_uniform_start() -> None:
    codes = book(seed=1).codes
    assert codes.abs().max() <= 1e-4
    assert codes.abs().max() > 5e-5
    assert not torch.equal(codes, book(seed=2).codes)


def test_encoder_start_happens_once(accelerator: Accelerator) -> None:
    ours = book(start="encoder")
    calls: list[str] = []

    def encode(how: str) -> Tensor:
        calls.append(how)
        return torch.stack([torch.full(SHAPE, float(i + 1)) for i in (0, 2)])

    code = ours.lookup(torch.tensor([0, 2]), encode)
    torch.testing.assert_close(code.detach(), encode("object"))
    (code * 2).sum().backward()
    ours.after_backward(accelerator)
    moved = ours.lookup(torch.tensor([0, 2]), no_encoder).detach()
    torch.testing.assert_close(moved, encode("object") - 0.03)
    assert set(calls) == {"object"}, "the initial code does not depend on the batch"
    assert ours.codes[1].abs().max() <= 1e-4, "not in a batch yet"


def test_lookup_without_training_changes_no_state(accelerator: Accelerator) -> None:
    ours = book()
    ours.eval()
    assert not ours.lookup(torch.tensor([0]), no_encoder).requires_grad
    ours.train()
    with torch.no_grad():
        ours.lookup(torch.tensor([0]), no_encoder)
    visit(ours, [1], accelerator, 0)
    assert ours.visits.tolist() == [0, 1, 0]


def test_state_is_saved_and_restored(accelerator: Accelerator) -> None:
    ours, restored = book(), book(seed=9)
    for step, index in enumerate(VISITS[:4]):
        visit(ours, index, accelerator, step)
    restored.load_state_dict(ours.state_dict())
    for step, index in enumerate(VISITS[4:], 4):
        visit(ours, index, accelerator, step)
        visit(restored, index, accelerator, step)
    torch.testing.assert_close(restored.codes, ours.codes, atol=0, rtol=0)


def test_saved_state_is_a_copy(accelerator: Accelerator) -> None:
    ours = book()
    saved = {name: value.clone() for name, value in ours.get_extra_state().items()}
    state = ours.state_dict()
    visit(ours, [0], accelerator, 0)
    torch.testing.assert_close(state["_extra_state"]["codes"], saved["codes"], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("sample", "training", "how"), [(True, True, "sample"), (True, False, "mean"), (False, True, "mean")]
)
def test_encoded_codes(sample: bool, training: bool, how: str) -> None:
    codes = EncoderCodes(sample=sample).book(["a"], SHAPE)
    assert isinstance(codes, EncodedBook)
    calls: list[str] = []
    codes.train(training).lookup(torch.tensor([0]), lambda kind: calls.append(kind) or torch.zeros(1, *SHAPE))
    assert calls == [how]


def test_cached_codes(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    save_file({name: torch.full(SHAPE, float(i)) for i, name in enumerate("abc")}, path)
    source = CachedCodes(path=str(path))
    source.check()
    codes = source.book(["c", "a"], SHAPE)
    assert isinstance(codes, FixedBook)
    assert codes.lookup(torch.tensor([1, 0]), no_encoder)[:, 0, 0, 0].tolist() == [0, 2]


def test_cache_mistakes_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"autodecoder\.codes\.path"):
        CachedCodes().check()
    with pytest.raises(UserError, match=r"nowhere\.safetensors is not a file"):
        CachedCodes(path=str(tmp_path / "nowhere.safetensors")).check()
    path = tmp_path / "codes.safetensors"
    save_file({"a": torch.zeros(SHAPE)}, path)
    with pytest.raises(UserError, match="no code for b and 1 more"):
        CachedCodes(path=str(path)).book(["a", "b", "c"], SHAPE)


def test_cache_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    save_file({"a": torch.zeros(SHAPE)}, path)
    with pytest.raises(UserError, match=r"2, 3, 2.*4, 6, 4"):
        CachedCodes(path=str(path)).book(["a"], (4, 6, 4))


def test_a_broken_cache_is_named(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(UserError, match=r"codes\.safetensors"):
        CachedCodes(path=str(path)).book(["a"], SHAPE)
