"""The limit of a process's GPU memory, with a stand-in for the GPU."""

from types import SimpleNamespace

import pytest
import torch

from z1g.core import device as own
from z1g.core.device import free_gpu_memory, limit_gpu_memory


@pytest.mark.parametrize(("gigabytes", "fraction"), [(24, 0.3), (80, 1.0), (141, 1.0)])
def test_memory_is_limited_in_units_of_a_billion_bytes(
    gigabytes: int, fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a GPU of 80 GB."""
    asked = []
    monkeypatch.setattr(own, "_limits", {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80_000_000_000))
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: asked.append((share, device))
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (50_000_000_000, 80_000_000_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 7_000_000_000)
    assert free_gpu_memory(torch.device("cuda", 0)) == 50_000_000_000
    limit_gpu_memory(gigabytes)
    assert free_gpu_memory(torch.device("cuda", 0)) == min(50, gigabytes - 7) * 1_000_000_000
    assert asked == [(pytest.approx(fraction), torch.device("cuda", 0))]


def test_nothing_is_limited_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    limit_gpu_memory(24)
