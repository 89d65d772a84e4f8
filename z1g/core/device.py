"""Which device and how many threads a job uses."""

import os

import torch


def use_threads(threads: int) -> None:
    """Let torch (and the CPU rasterizer, which asks torch) use this many threads; 0 leaves torch's choice."""
    if threads > 0:
        torch.set_num_threads(threads)


def default_device() -> torch.device:
    """The GPU that the job, or this rank of it, was given, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
