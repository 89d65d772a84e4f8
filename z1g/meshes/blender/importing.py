"""Import of mesh files into the empty scene, z-up, with the same materials and lighting for every format.

Animated files are imported at their first frame. Of a .glb or .gltf with several scenes the default scene is imported
(the first if none is the default), of a .blend the first scene by name.
"""

import json
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import bpy  # type: ignore[import-not-found,unused-ignore]
from blend_files import append
from faults import MeshError

GLTF = {".glb", ".gltf"}
USD = {".usd", ".usda", ".usdc", ".usdz"}
NOT_THE_OBJECT = {"LIGHT", "CAMERA", "LIGHT_PROBE", "SPEAKER"}
GLB_MAGIC, GLB_HEADER_BYTES = b"glTF", 20


def import_mesh(path: Path, roots: Sequence[Path], up_axis: str | None = None) -> None:
    """Import a mesh file without its lights and cameras.

    up_axis: "y" or "z" of an .obj file, whose format does not say it; None: y. Raises MeshError if the file cannot be
    rendered correctly, or reads files outside of the roots.
    """
    if path.suffix.lower() in USD:
        _require_layers_inside(path, roots)
    _run_importer(path, up_axis)
    _require_inside(path, roots)
    bpy.data.batch_remove([item for item in bpy.data.objects if item.type in NOT_THE_OBJECT])
    if bpy.data.actions or path.suffix.lower() in USD:
        _go_to_first_frame()
    _check_images(path)
    _show_vertex_colors()


def _run_importer(path: Path, up_axis: str | None) -> None:
    name, ending = str(path), path.suffix.lower()
    try:
        if ending == ".obj":
            forward, up = ("Y", "Z") if up_axis == "z" else ("NEGATIVE_Z", "Y")
            bpy.ops.wm.obj_import(filepath=name, forward_axis=forward, up_axis=up)
        elif ending in GLTF:
            _import_gltf(path)
        elif ending == ".ply":
            bpy.ops.wm.ply_import(filepath=name, forward_axis="Y", up_axis="Z")
        elif ending == ".stl":
            # Validation would replace NaN by 0 before it can be detected.
            bpy.ops.wm.stl_import(filepath=name, forward_axis="Y", up_axis="Z", use_mesh_validate=False)
        elif ending == ".fbx":
            bpy.ops.import_scene.fbx(filepath=name)
        elif ending in USD:
            # Packed: all other modes write the textures of a .usdz next to the file.
            bpy.ops.wm.usd_import(filepath=name, import_textures_mode="IMPORT_PACK", create_world_material=False)
        elif ending == ".blend":
            append(name)
        elif ending == ".dae":
            _import_collada(name)
        else:
            raise MeshError(f"Blender has no importer for {ending} files; set data.renderer: {{kind: raster}}")
    except (RuntimeError, OSError) as error:
        # bpy.ops reports the failure of an importer as RuntimeError; the last line is the message, the rest a
        # traceback. Some importers append a location in Blender's source.
        lines = [line for line in str(error).splitlines() if line and not line.startswith("Location: ")]
        if lines and lines[-1].startswith("MemoryError"):
            raise MemoryError from error
        raise MeshError(
            f"Blender cannot read the file: {lines[-1].removeprefix('Error: ') if lines else 'unknown error'}"
        ) from error


def _import_collada(name: str) -> None:
    if not getattr(bpy.app.build_options, "collada", False):
        raise MeshError("this Blender has no importer for .dae files; Blender 4.5 has one")
    bpy.ops.wm.collada_import(filepath=name, import_units=True)


def _import_gltf(path: Path) -> None:
    bpy.ops.import_scene.gltf(filepath=str(path))
    options = bpy.ops.import_scene.gltf.get_rna_type().properties
    if "import_scene_as_collection" not in options and len(gltf_document(path).get("scenes", [])) > 1:
        raise MeshError("the file has several scenes, which this Blender merges into one; Blender 4.5 keeps them apart")


def _go_to_first_frame() -> None:
    scene = bpy.context.scene
    scene.frame_set(int(min((action.frame_range[0] for action in bpy.data.actions), default=scene.frame_start)))


def _check_images(path: Path) -> None:
    """Raise MeshError if a texture is missing or unreadable: Blender would render it in magenta."""
    bad = {bpy.path.abspath(image.filepath or image.name) for image in bpy.data.images if not image.size[0]}
    if path.suffix.lower() in GLTF:
        # The glTF importer drops missing textures.
        bad.update(name for name in _gltf_images(path) if not Path(name).is_file())
    if bad:
        names = ", ".join(sorted(os.path.relpath(name, path.parent) for name in bad))
        raise MeshError(f"texture missing or unreadable: {names}")
    for material in bpy.data.materials:
        # The USD importer keeps the node of a missing texture without its file name.
        if material.node_tree and any(_lacks_image(node) for node in material.node_tree.nodes):
            raise MeshError(f"texture missing or unreadable: one of material {material.name}")


def _require_layers_inside(path: Path, roots: Sequence[Path]) -> None:
    """Raise MeshError if a USD file is composed of layers outside of the roots, which leave no trace in Blender."""
    resolved = [path.resolve(), *(root.resolve() for root in roots)]
    for target in usd_layers(path):
        if not any(target.is_relative_to(root) for root in resolved):
            raise MeshError(
                f"it refers to the layer {target}, outside of its folder and of data.paths; move the file there, or "
                "add its folder to data.roots if the mesh may read it"
            )


def usd_layers(path: Path) -> list[Path]:
    """Files of the layers that a USD file is composed of; none of a damaged file, as the importer reports its error."""
    if hasattr(bpy.utils, "expose_bundled_modules"):
        bpy.utils.expose_bundled_modules()
    try:
        from pxr import Tf, UsdUtils  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise MeshError("this Blender cannot tell which layers a USD file reads; Blender 4.4 can") from error
    try:
        layers, _, _ = UsdUtils.ComputeAllDependencies(str(path))
    except Tf.ErrorException:
        return []
    # A layer in a package is named package.usdz[layer].
    return [Path(layer.realPath.partition("[")[0]).resolve() for layer in layers if layer.realPath]


def files_read(path: Path) -> list[Path]:
    """Files besides the mesh that Blender has read."""
    files = set(usd_layers(path)) if path.suffix.lower() in USD else set()
    for item in (*bpy.data.images, *bpy.data.libraries, *bpy.data.cache_files, *bpy.data.volumes):
        if item.filepath:
            files.add(Path(bpy.path.abspath(item.filepath, library=item.library)).resolve())
    return sorted(file for file in files if file.is_file() and file != path.resolve())


def _require_inside(path: Path, roots: Sequence[Path]) -> None:
    """Raise MeshError if an image or another file that Blender has read is outside of the roots.

    Of the side files of OBJ and glTF, the others are checked before Blender starts, in `z1g/meshes/references.py`.
    """
    resolved = [path.resolve(), *(root.resolve() for root in roots)]
    data, packs = bpy.data, path.suffix.lower() in USD
    for item in (*data.images, *data.libraries, *data.cache_files, *data.volumes, *data.fonts):
        packed = getattr(item, "packed_file", None) is not None
        if not item.filepath or item.filepath == "<builtin>" or (packed and not packs):
            continue
        file = Path(bpy.path.abspath(item.filepath, library=item.library))
        target = file.resolve()
        if target.is_file() and not any(target.is_relative_to(root) for root in resolved):
            raise MeshError(
                f"it reads {file}, outside of its folder and of data.paths; move the file there, or add its folder to "
                "data.roots if the mesh may read it"
            )


def _lacks_image(node: Any) -> bool:
    return node.type == "TEX_IMAGE" and node.image is None and any(output.is_linked for output in node.outputs)


def _gltf_images(path: Path) -> Iterator[str]:
    """Image files that a glTF document refers to."""
    for image in gltf_document(path).get("images", []):
        uri = image.get("uri", "data:")
        if not uri.startswith("data:"):
            yield str(path.parent / unquote(uri))


def gltf_document(path: Path) -> dict[str, Any]:
    """JSON document of a .gltf or .glb file that Blender could read."""
    content = path.read_bytes()
    if content[:4] == GLB_MAGIC:
        size = struct.unpack_from("<I", content, 12)[0]
        content = content[GLB_HEADER_BYTES : GLB_HEADER_BYTES + size]
    document: dict[str, Any] = json.loads(content)
    return document


def _show_vertex_colors() -> None:
    """Add a material that shows the vertex colors to meshes with vertex colors and no material."""
    for mesh in bpy.data.meshes:
        if any(mesh.materials) or not mesh.color_attributes:
            continue
        material = bpy.data.materials.new("vertex colors")
        material.use_nodes = True
        nodes = material.node_tree.nodes
        attribute = nodes.new("ShaderNodeAttribute")
        attribute.attribute_name = mesh.color_attributes[0].name
        material.node_tree.links.new(attribute.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
        mesh.materials.clear()
        mesh.materials.append(material)
