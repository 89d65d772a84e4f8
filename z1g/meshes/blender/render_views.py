"""Renders meshes one after another. Runs inside Blender (4.2-5.0), as a script or through the `bpy` module.

    python render_views.py
    blender -b --factory-startup --python render_views.py

The script does not import z1g, because Blender has its own Python. It reads JSON lines from stdin. The first line has
the settings:

    resolution (pixels, square), samples, engine ("cycles" | "eevee"), device ("cpu" | "gpu"), threads, fov_y_deg
    lighting     fields of `z1g.meshes.lighting.Light`
    depth_views  indices of the views that also get depth
    normals      whether these views also get normals
    memory_mb    memory limit of this process, MiB
    cores        CPU cores to run on after startup; empty: leave the affinity unchanged

Each further line is an object: {id, path, roots, folder, cameras: [V][4][4] (matrix_world, z-up world, OpenGL camera
axes)}; an object that reads files outside of the roots is rejected.
The script writes to the object's folder `000.png`, ... (RGBA, 8-bit, straight alpha, sRGB), `depth.npy` (float32
[D,H,W], planar depth at pixel centers, 0 for background), `normals.npy` (float16 [D,H,W,3], y-up world) and, last, so
that its existence means that the object is finished, `result.json`:

    reason         null, or why the object was rejected (the other files are then incomplete)
    n_triangles    number of triangles rendered
    normalization  {center [3], scale, up_axis}, see `geometry.Normalization`
    renderer       Blender's version
    seconds        {import, render, write, depth}: import includes checks and scene setup, depth includes normals
    resident_mb    memory that this process uses afterwards

Lines on stdout: `z1g up`: the settings are supported; `z1g unable <why>`: they are not, and Blender exits;
`z1g done <id>`: an object is finished. All other lines are Blender's own output. Blender exits at the end of stdin.
"""

import json
import os
import resource
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bpy  # type: ignore[import-not-found,unused-ignore]
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # Blender's executable does not search this folder

from clock import Clock
from drawing import choose_gpu, light, render_images, set_up, try_eevee
from faults import MeshError, SettingsError
from framing import vertices_bound_everything
from geometry import UP_AXIS, normalize, surface
from importing import import_mesh
from passes import prepare_passes, render_depth, render_normals

MIB = 2**20
Work = Callable[[dict[str, Any], dict[str, Any], Path, Clock], dict[str, Any]]
"""Item, settings, folder and clock to the values of `result.json`."""


def serve(start: Callable[[dict[str, Any]], None], work: Work) -> None:
    """Process stdin line by line."""
    with open(0, encoding="utf-8", closefd=False) as lines:
        settings = json.loads(next(lines))
        try:
            start(settings)
        except SettingsError as error:
            announce(f"unable {error}")
            return
        announce("up")
        for line in lines:
            item = json.loads(line)
            finish(item, settings, work)
            announce(f"done {item['id']}")


def start(settings: dict[str, Any]) -> None:
    """Check before the first object that the settings are supported here. Raises SettingsError."""
    take_place(settings)
    light(**settings["lighting"])
    if settings["device"] == "gpu":
        choose_gpu()
    if settings["engine"] == "eevee":
        try_eevee()


def take_place(settings: dict[str, Any]) -> None:
    """Set the memory limit and the cores of this process, and reset the scene."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_DATA)
    limit = settings["memory_mb"] * MIB
    resource.setrlimit(
        resource.RLIMIT_DATA, (limit if hard_limit == resource.RLIM_INFINITY else min(limit, hard_limit), hard_limit)
    )
    empty_scene()
    free_cores(settings["cores"])


def free_cores(cores: list[int]) -> None:
    """Allow all threads to run on any of these cores. Blender sized its thread pools by the few cores at startup."""
    if cores:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), cores)


def finish(item: dict[str, Any], settings: dict[str, Any], work: Work) -> None:
    """Process one object into its folder; `result.json` is written last."""
    folder, clock = Path(item["folder"]), Clock()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        result = {"reason": None, **work(item, settings, folder, clock)}
    except MeshError as rejected:
        result = {"reason": str(rejected)}
    result |= {
        "seconds": {part: round(value, 4) for part, value in clock.seconds.items()},
        "resident_mb": resident_mb(),
    }
    (folder / "result.tmp").write_text(json.dumps(result), encoding="utf-8")
    os.replace(folder / "result.tmp", folder / "result.json")


def render_object(item: dict[str, Any], settings: dict[str, Any], folder: Path, clock: Clock) -> dict[str, Any]:
    """Import, check, normalize and render one object. Raises MeshError."""
    with clock("import"):
        empty_scene()
        path = Path(item["path"])
        up_axis = settings.get("up_axis") or UP_AXIS.get(path.suffix.lower(), "y")
        import_mesh(path, [Path(root) for root in item["roots"]], settings.get("up_axis"))
        points, n_triangles = surface()
        normalization, points = normalize(points, up_axis)
        bounds = points if vertices_bound_everything() else None
        set_up(settings)
    # EEVEE's effects read neighboring pixels.
    render_images(item["cameras"], bounds if settings["engine"] == "cycles" else None, folder, clock)
    cameras = [item["cameras"][view] for view in settings["depth_views"]]
    with clock("depth"):
        prepare_passes()
        np.save(folder / "depth.npy", render_depth(cameras, bounds, folder))
        if settings["normals"]:
            np.save(folder / "normals.npy", render_normals(cameras, bounds, folder))
    return {
        "n_triangles": n_triangles,
        "normalization": asdict(normalization),
        "renderer": f"Blender {bpy.app.version_string}",
    }


def empty_scene() -> None:
    """Reset the scene and disable scripts in files. Keeps the preferences, which have the selected GPUs."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.context.preferences.filepaths.use_scripts_auto_execute = False


def announce(line: str) -> None:
    """Write one line to stdout. The leading newline ends an unfinished line of Blender's."""
    sys.stdout.write(f"\nz1g {' '.join(line.split())}\n")
    sys.stdout.flush()


def resident_mb() -> float:
    """Resident memory of this process, MiB; the peak on systems without /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def run(start: Callable[[dict[str, Any]], None], work: Work) -> None:
    """Serve, and end this process."""
    status = 0
    try:
        serve(start, work)
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)  # Blender's regular exit sometimes hangs


if __name__ == "__main__":
    run(start, render_object)
