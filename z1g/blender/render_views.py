"""Renders a list of meshes. Runs inside Blender (4.2-4.5), as a script or through the `bpy` module.

    python render_views.py job.json
    blender -b --factory-startup --python render_views.py -- job.json

It imports nothing of z1g, because Blender brings its own Python. `job.json` holds

    output    folder that receives one folder an object
    settings  resolution (pixels, square), samples, lighting ("uniform" | "three_point"), threads, fov_y_deg,
              depth_views (indices of the views that also get depth)
    objects   [{id, path, cameras: [V][4][4] (matrix_world, z-up world, OpenGL camera axes)}]

An object's folder receives `000.png`, ... (RGBA, 8-bit, straight alpha, sRGB), `depth.npy` (float32 [D,H,W], planar
depth at pixel centres, 0 where nothing is) and last, so that its existence means finished, `result.json`:

    reason         null, or why the object was rejected (then there are no pictures)
    n_triangles    triangles that were rendered
    normalisation  {centre [3], scale, up_axis}, see `Normalisation`
    renderer       Blender's version

On stdout a line `z1g` says that Blender is up, `z1g <id>` that an object is finished; all else is Blender's chatter.
"""

import json
import math
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bpy  # type: ignore[import-not-found,unused-ignore]
import numpy as np
from mathutils import Matrix  # type: ignore[import-not-found,unused-ignore]
from numpy.typing import NDArray

FLAT = 1e-4
"""A mesh is flat where its smallest extent is below this share of its largest."""
NOTHING_Z = 1e6
"""Cycles writes 1e10 into the depth pass where a ray meets nothing."""
UP_AXIS = {".ply": "z", ".stl": "z"}
"""Formats without a rule for the up axis; by custom theirs is z. All others are y-up or say themselves."""
SUNS = {"key": (3.0, 40.0, 35.0), "fill": (1.2, 15.0, -50.0), "rim": (2.0, 45.0, 170.0)}
"""three_point lighting: strength in W/m2, elevation and azimuth in degrees, azimuth 0 being the condition view's."""


class MeshError(Exception):
    """The mesh cannot be used; the message is for people."""


@dataclass(frozen=True)
class Normalisation:
    """p_z1g = (p - centre) * scale, where p is the file's point in a y-up world.

    `centre` is the middle of the bounding box of all vertices that a face uses; `scale` takes the farthest of them to
    distance 0.5. `up_axis` is the file's: "y" means that p is the point as the file has it, "z" that the file's
    (x, y, z) is p = (x, z, -y).
    """

    centre: tuple[float, float, float]
    scale: float
    up_axis: str


def main() -> None:
    """Render the job named by the last argument, object by object."""
    job = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    announce("z1g")
    for item in job["objects"]:
        folder = Path(job["output"]) / item["id"]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            result = {"reason": None, **render_object(item, job["settings"], folder)}
        except MeshError as rejected:
            result = {"reason": str(rejected)}
        (folder / "result.tmp").write_text(json.dumps(result), encoding="utf-8")
        os.replace(folder / "result.tmp", folder / "result.json")
        announce(f"z1g {item['id']}")


def announce(line: str) -> None:
    """One line on stdout. The newline ahead ends whatever Blender left unfinished there."""
    sys.stdout.write(f"\n{line}\n")
    sys.stdout.flush()


def render_object(item: dict[str, Any], settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Import, check, normalise and render one object. Raises MeshError."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.preferences.filepaths.use_scripts_auto_execute = False
    path = Path(item["path"])
    import_mesh(path)
    bpy.data.batch_remove([thing for thing in bpy.data.objects if thing.type in {"LIGHT", "CAMERA"}])
    check_images(path)
    show_vertex_colours()
    points, n_triangles = surface()
    normalisation = normalise(points, UP_AXIS.get(path.suffix.lower(), "y"))
    set_up(settings)
    render_pictures(item["cameras"], folder)
    if settings["depth_views"]:
        depth = render_depth([item["cameras"][view] for view in settings["depth_views"]], folder)
        np.save(folder / "depth.npy", depth)
    return {
        "n_triangles": n_triangles,
        "normalisation": asdict(normalisation),
        "renderer": f"Blender {bpy.app.version_string}",
    }


def import_mesh(path: Path) -> None:
    """Import a mesh file into the empty scene, z up. Raises MeshError where the importer gives up."""
    name, ending = str(path), path.suffix.lower()
    try:
        if ending == ".obj":
            bpy.ops.wm.obj_import(filepath=name, forward_axis="NEGATIVE_Z", up_axis="Y")
        elif ending in {".glb", ".gltf"}:
            bpy.ops.import_scene.gltf(filepath=name)
        elif ending == ".ply":
            bpy.ops.wm.ply_import(filepath=name, forward_axis="Y", up_axis="Z")
        elif ending == ".stl":
            # Validation would turn NaN into 0 before anyone sees it.
            bpy.ops.wm.stl_import(filepath=name, forward_axis="Y", up_axis="Z", use_mesh_validate=False)
        elif ending == ".fbx":
            bpy.ops.import_scene.fbx(filepath=name)
        else:
            raise MeshError(f"no importer for {ending} files")
    except RuntimeError as error:
        # bpy.ops reports an importer's failure as RuntimeError; its last line is the message, the rest a traceback.
        lines = str(error).strip().splitlines() or ["unknown error"]
        raise MeshError(f"Blender cannot read the file: {lines[-1].removeprefix('Error: ')}") from error


def check_images(path: Path) -> None:
    """Raise MeshError where a texture is missing or unreadable: Blender would draw magenta."""
    bad = {bpy.path.abspath(image.filepath or image.name) for image in bpy.data.images if not image.size[0]}
    if bad:
        names = ", ".join(sorted(os.path.relpath(name, path.parent) for name in bad))
        raise MeshError(f"texture missing or unreadable: {names}")


def show_vertex_colours() -> None:
    """Give meshes that have vertex colours but no material one that shows them."""
    for mesh in bpy.data.meshes:
        if any(mesh.materials) or not mesh.color_attributes:
            continue
        material = bpy.data.materials.new("vertex colours")
        material.use_nodes = True
        nodes = material.node_tree.nodes
        attribute = nodes.new("ShaderNodeAttribute")
        attribute.attribute_name = mesh.color_attributes[0].name
        material.node_tree.links.new(attribute.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
        mesh.materials.clear()
        mesh.materials.append(material)


def surface() -> tuple[NDArray[np.float64], int]:
    """Points [N,3] (Blender's z-up world) that faces use, and the number of triangles. Raises MeshError."""
    points, n_triangles, graph = [], 0, bpy.context.evaluated_depsgraph_get()
    for instance in graph.object_instances:
        if instance.object.type != "MESH" or not instance.show_self:
            continue
        mesh = instance.object.data
        positions = np.empty(3 * len(mesh.vertices), np.float32)
        mesh.vertices.foreach_get("co", positions)
        corners = np.empty(len(mesh.loops), np.int32)
        mesh.loops.foreach_get("vertex_index", corners)
        n_triangles += len(mesh.loops) - 2 * len(mesh.polygons)
        world = np.array(instance.matrix_world)
        used = positions.reshape(-1, 3)[np.unique(corners)].astype(np.float64)
        points.append(used @ world[:3, :3].T + world[:3, 3])
    if not n_triangles:
        raise MeshError("the mesh has no faces; the file is empty or cut off")
    if not all(np.isfinite(part).all() for part in points):
        raise MeshError("the mesh has vertices that are not finite numbers (NaN or infinity)")
    return np.concatenate(points), n_triangles


def normalise(points: NDArray[np.float64], up_axis: str) -> Normalisation:
    """Move and scale the scene so that the sphere around the bounding box's middle has radius 0.5 at the origin.

    Raises MeshError for flat meshes.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    extent = high - low
    if extent.max() == 0:
        raise MeshError("the mesh is a single point: its bounding box has no size")
    if extent.min() < FLAT * extent.max():
        raise MeshError(f"the mesh is flat: its bounding box is {' x '.join(f'{side:.4g}' for side in extent)}")
    centre = (low + high) / 2
    scale = 0.5 / float(np.linalg.norm(points - centre, axis=1).max())
    pivot = bpy.data.objects.new("normalisation", None)
    for thing in bpy.context.scene.objects:
        if thing.parent is None:
            thing.parent = pivot
    bpy.context.scene.collection.objects.link(pivot)
    pivot.matrix_world = Matrix.Scale(scale, 4) @ Matrix.Translation(-centre)
    x, y, z = centre.tolist()
    return Normalisation((x, z, -y), scale, up_axis)


def set_up(settings: dict[str, Any]) -> None:
    """Camera, light and renderer of the freshly imported scene."""
    scene, render, cycles = bpy.context.scene, bpy.context.scene.render, bpy.context.scene.cycles
    lens = bpy.data.cameras.new("camera")
    lens.sensor_fit = "VERTICAL"
    lens.angle, lens.clip_start, lens.clip_end = math.radians(settings["fov_y_deg"]), 0.01, 1e4
    scene.camera = bpy.data.objects.new("camera", lens)
    scene.collection.objects.link(scene.camera)
    light(scene, settings["lighting"])
    render.engine = "CYCLES"
    cycles.device = "CPU"
    cycles.samples = settings["samples"]
    # Adaptive sampling and denoising hang on thresholds; dither adds noise to flat colours.
    cycles.use_adaptive_sampling = cycles.use_denoising = False
    render.dither_intensity = 0
    render.use_persistent_data = True
    render.threads_mode, render.threads = "FIXED", settings["threads"]
    render.resolution_x = render.resolution_y = settings["resolution"]
    render.resolution_percentage = 100
    render.film_transparent = True
    render.use_file_extension = render.use_sequencer = False
    scene.display_settings.display_device = "sRGB"
    scene.view_settings.view_transform, scene.view_settings.look = "Standard", "None"


def light(scene: Any, lighting: str) -> None:
    """`uniform`: white from everywhere, a surface shows its own colour. `three_point`: key, fill and rim sun."""
    world = bpy.data.worlds.new("world")
    world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (1, 1, 1, 1)
    background.inputs["Strength"].default_value = 1.0 if lighting == "uniform" else 0.25
    scene.world = world
    if lighting == "uniform":
        return
    for name, (strength, elevation, azimuth) in SUNS.items():
        lamp = bpy.data.objects.new(name, bpy.data.lights.new(name, "SUN"))
        lamp.data.energy = strength
        # A lamp shines along -z; turned by 90 - elevation about x it shines from the front (Blender's -y).
        lamp.rotation_euler = (math.radians(90 - elevation), 0, math.radians(azimuth))
        scene.collection.objects.link(lamp)


def render_pictures(cameras: list[Any], folder: Path) -> None:
    """Write one PNG a camera. Each view has its own seed, so that noise does not stick to the screen."""
    scene = bpy.context.scene
    image = scene.render.image_settings
    image.file_format, image.color_mode, image.color_depth, image.compression = "PNG", "RGBA", "8", 15
    for view, matrix in enumerate(cameras):
        scene.cycles.seed = view
        render_view(matrix, folder / f"{view:03d}.png")


def render_depth(cameras: list[Any], folder: Path) -> NDArray[np.float32]:
    """Planar depth [D,H,W] (camera-space z) at pixel centres, 0 where nothing is.

    The depth pass holds the first sample of a pixel, and the pictures' filter scatters samples over the neighbours.
    So depth is rendered by itself: one sample, no light, a filter as narrow as a point.
    """
    scene = bpy.context.scene
    scene.cycles.samples, scene.cycles.seed, scene.cycles.max_bounces = 1, 0, 0
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BLACKMAN_HARRIS", 0.01
    bpy.context.view_layer.use_pass_z = True
    scene.use_nodes = True
    nodes = scene.node_tree.nodes
    nodes.clear()
    layers, composite = nodes.new("CompositorNodeRLayers"), nodes.new("CompositorNodeComposite")
    scene.node_tree.links.new(layers.outputs["Depth"], composite.inputs["Image"])
    image, file = scene.render.image_settings, folder / "depth.exr"
    image.file_format, image.color_mode, image.color_depth = "OPEN_EXR", "RGB", "32"
    views = []
    for matrix in cameras:
        render_view(matrix, file)
        views.append(read_depth(file))
    file.unlink()
    return np.stack(views)


def render_view(matrix: list[list[float]], file: Path) -> None:
    """Render the scene from one camera into a file."""
    scene = bpy.context.scene
    scene.camera.matrix_world = Matrix(matrix)
    scene.render.filepath = str(file)
    bpy.ops.render.render(write_still=True)


def read_depth(file: Path) -> NDArray[np.float32]:
    """The depth pass [H,W] of a rendered file, top row first, 0 where nothing is."""
    image = bpy.data.images.load(str(file))
    width, height = image.size
    pixels = np.empty((height, width, 4), np.float32)
    image.colorspace_settings.name = "Non-Color"
    image.pixels.foreach_get(pixels.reshape(-1))
    bpy.data.images.remove(image)
    depth = pixels[::-1, :, 0]
    return np.where(depth < NOTHING_Z, depth, np.float32(0))


if __name__ == "__main__":
    main()
