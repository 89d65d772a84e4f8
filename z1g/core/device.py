"""The device and the number of threads of a job."""

import importlib.util
import os

import torch

MIN_CAPABILITY = (8, 0)
"""Least compute capability for kernels of Triton: Ampere is the first architecture with bfloat16 arithmetic."""
_limits: dict[torch.device, int] = {}
"""Bytes that this process may allocate of a GPU."""


def use_threads(threads: int) -> None:
    """Set the number of threads of torch, which the CPU rasterizer also uses; 0 keeps torch's default."""
    if threads > 0:
        torch.set_num_threads(threads)


def default_device() -> torch.device:
    """The GPU of this process, by its local rank, or the CPU where there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def runs_triton(device: torch.device) -> bool:
    """Whether kernels of Triton can run on this device."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= MIN_CAPABILITY


def limit_gpu_memory(gigabytes: int) -> None:
    """Let this process allocate so many GB (10⁹ bytes) of its GPU at most, and not more than it has."""
    device = default_device()
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total), device)
        _limits[device] = int(gigabytes * 1e9)


def free_gpu_memory(device: torch.device) -> int:
    """Bytes of a GPU that this process may still allocate, within `limit_gpu_memory`."""
    free: int = torch.cuda.mem_get_info(device)[0]
    if device not in _limits:
        return free
    return max(0, min(free, _limits[device] - torch.cuda.memory_reserved(device)))
