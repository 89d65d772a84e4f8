"""Writes one object in every format that Blender can export, and a malicious .blend. Runs inside Blender.

The object is a box (x 2, y 3, z 4 in a y-up world) whose faces have six colors from a small texture, so that swapped
axes or sides and missing textures change its image.
"""

import os
import sys
from pathlib import Path

import bpy
import numpy as np

SIDES = {"+x": (1, 0, 0), "-x": (0, 1, 0), "+y": (0, 0, 1), "-y": (1, 1, 0), "+z": (0, 1, 1), "-z": (1, 0, 1)}
"""Colors by the face's direction in a y-up world."""
FACES = {
    "+x": (4, 6, 7, 5),
    "-x": (0, 1, 3, 2),
    "+z": (0, 4, 5, 1),
    "-z": (2, 3, 7, 6),
    "-y": (0, 2, 6, 4),
    "+y": (1, 5, 7, 3),
}
"""Corners of Blender's z-up box; its -y is the y-up world's +z."""
EXTENT = (2, 4, 3)


def main() -> None:
    folder = Path(sys.argv[-1])
    textured(folder)
    colored(folder)
    transparent(folder)
    two_scenes_and_motion(folder)
    trap(folder)


def empty() -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)


def box(name: str = "box", extent=EXTENT, at=(0, 0, 0)):
    """Add a box to the scene, with the UV of each face in the middle of its color in the palette."""
    corners = [[(i >> 2 & 1) - 0.5, (i >> 1 & 1) - 0.5, (i & 1) - 0.5] for i in range(8)]
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata((np.array(corners) * extent + at).tolist(), [], list(FACES.values()))
    layer = mesh.uv_layers.new(name="UVMap")
    for face, side in enumerate(FACES):
        for corner in mesh.polygons[face].loop_indices:
            layer.data[corner].uv = ((list(SIDES).index(side) + 0.5) / len(SIDES), 0.5)
    mesh_object = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(mesh_object)
    return mesh_object


def palette(folder: Path):
    """Write an image with the six colors side by side, and load it."""
    image = bpy.data.images.new("palette", 48, 8)
    row = np.repeat(np.array([[*color, 1] for color in SIDES.values()], np.float32), 8, axis=0)
    image.pixels.foreach_set(np.tile(row, (8, 1)).reshape(-1))
    image.filepath_raw, image.file_format = str(folder / "palette.png"), "PNG"
    image.save()
    bpy.data.images.remove(image)
    return bpy.data.images.load(str(folder / "palette.png"))


def material(mesh_object, image=None, color=(1, 1, 1, 1)):
    new_material = bpy.data.materials.new(f"{mesh_object.name} material")
    new_material.use_nodes = True
    surface = new_material.node_tree.nodes["Principled BSDF"]
    surface.inputs["Base Color"].default_value, surface.inputs["Roughness"].default_value = color, 1.0
    surface.inputs["Specular IOR Level"].default_value = 0.0
    if image:
        texture = new_material.node_tree.nodes.new("ShaderNodeTexImage")
        texture.image = image
        new_material.node_tree.links.new(texture.outputs["Color"], surface.inputs["Base Color"])
    mesh_object.data.materials.append(new_material)
    return new_material


def textured(folder: Path) -> None:
    for name in ("textured", "missing"):
        empty()
        (folder / name).mkdir()
        image = palette(folder / name)
        mesh_object = box()
        material(mesh_object, image)
        to = str(folder / name / "box")
        bpy.ops.wm.obj_export(filepath=f"{to}_obj.obj", path_mode="RELATIVE")
        bpy.ops.export_scene.gltf(filepath=f"{to}_gltf.gltf", export_format="GLTF_SEPARATE")
        bpy.ops.export_scene.fbx(filepath=f"{to}_fbx.fbx", path_mode="RELATIVE")
        bpy.ops.wm.usd_export(filepath=f"{to}_usda.usda", relative_paths=True, export_textures_mode="KEEP")
        bpy.ops.wm.save_as_mainfile(filepath=f"{to}_blend.blend", relative_remap=True)
        if name == "missing":
            for file in (folder / name).rglob("*.png"):
                file.unlink()
            continue
        bpy.ops.export_scene.gltf(filepath=f"{to}_glb.glb")
        bpy.ops.export_scene.gltf(filepath=f"{to}_draco.glb", export_draco_mesh_compression_enable=True)
        bpy.ops.wm.usd_export(filepath=f"{to}_usdc.usdc", relative_paths=True, export_textures_mode="KEEP")
        bpy.ops.wm.usd_export(
            filepath=f"{to}_zup.usd",
            relative_paths=True,
            export_textures_mode="KEEP",
            convert_orientation=True,
            export_global_forward_selection="NEGATIVE_Z",
            export_global_up_selection="Y",
        )
        bpy.ops.wm.usd_export(filepath=f"{to}_usdz.usdz")


def colored(folder: Path) -> None:
    """Vertex colors, without and with a material (glTF multiplies both)."""
    empty()
    (folder / "colored").mkdir()
    mesh_object = box()
    colors = mesh_object.data.color_attributes.new("Color", "BYTE_COLOR", "CORNER")
    for face, side in enumerate(FACES):
        for corner in mesh_object.data.polygons[face].loop_indices:
            colors.data[corner].color = (*SIDES[side], 1)
    to = str(folder / "colored" / "box")
    bpy.ops.wm.ply_export(filepath=f"{to}_ply.ply", forward_axis="Y", up_axis="Z", export_colors="SRGB")
    bpy.ops.wm.obj_export(filepath=f"{to}_obj.obj", export_colors=True, export_materials=False)
    bpy.ops.wm.stl_export(filepath=f"{to}_stl.stl", forward_axis="Y", up_axis="Z")
    bpy.ops.export_scene.fbx(filepath=f"{to}_fbx.fbx", colors_type="SRGB")
    bpy.ops.wm.usd_export(filepath=f"{to}_usdc.usdc")
    bpy.ops.wm.save_as_mainfile(filepath=f"{to}_blend.blend")
    bpy.ops.export_scene.gltf(filepath=f"{to}_glb.glb", export_vertex_color="ACTIVE", export_all_vertex_colors=True)
    material(mesh_object)
    bpy.ops.export_scene.gltf(
        filepath=f"{to}_material.glb", export_vertex_color="ACTIVE", export_all_vertex_colors=True
    )


def transparent(folder: Path) -> None:
    """Half-transparent red (BLEND), and a texture whose alpha removes a side (MASK)."""
    for name in ("blend", "mask"):
        empty()
        (folder / name).mkdir()
        mesh_object = box()
        new_material = material(mesh_object, color=(1, 0, 0, 1))
        nodes, links = new_material.node_tree.nodes, new_material.node_tree.links
        surface = nodes["Principled BSDF"]
        if name == "blend":
            surface.inputs["Alpha"].default_value = 0.5
        else:
            image = bpy.data.images.new("cut", 48, 8, alpha=True)
            row = np.repeat(np.array([[1, 0, 0, side != "+z"] for side in SIDES], np.float32), 8, axis=0)
            image.pixels.foreach_set(np.tile(row, (8, 1)).reshape(-1))
            image.filepath_raw, image.file_format = str(folder / name / "cut.png"), "PNG"
            image.save()
            texture, sharp = nodes.new("ShaderNodeTexImage"), nodes.new("ShaderNodeMath")
            texture.image, sharp.operation, sharp.inputs[1].default_value = image, "GREATER_THAN", 0.5
            links.new(texture.outputs["Color"], surface.inputs["Base Color"])
            links.new(texture.outputs["Alpha"], sharp.inputs[0])
            links.new(sharp.outputs["Value"], surface.inputs["Alpha"])
        to = str(folder / name / "box")
        bpy.ops.export_scene.gltf(filepath=f"{to}_glb.glb")
        bpy.ops.wm.usd_export(filepath=f"{to}_usdz.usdz")
        bpy.ops.wm.save_as_mainfile(filepath=f"{to}_blend.blend")
        if name == "blend":
            bpy.ops.wm.obj_export(filepath=f"{to}_obj.obj")
            bpy.ops.export_scene.fbx(filepath=f"{to}_fbx.fbx")


def two_scenes_and_motion(folder: Path) -> None:
    """A file with a second scene, and an animated box that is at the expected position in the first frame only."""
    empty()
    (folder / "scenes").mkdir()
    material(box(), color=(1, 0, 0, 1))
    first, second = bpy.context.scene, bpy.data.scenes.new("Z second")
    other = box("other", at=(5, 0, 0))
    material(other, color=(0, 1, 0, 1))
    first.collection.objects.unlink(other)
    second.collection.objects.link(other)
    to = str(folder / "scenes" / "box")
    bpy.ops.export_scene.gltf(filepath=f"{to}_glb.glb", use_active_scene=False)
    bpy.ops.wm.save_as_mainfile(filepath=f"{to}_blend.blend")
    bpy.data.scenes.remove(second)
    moving = box("moving")
    material(moving, color=(0, 0, 1, 1))
    for frame, x in ((1, 3.0), (20, 9.0)):
        moving.location.x = x
        moving.keyframe_insert("location", frame=frame)
    bpy.context.scene.frame_set(20)
    (folder / "motion").mkdir()
    to = str(folder / "motion" / "box")
    bpy.ops.export_scene.gltf(filepath=f"{to}_glb.glb")
    bpy.ops.export_scene.fbx(filepath=f"{to}_fbx.fbx", bake_anim=True)
    bpy.ops.wm.usd_export(filepath=f"{to}_usdc.usdc", export_animation=True)


def trap(folder: Path) -> None:
    """A .blend that tries to run Python, with lights, camera, world and hidden objects that must be ignored."""
    empty()
    (folder / "trap").mkdir()
    mark = folder / "trap" / "executed"
    image = palette(folder / "trap")
    mesh_object = box()
    material(mesh_object, image)
    image.pack()
    os.unlink(folder / "trap" / "palette.png")
    text = bpy.data.texts.new("evil.py")
    text.from_string(f"open({str(mark)!r}, 'w').write('text')")
    text.use_module = True
    driver = mesh_object.driver_add("location", 0).driver
    driver.expression = f"(open({str(mark)!r}, 'w').write('driver'), 0.0)[1]"
    scene = bpy.context.scene
    scene.world = bpy.data.worlds.new("red")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (1, 0, 0, 1)
    scene.render.film_transparent, scene.view_settings.exposure, scene.cycles.samples = False, 3.0, 1
    lamp = bpy.data.objects.new("lamp", bpy.data.lights.new("lamp", "SUN"))
    lamp.data.energy = 100
    scene.collection.objects.link(lamp)
    scene.collection.objects.link(bpy.data.objects.new("eye", bpy.data.cameras.new("eye")))
    box("hidden", (9, 9, 9)).hide_render = True
    for name in ("hidden collection", "excluded collection"):
        group = bpy.data.collections.new(name)
        scene.collection.children.link(group)
        inside = box(name, (8, 8, 8))
        scene.collection.objects.unlink(inside)
        group.objects.link(inside)
    bpy.data.collections["hidden collection"].hide_render = True
    bpy.context.view_layer.layer_collection.children["excluded collection"].exclude = True
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "trap" / "box.blend"))
    mark.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # Blender sometimes hangs at exit
