"""Depth and normals at pixel centers."""

from pathlib import Path
from typing import Any

import bpy  # type: ignore[import-not-found,unused-ignore]
import numpy as np
from framing import aim
from numpy.typing import NDArray

NOTHING_Z = 1e6
"""Cycles writes 1e10 to the depth pass where a ray hits nothing."""


def prepare_passes() -> None:
    """Make Cycles take one sample at each pixel's center from now on.

    A pass has the first sample of each pixel, and the images' pixel filter spreads samples over neighboring pixels.
    Passes are therefore rendered separately: one sample, no light bounces, the narrowest filter.
    """
    scene, layer = bpy.context.scene, bpy.context.view_layer
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.seed, scene.cycles.max_bounces = 1, 0, 0
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BLACKMAN_HARRIS", 0.01
    layer.use_pass_z = layer.use_pass_normal = True


def render_depth(cameras: list[Any], points: NDArray[np.float64] | None, folder: Path) -> NDArray[np.float32]:
    """Planar depth [D,H,W] (camera-space z) at pixel centers, 0 for background."""
    depth = _render_pass("Depth", cameras, points, folder)[..., 0]
    return np.where(depth < NOTHING_Z, depth, np.float32(0))


def render_normals(cameras: list[Any], points: NDArray[np.float64] | None, folder: Path) -> NDArray[np.float16]:
    """Unit shading normals [D,H,W,3] in the y-up world at pixel centers, 0 for background."""
    x, y, z = np.moveaxis(_render_pass("Normal", cameras, points, folder).astype(np.float64), -1, 0)
    normals = np.stack([x, z, -y], axis=-1)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.divide(normals, length, out=np.zeros_like(normals), where=length > 0).astype(np.float16)


def _render_pass(
    name: str, cameras: list[Any], points: NDArray[np.float64] | None, folder: Path
) -> NDArray[np.float32]:
    """Render a pass as linear color [D,H,W,3], top row first."""
    scene = bpy.context.scene
    _compose(name)
    image, file = scene.render.image_settings, folder / "pass.exr"
    image.file_format, image.color_mode, image.color_depth = "OPEN_EXR", "RGB", "32"
    views = []
    for matrix in cameras:
        aim(matrix, points)
        bpy.ops.render.render()  # `write_still` would rebuild all geometry for every view
        bpy.data.images["Render Result"].save_render(str(file))
        views.append(_read(file))
    file.unlink()
    return np.stack(views)


def _compose(name: str) -> None:
    """Make the compositor output a pass instead of the image."""
    scene = bpy.context.scene
    if bpy.app.version < (5, 0):
        scene.use_nodes = True
        tree, output = scene.node_tree, "CompositorNodeComposite"
    else:
        tree, output = bpy.data.node_groups.new("pass", "CompositorNodeTree"), "NodeGroupOutput"
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        scene.compositing_node_group = tree
    tree.nodes.clear()
    layers, composite = tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new(output)
    tree.links.new(layers.outputs[name], composite.inputs["Image"])


def _read(file: Path) -> NDArray[np.float32]:
    image = bpy.data.images.load(str(file))
    width, height = image.size
    pixels = np.empty((height, width, 4), np.float32)
    image.colorspace_settings.name = "Non-Color"
    image.pixels.foreach_get(pixels.reshape(-1))
    bpy.data.images.remove(image)
    return pixels[::-1, :, :3]
