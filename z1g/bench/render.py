"""Benchmark of rasterizers: time and memory, also compared with each other."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from z1g.bench.machine import MIB, device_name, versions
from z1g.core.errors import UserError
from z1g.core.slots import kinds
from z1g.gaussians import ply
from z1g.gaussians.channels import join, split
from z1g.geometry.camera import CameraOptions, Cameras, orbit_c2w
from z1g.render import Rasterizer
from z1g.render.reference import Reference

TORCH = "torch"
"""Name of the float32 rasterizer in plain torch, which is used if numba is missing."""
BARE_GSPLAT = "bare_gsplat"
"""Name of gsplat called directly on contiguous tensors, to measure the cost of the wrapper."""
LOOPED = "looped"
"""Name, for comparisons, of the first rasterizer with one call an object instead of one call for all."""
WARM_UP_SPLATS, WARM_UP_SIZE = 64, 16
"""A small scene that loads or compiles the kernels."""
PROC = Path("/proc/self")

Draw = Callable[[], Tensor]
"""Renders all views of all objects and returns the sum of all images."""


@dataclass(frozen=True)
class _Subject:
    """A rasterizer with a scene: the function to call, and the tensors that get gradients."""

    draw: Draw
    leaves: list[Tensor]

    def run(self, *, backward: bool) -> None:
        with torch.set_grad_enabled(backward):
            total = self.draw()
        if backward:
            for leaf in self.leaves:
                leaf.grad = None
            total.backward()


def measure(
    backend: str, splats: int, size: int, views: int, repeats: int,
    device: str | None = None, against: str | None = None, file: Path | None = None, objects: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Time a rasterizer on synthetic objects of `splats` Gaussians, or on a `.ply` file, with `views` images of each.

    Images have size² pixels. The synthetic object is opaque everywhere, whereas more than half of the pixels of a
    fitted object are background with transparent Gaussians.

    All `objects`, which are copies of a file, are rendered in one call. forward_ms and forward_backward_ms are medians
    over `repeats` times with all views of all objects; divide by `objects * views` for the time per view.
    extra_memory_mib is the peak memory of forward and backward beyond the inputs, None if the system does not report
    it. `against` names a second rasterizer, or `looped` for the first one with a call an object; it alternates with the
    first. `ratio` is the time of the first divided by that of the second. Raises UserError for an unknown rasterizer, a
    missing file, or a device that does not exist.
    """
    device = _default_device(backend) if device is None else _existing(device)
    if file is not None and not file.is_file():
        raise UserError(f"{file} is not a file")
    gaussians = _objects(objects, splats) if file is None else ply.read(file, np.eye(4)).expand(objects, -1, -1)
    rivals = [(backend, False), *([(backend, True) if against == LOOPED else (against, False)] if against else [])]
    figures: list[dict[str, Any]] = []
    subjects = []
    for name, looped in rivals:
        _subject(name, _objects(1, WARM_UP_SPLATS), WARM_UP_SIZE, 1, device).run(backward=True)
        subject = _subject(name, gaussians, size, views, device, looped=looped)
        # Memory is measured first, since the allocator keeps freed memory and would hide a peak later.
        figures.append({"extra_memory_mib": _extra_memory_mib(partial(subject.run, backward=True), device)})
        subjects.append(subject)
    for key, backward in (("forward_ms", False), ("forward_backward_ms", True)):
        for row, milliseconds in zip(figures, _medians_ms(subjects, backward, repeats, device), strict=True):
            row[key] = milliseconds
    scene = {"splats": gaussians.shape[1], "file": None if file is None else file.name}
    scene |= {"objects": objects, "size": size, "views": views}
    result = {"backend": backend, **scene, "repeats": repeats, **figures[0]}
    if against:
        ratio = {key: figures[0][key + "_ms"] / figures[1][key + "_ms"] for key in ("forward", "forward_backward")}
        result |= {"against": {"backend": against, **figures[1]}, "ratio": ratio}
    return result | {"device": device_name(device), "threads": torch.get_num_threads(), "versions": versions()}


def _default_device(backend: str) -> str:
    return "cuda" if torch.cuda.is_available() and backend != "cpu" else "cpu"


def _existing(name: str) -> str:
    """The name of a device that this machine has."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name!r}: give cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name!r}: give cpu or cuda")
    if device.type == "cuda" and not 0 <= (device.index or 0) < torch.cuda.device_count():
        raise UserError(f"--device {name!r}: there are {torch.cuda.device_count()} GPUs here")
    return name


def _subject(backend: str, scene: Tensor, size: int, views: int, device: str, *, looped: bool = False) -> _Subject:
    if looped:
        return _one_by_one([_subject(backend, part, size, views, device) for part in scene.split(1)])
    gaussians, cameras = scene.to(device, copy=True), _cameras(len(scene), views, size, device)
    if backend == BARE_GSPLAT:
        return _bare_gsplat(gaussians, cameras)
    rasterizer = _rasterizer(backend)
    leaf = gaussians.requires_grad_(True)

    def draw() -> Tensor:
        output = rasterizer.render(leaf, cameras)
        return output.rgb.sum() + output.alpha.sum() + output.depth.sum()

    return _Subject(draw, [leaf])


def _one_by_one(parts: list[_Subject]) -> _Subject:
    def draw() -> Tensor:
        return torch.stack([part.draw() for part in parts]).sum()

    return _Subject(draw, [leaf for part in parts for leaf in part.leaves])


def _rasterizer(backend: str) -> Rasterizer:
    if backend == TORCH:
        return Reference(precision="float32")
    available: dict[str, type[Rasterizer]] = kinds(Rasterizer)  # type: ignore[type-abstract]
    if backend not in available:
        raise UserError(f"no rasterizer '{backend}'; available are {', '.join([*available, TORCH, BARE_GSPLAT])}")
    return available[backend]()


def _bare_gsplat(gaussians: Tensor, cameras: Cameras) -> _Subject:
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise UserError(f"'{BARE_GSPLAT}' needs the package: pip install 'z1g[gpu]'") from error
    parts = {name: part.contiguous().requires_grad_(True) for name, part in split(gaussians, dim=2).items()}
    opacity = parts["opacity"][..., 0].detach().contiguous().requires_grad_(True)
    parts["opacity"] = opacity
    w2c = cameras.world_to_camera().contiguous()
    intrinsics = cameras.intrinsics()

    def draw() -> Tensor:
        image, alpha, _ = rasterization(
            means=parts["position"], quats=parts["rotation"], scales=parts["scale"], opacities=opacity,
            colors=parts["rgb"], viewmats=w2c, Ks=intrinsics, width=cameras.width, height=cameras.height,
            render_mode="RGB+D", packed=False,
        )  # fmt: skip
        total: Tensor = image[..., :3].sum() + alpha.sum() + image[..., 3:].sum()
        return total

    return _Subject(draw, list(parts.values()))


def _objects(n: int, splats: int) -> Tensor:
    """Activated Gaussians [n,splats,14] on spheres of radius 0.4, with overlapping neighbors."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(n, splats, 14, generator=draw)
    spacing = (4 * torch.pi * 0.4**2 / splats) ** 0.5
    return join(
        {
            "position": 0.4 * torch.nn.functional.normalize(noise[..., 0:3], dim=-1),
            "opacity": 0.5 + 0.49 * torch.sigmoid(noise[..., 3:4]),
            "scale": spacing * torch.exp(0.5 * noise[..., 4:7]),
            "rotation": torch.nn.functional.normalize(noise[..., 7:11], dim=-1),
            "rgb": torch.sigmoid(noise[..., 11:14]),
        },
        dim=2,
    )


def _cameras(objects: int, views: int, size: int, device: str) -> Cameras:
    defaults = CameraOptions()
    poses = [torch.from_numpy(orbit_c2w(20.0, 360.0 * i / views, defaults.radius)) for i in range(views)]
    return Cameras(torch.stack(poses).float().repeat(objects, 1, 1, 1), defaults.fov_y_deg, size, size).to(device)


def _medians_ms(subjects: list[_Subject], backward: bool, repeats: int, device: str) -> list[float]:
    """Median milliseconds of each subject. Calls alternate, so that other load on the machine affects all equally."""
    times: list[list[float]] = [[] for _ in subjects]
    for _ in range(repeats):
        for subject, row in zip(subjects, times, strict=True):
            _wait(device)
            start = time.perf_counter()
            subject.run(backward=backward)
            _wait(device)
            row.append(1000 * (time.perf_counter() - start))
    return [statistics.median(row) for row in times]


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
        # On Linux, writing 5 resets the peak resident memory.
        (PROC / "clear_refs").write_text("5")
    except OSError:
        return None
    before = _status_kib("VmRSS")
    work()
    return (_status_kib("VmHWM") - before) / 1024


def _status_kib(key: str) -> int:
    lines = (PROC / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))
