"""Writes an OBJ file in the formats that only Blender reads. Runs inside Blender.

blender_exports.py MESH FOLDER
"""

import os
import sys
from pathlib import Path

import bpy


def main() -> None:
    mesh, folder = Path(sys.argv[-2]), Path(sys.argv[-1])
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.wm.obj_import(filepath=str(mesh), forward_axis="NEGATIVE_Z", up_axis="Y")
    bpy.ops.export_scene.fbx(filepath=str(folder / "one.fbx"), path_mode="COPY", embed_textures=True)
    bpy.ops.wm.usd_export(filepath=str(folder / "two.usdc"))
    if getattr(bpy.app.build_options, "collada", False):
        bpy.ops.wm.collada_export(filepath=str(folder / "three.dae"), use_texture_copies=True)
    bpy.ops.file.pack_all()
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "four.blend"), check_existing=False)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # Blender sometimes hangs at exit
