"""Utilities for benchmarks: device and versions, timing, memory, and time limits."""

import gc
import importlib.metadata
import logging
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

PACKAGES = ("torch", "numba", "gsplat")
MIB = 2**20
TERA = 1e12
log = logging.getLogger("z1g")


def device_name(device: str) -> str:
    """Name of the GPU or processor."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of installed packages that determine speed."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def matmul_rate(device: torch.device) -> float:
    """TFLOP/s of large bf16 matrix products."""
    side, repeats = (8192, 20) if device.type == "cuda" else (256, 3)
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    b = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / TERA / timed(lambda _: a @ b, repeats, device, warm_up=5)


def timed(run: Callable[[int], object], repeats: int, device: torch.device, warm_up: int = 0) -> float:
    """Mean seconds per call over `repeats` calls, after `warm_up` calls."""
    for i in range(warm_up):
        run(i)
    synchronize(device)
    began = time.perf_counter()
    for i in range(warm_up, warm_up + repeats):
        run(i)
    synchronize(device)
    return (time.perf_counter() - began) / repeats


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished; does nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_mib(device: torch.device) -> int | None:
    """Peak GPU memory in MiB since the last `clean`; None on a CPU."""
    return round(torch.cuda.max_memory_allocated(device) / MIB) if device.type == "cuda" else None


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds`. Works in the main thread only, since it uses a signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"stopped after {seconds:.0f} s; raise --seconds")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def guarded(
    name: str, run: Callable[[], dict[str, Any]], device: torch.device, until: float = float("inf")
) -> dict[str, Any]:  # fmt: skip
    """Run a measurement and return its figures, or its error, so that one failure does not affect other measurements.

    It is stopped at `until` (`time.perf_counter`) and not started after that.
    """
    clean(device)
    began = time.perf_counter()
    try:
        if began >= until:
            raise TimeoutError("no time left; raise --seconds")
        with _at_most(min(until - began, 3600.0)):
            row = {"name": name, **run()}
    except Exception as error:
        row = {
            "name": name,
            "error": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}",
        }
    row["wall_s"] = round(time.perf_counter() - began, 1)
    log.info("%s", row)
    clean(device)
    return row


def clean(device: torch.device) -> None:
    """Free cached GPU memory and reset the peak."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
