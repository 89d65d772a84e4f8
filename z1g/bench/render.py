"""How fast the splat rasterizers are, and how much memory they take."""

import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from z1g.camera import CameraOptions, Cameras, orbit_c2w
from z1g.config.slot import kinds
from z1g.errors import UserError
from z1g.render import Rasterizer
from z1g.render.reference import Reference
from z1g.splat import join

TORCH = "torch"
"""Name of the plain torch path at float32, which serves where numba is missing."""
PACKAGES = ("torch", "numba", "gsplat")
WARM_UP_SPLATS, WARM_UP_SIZE = 64, 16
"""A scene that loads or compiles the kernels and takes no memory to speak of."""
MIB = 2**20
PROC = Path("/proc/self")


def measure(backend: str, splats: int, size: int, views: int, repeats: int, device: str) -> dict[str, Any]:
    """Time one rasterizer on a trained-like object: `splats` Gaussians, `views` pictures of size² pixels a call.

    forward_ms and forward_backward_ms are medians over `repeats` calls and for all views of a call; divide by `views`
    for one view. extra_memory_mib is the peak of forward and backward above what the inputs take, None where the
    system does not tell.
    """
    rasterizer = _rasterizer(backend)
    _draw(rasterizer, _object(WARM_UP_SPLATS, device), _cameras(1, WARM_UP_SIZE, device), backward=True)
    arguments = rasterizer, _object(splats, device), _cameras(views, size, device)
    # Memory comes first: afterwards the allocator keeps what it has, and a peak would not show.
    extra_memory_mib = _extra_memory_mib(lambda: _draw(*arguments, backward=True), device)
    return {
        "backend": backend,
        "splats": splats,
        "size": size,
        "views": views,
        "repeats": repeats,
        "forward_ms": _median_ms(lambda: _draw(*arguments, backward=False), repeats, device),
        "forward_backward_ms": _median_ms(lambda: _draw(*arguments, backward=True), repeats, device),
        "extra_memory_mib": extra_memory_mib,
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "versions": _versions(),
    }


def _rasterizer(backend: str) -> Rasterizer:
    if backend == TORCH:
        return Reference(precision="float32")
    known: dict[str, type[Rasterizer]] = kinds(Rasterizer)  # type: ignore[type-abstract]
    if backend not in known:
        raise UserError(f"no rasterizer is called '{backend}'; there are {', '.join([*known, TORCH])}")
    return known[backend]()


def _draw(rasterizer: Rasterizer, gaussians: Tensor, cameras: Cameras, *, backward: bool) -> None:
    with torch.set_grad_enabled(backward):
        output = rasterizer.render(gaussians, cameras)
    if backward:
        gaussians.grad = None
        (output.rgb.sum() + output.alpha.sum() + output.depth.sum()).backward()


def _object(splats: int, device: str) -> Tensor:
    """Activated Gaussians [1,splats,14] on a sphere of radius 0.4, sized so that neighbours overlap."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(1, splats, 14, generator=draw)
    spacing = (4 * torch.pi * 0.4**2 / splats) ** 0.5
    gaussians = join(
        {
            "position": 0.4 * torch.nn.functional.normalize(noise[..., 0:3], dim=-1),
            "opacity": 0.5 + 0.49 * torch.sigmoid(noise[..., 3:4]),
            "scale": spacing * torch.exp(0.5 * noise[..., 4:7]),
            "rotation": torch.nn.functional.normalize(noise[..., 7:11], dim=-1),
            "rgb": torch.sigmoid(noise[..., 11:14]),
        },
        dim=2,
    )
    return gaussians.to(device).requires_grad_(True)


def _cameras(views: int, size: int, device: str) -> Cameras:
    defaults = CameraOptions()
    poses = [torch.from_numpy(orbit_c2w(20.0, 360.0 * i / views, defaults.radius)) for i in range(views)]
    return Cameras(torch.stack(poses)[None].float(), defaults.fov_y_deg, size, size).to(device)


def _median_ms(work: Callable[[], object], repeats: int, device: str) -> float:
    times = []
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _extra_memory_mib(work: Callable[[], object], device: str) -> float | None:
    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    try:
        # Linux: 5 resets the process's peak to what it holds now.
        (PROC / "clear_refs").write_text("5")
    except OSError:
        return None
    before = _status_kib("VmRSS")
    work()
    return (_status_kib("VmHWM") - before) / 1024


def _status_kib(key: str) -> int:
    lines = (PROC / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
