"""What a measurement ran on."""

import importlib.metadata
import platform

import torch

PACKAGES = ("torch", "numba", "gsplat")
MIB = 2**20


def device_name(device: str) -> str:
    """Name of the GPU, or of the processor's family."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide speed, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
