"""Which device and how many threads a job uses."""

import torch


def use_threads(threads: int) -> None:
    """Let torch (and the CPU rasterizer, which asks torch) use this many threads; 0 leaves torch's choice."""
    if threads > 0:
        torch.set_num_threads(threads)


def default_device() -> torch.device:
    """The GPU that the job was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
