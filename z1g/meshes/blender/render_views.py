"""Renders meshes one after the other. Runs inside Blender (4.2-5.0), as a script or through the `bpy` module.

    python render_views.py
    blender -b --factory-startup --python render_views.py

It imports nothing of z1g, because Blender brings its own Python. On stdin come JSON lines; the first holds settings:

    resolution (pixels, square), samples, engine ("cycles" | "eevee"), device ("cpu" | "gpu"), threads, fov_y_deg
    lighting     what `z1g.meshes.lighting.Light` says
    depth_views  indices of the views that also get depth
    normals      whether they also get normals
    memory_mb    what this process may allocate, MiB
    cores        numbers of the cores it may run on once it is up; empty: where it is

and each further line an object: {id, path, folder, cameras: [V][4][4] (matrix_world, z-up world, OpenGL camera axes)}.
Its folder receives `000.png`, ... (RGBA, 8-bit, straight alpha, sRGB), `depth.npy` (float32 [D,H,W], planar depth at
pixel centers, 0 where nothing is), `normals.npy` (float16 [D,H,W,3], y-up world) and last, so that its existence means
finished, `result.json`:

    reason         null, or why the object was rejected (then the folder holds nothing else of use)
    n_triangles    triangles that were rendered
    normalization  {center [3], scale, up_axis}, see `geometry.Normalization`
    renderer       Blender's version
    seconds        {import, render, write, depth}: checking and setting up belong to import, normals to depth
    resident_mb    memory that this process holds afterwards

On stdout a line `z1g up` says that the settings can be obeyed, `z1g unable <why>` that they cannot (then Blender ends),
`z1g done <id>` that an object is finished; all else is Blender's chatter. The end of stdin ends Blender.
"""

import json
import os
import resource
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bpy  # type: ignore[import-not-found,unused-ignore]
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # Blender's own executable does not look here

from clock import Clock
from drawing import choose_gpu, light, render_images, set_up, try_eevee
from faults import MeshError, Unable
from framing import vertices_bound_everything
from geometry import UP_AXIS, normalize, surface
from importing import import_mesh
from passes import prepare_passes, render_depth, render_normals

MIB = 2**20


def main() -> None:
    """Obey stdin line by line."""
    with open(0, encoding="utf-8", closefd=False) as lines:
        settings = json.loads(next(lines))
        try:
            start(settings)
        except Unable as error:
            announce(f"unable {error}")
            return
        announce("up")
        for line in lines:
            item = json.loads(line)
            finish(item, settings)
            announce(f"done {item['id']}")


def start(settings: dict[str, Any]) -> None:
    """Find out before the first object whether the settings can be obeyed. Raises Unable."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = settings["memory_mb"] * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))
    empty_scene()
    free_cores(settings["cores"])
    light(**settings["lighting"])
    if settings["device"] == "gpu":
        choose_gpu()
    if settings["engine"] == "eevee":
        try_eevee()


def free_cores(cores: list[int]) -> None:
    """Let all threads run on any of these cores; by the few that it started with Blender has made few threads."""
    if cores:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), cores)


def finish(item: dict[str, Any], settings: dict[str, Any]) -> None:
    """Render one object into its folder, `result.json` last."""
    folder, clock = Path(item["folder"]), Clock()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        result = {"reason": None, **render_object(item, settings, folder, clock)}
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
        import_mesh(path)
        points, n_triangles = surface()
        normalization, points = normalize(points, UP_AXIS.get(path.suffix.lower(), "y"))
        bounds = points if vertices_bound_everything() else None
        set_up(settings)
    # EEVEE looks at neighboring pixels.
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
    """Forget everything that came before; no script in a file runs. Keeps the preferences, which hold the GPUs."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.context.preferences.filepaths.use_scripts_auto_execute = False


def announce(line: str) -> None:
    """One line on stdout. The newline ahead ends whatever Blender left unfinished there."""
    sys.stdout.write(f"\nz1g {' '.join(line.split())}\n")
    sys.stdout.flush()


def resident_mb() -> float:
    """Memory in RAM that this process holds, MiB; its peak where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


if __name__ == "__main__":
    status = 0
    try:
        main()
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)  # Blender's own way out sometimes hangs
