"""Averages of gradients over the ranks: values, buckets, and steps without them."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from z1g.training import gradients
from z1g.training.gradients import average, buckets
from z1g.training.passes import ReplayedPasses


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What rank 0 sends; the other of two ranks has three times its gradients."""
    flats: list[Tensor] = []

    def all_reduce(flat: Tensor) -> None:
        flats.append(flat.clone())
        flat *= 4

    monkeypatch.setattr(gradients.torch.distributed, "broadcast", lambda tensor, source: None)
    monkeypatch.setattr(gradients.torch.distributed, "all_reduce", all_reduce)
    return flats


def test_ranks_average_their_gradients(sent: list[Tensor]) -> None:
    """Two ranks with gradients g and 3g get 2g, for any memory format."""
    mine = [torch.randn(3, 2, 3, 3), torch.randn(3), torch.randn(5, 4), torch.randn(5)]
    mine[0] = mine[0].contiguous(memory_format=torch.channels_last)
    expected = [2 * gradient for gradient in mine]
    average(mine, 2, bucket_size=60)
    torch.testing.assert_close(mine, expected)
    assert mine[0].is_contiguous(memory_format=torch.channels_last)
    assert [len(flat) for flat in sent] == [57, 25]


def test_buckets_keep_order_and_bounds() -> None:
    tensors = [torch.zeros(n) for n in (5, 2**25, 3, 2)]
    assert [[len(t) for t in group] for group in buckets(tensors)] == [[5], [2**25], [3, 2]]


def test_replayed_passes_average_unless_alone(sent: list[Tensor]) -> None:
    class Linear(torch.nn.Linear):
        def prepare(self, batch: Any) -> Any:
            return batch

        def forward(self, batch: Any) -> Any:
            return {"loss": super().forward(batch["x"]).sum()}

    accelerator: Any = SimpleNamespace(
        num_processes=2, device=torch.device("cpu"), autocast=lambda: torch.autocast("cpu", enabled=False)
    )
    layer = Linear(3, 1, bias=False)
    passes = ReplayedPasses(layer, accelerator)
    batch = {"x": torch.tensor([[1.0, 2.0, 3.0]])}
    passes(batch)
    torch.testing.assert_close(layer.weight.grad, 2 * batch["x"])
    layer.zero_grad()
    with passes.alone():
        passes(batch)
    torch.testing.assert_close(layer.weight.grad, batch["x"])
    layer.zero_grad()
    passes(batch)
    assert len(sent) == 2
