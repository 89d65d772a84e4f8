"""Renders meshes one after another with OpenGL, as a child process. `python -m z1g.meshes.raster.worker`

It has the same protocol as Blender's script, `z1g/meshes/blender/render_views.py`: a line with the settings, a line
for each object, and a folder of results for each. The settings are resolution, samples, triangles (limit of an object),
lighting (ambient, occlusion, suns: each [direction [3], strength]), fov_y_deg, depth_views, normals, memory_mb, and
up_axis if it is not that of the format. Cameras are c2w [V][4][4], y-up world, OpenCV axes.
"""

import contextlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from z1g.data.png import encode_rgba
from z1g.meshes.raster.context import NoOpenGL
from z1g.meshes.raster.draw import Drawing, Rasterizer
from z1g.meshes.raster.programs import Sun
from z1g.meshes.raster.reading import read_mesh
from z1g.meshes.raster.scene import MeshError, normalized

MIB = 2**20
BLANK = "blank: every view is empty; the materials are transparent or no face has an area"


def main() -> None:
    """Process stdin line by line."""
    with open(0, encoding="utf-8", closefd=False) as lines:
        settings = json.loads(next(lines))
        _limit_memory(settings["memory_mb"] * MIB)
        try:
            rasterizer = start(settings)
        except NoOpenGL as error:
            announce(f"unable {error}")
            return
        announce("up")
        for line in lines:
            item = json.loads(line)
            finish(item, settings, rasterizer)
            announce(f"done {item['id']}")


def start(settings: dict[str, Any]) -> Rasterizer:
    """The rasterizer for these settings. Raises NoOpenGL."""
    lighting = settings["lighting"]
    suns = [Sun(tuple(direction), strength) for direction, strength in lighting["suns"]]
    return Rasterizer(settings["resolution"], settings["samples"], lighting["ambient"], suns, lighting["occlusion"])


def finish(item: dict[str, Any], settings: dict[str, Any], rasterizer: Rasterizer) -> None:
    """Render one object into its folder; `result.json` is written last."""
    folder, seconds = Path(item["folder"]), dict[str, float]()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        result = {"reason": None, **render_object(item, settings, rasterizer, folder, seconds)}
    except MeshError as rejected:
        result = {"reason": str(rejected)}
    except MemoryError:
        result = {"reason": f"out of memory on this object; the limit is {settings['memory_mb']} MiB"}
    rounded = {part: round(value, 4) for part, value in seconds.items()}
    (folder / "result.tmp").write_text(
        json.dumps(result | {"seconds": rounded, "resident_mb": _resident_mb()}), "utf-8"
    )
    os.replace(folder / "result.tmp", folder / "result.json")


def render_object(
    item: dict[str, Any], settings: dict[str, Any], rasterizer: Rasterizer, folder: Path, seconds: dict[str, float]
) -> dict[str, Any]:
    """Read, check, normalize and render one object. Raises MeshError."""
    with _timed(seconds, "import"):
        parts, up_axis = read_mesh(Path(item["path"]), settings["triangles"])
        parts, normalization = normalized(parts, settings.get("up_axis") or up_axis)
    with rasterizer.load(parts) as drawing:
        _write_images(drawing, item["cameras"], settings, folder, seconds)
        with _timed(seconds, "depth"):
            _write_geometry(drawing, item["cameras"], settings, folder)
    return {
        "n_triangles": sum(len(part.triangles) for part in parts),
        "normalization": asdict(normalization),
        "renderer": f"raster, {rasterizer.renderer}",
    }


def _write_images(
    drawing: Drawing, cameras: list[Any], settings: dict[str, Any], folder: Path, seconds: dict[str, float]
) -> None:
    seen = False
    for view, c2w in enumerate(cameras):
        with _timed(seconds, "render"):
            image = drawing.image(np.array(c2w), settings["fov_y_deg"])
        with _timed(seconds, "write"):
            seen = seen or bool(image[..., 3].any())
            (folder / f"{view:03d}.png").write_bytes(encode_rgba(image))
    if not seen:
        raise MeshError(BLANK)


def _write_geometry(drawing: Drawing, cameras: list[Any], settings: dict[str, Any], folder: Path) -> None:
    views = [drawing.geometry(np.array(cameras[view]), settings["fov_y_deg"]) for view in settings["depth_views"]]
    np.save(folder / "depth.npy", np.stack([depth for depth, _ in views]), allow_pickle=False)
    if settings["normals"]:
        np.save(folder / "normals.npy", np.stack([normals for _, normals in views]), allow_pickle=False)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    before = time.perf_counter()
    try:
        yield
    finally:
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - before


def _limit_memory(limit: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _resident_mb() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else MIB)


def announce(line: str) -> None:
    """Write one line of the protocol."""
    sys.stdout.write(f"\nz1g {' '.join(line.split())}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)  # drivers' exit handlers sometimes hang
