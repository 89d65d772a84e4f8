"""Renders meshes with the usual crop, and again without it. Runs inside Blender.

    blender_crop.py SCRIPTS OUT MESH...

OUT receives NAME.npz with rgba [2,V,H,W,4], depth [2,D,H,W] and normals [2,D,H,W,3], each with and without crop, and
the share of the image inside the crop.
"""

import json
import os
import sys
from pathlib import Path

import bpy
import numpy as np

at = sys.argv.index("--") + 1 if "--" in sys.argv else 1
scripts, out, *meshes = sys.argv[at:]
sys.path.insert(0, scripts)
import drawing  # noqa: E402
import framing  # noqa: E402
import passes  # noqa: E402
import render_views  # noqa: E402

SETTINGS = json.loads(Path(out, "settings.json").read_text())
CAMERAS = json.loads(Path(out, "cameras.json").read_text())


def pixels(file: Path) -> np.ndarray:
    image = bpy.data.images.load(str(file))
    image.colorspace_settings.name, image.alpha_mode = "Non-Color", "CHANNEL_PACKED"
    values = np.empty((image.size[1], image.size[0], 4), np.float32)
    image.pixels.foreach_get(values.reshape(-1))
    bpy.data.images.remove(image)
    return (values[::-1] * 255).round().astype(np.uint8)


def reaching_out(folder: Path) -> list[str]:
    """Write objects whose images extend beyond the vertices of their faces: hair, a curve, a displaced surface."""
    files = []
    for name in ("hair", "curve", "displaced"):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.ops.mesh.primitive_cube_add(size=1)
        cube = bpy.context.object
        if name == "hair":
            cube.modifiers.new("hair", "PARTICLE_SYSTEM")
            hair = cube.particle_systems[0].settings
            hair.type, hair.count, hair.hair_length = "HAIR", 60, 0.8
        elif name == "curve":
            bpy.ops.curve.primitive_bezier_circle_add(radius=1.2)
            bpy.context.object.data.bevel_depth = 0.1
        else:
            material = bpy.data.materials.new("displaced")
            material.use_nodes, material.displacement_method = True, "DISPLACEMENT"
            nodes, links = material.node_tree.nodes, material.node_tree.links
            lift = nodes.new("ShaderNodeDisplacement")
            lift.inputs["Height"].default_value = 1.0
            links.new(lift.outputs["Displacement"], nodes["Material Output"].inputs["Displacement"])
            cube.data.materials.append(material)
        files.append(str(folder / f"{name}.blend"))
        bpy.ops.wm.save_as_mainfile(filepath=files[-1])
    return files


def main() -> None:
    crop = framing.aim
    shares = []

    def watched(c2w, points):
        crop(c2w, points)
        render = bpy.context.scene.render
        width, height = (
            render.border_max_x - render.border_min_x,
            render.border_max_y - render.border_min_y,
        )
        shares.append(width * height if render.use_border else 1.0)

    render_views.start(SETTINGS)
    for mesh in meshes + reaching_out(Path(out)):
        renders = []
        shares.clear()
        for aim in (watched, lambda c2w, points: crop(c2w, None)):
            drawing.aim = passes.aim = aim
            folder = Path(out, "scratch")
            item = {"id": "x", "path": mesh, "folder": str(folder), "cameras": CAMERAS}
            item["roots"] = [str(Path(mesh).parent)]
            render_views.finish(item, SETTINGS, render_views.render_object)
            assert json.loads((folder / "result.json").read_text())["reason"] is None
            rgba = np.stack([pixels(folder / f"{view:03d}.png") for view in range(len(CAMERAS))])
            renders.append((rgba, np.load(folder / "depth.npy"), np.load(folder / "normals.npy")))
        rgba, depth, normals = (np.stack(part) for part in zip(*renders, strict=True))
        np.savez(Path(out, f"{Path(mesh).name}.npz"), rgba=rgba, depth=depth, normals=normals, share=np.mean(shares))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # Blender sometimes hangs at exit
