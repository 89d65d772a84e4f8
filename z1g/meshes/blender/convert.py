"""Converts meshes of any format to GLB, one after another. Runs inside Blender.

It has the protocol of `render_views.py`. The settings are memory_mb and cores; an object has no cameras. The script
writes to the object's folder `mesh.glb`: all meshes at the first frame with modifiers, instances and transforms
applied, y-up, in Blender's units. `result.json` has reason, reads (SHA-256 of the files besides the mesh that
Blender has read, by path relative to its folder), converter (Blender's version), seconds and resident_mb.
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import bpy  # type: ignore[import-not-found,unused-ignore]

sys.path.insert(0, str(Path(__file__).parent))  # Blender's executable does not search this folder

from clock import Clock
from faults import MeshError
from geometry import surface
from importing import files_read, import_mesh
from render_views import empty_scene, run, take_place

MESH = "mesh.glb"


def convert(item: dict[str, Any], settings: dict[str, Any], folder: Path, clock: Clock) -> dict[str, Any]:
    """Convert one object. Raises MeshError."""
    path = Path(item["path"])
    with clock("convert"):
        empty_scene()
        import_mesh(path, [Path(root) for root in item["roots"]])
        beside = path.resolve().parent
        reads = {os.path.relpath(file, beside): _digest(file) for file in files_read(path)}
        surface()  # refuses meshes that are empty or not finite
        _bake()
        _export(folder / MESH)
    return {"reads": reads, "converter": f"Blender {bpy.app.version_string}"}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _bake() -> None:
    """Replace all objects by their evaluated meshes in world coordinates."""
    graph, baked = bpy.context.evaluated_depsgraph_get(), []
    for instance in graph.object_instances:
        if instance.object.type == "MESH" and instance.show_self:
            mesh = bpy.data.meshes.new_from_object(instance.object, preserve_all_data_layers=True, depsgraph=graph)
            mesh.transform(instance.matrix_world)
            if instance.matrix_world.determinant() < 0:
                mesh.flip_normals()
            baked.append(mesh)
    bpy.data.batch_remove(list(bpy.data.objects))
    for mesh in baked:
        bpy.context.scene.collection.objects.link(bpy.data.objects.new(mesh.name, mesh))


def _export(path: Path) -> None:
    try:
        bpy.ops.export_scene.gltf(
            filepath=str(path), export_format="GLB", export_yup=True, export_animations=False, export_skins=False,
            export_morph=False, export_cameras=False, export_lights=False, export_extras=False,
        )  # fmt: skip
    except RuntimeError as error:
        raise MeshError(f"Blender cannot convert the file to glTF: {str(error).strip().splitlines()[-1]}") from error


if __name__ == "__main__":
    run(take_place, convert)
