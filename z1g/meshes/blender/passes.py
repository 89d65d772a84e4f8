"""Depth and normals at pixel centers."""

from pathlib import Path
from typing import Any

import bpy  # type: ignore[import-not-found,unused-ignore]
import numpy as np
from framing import aim
from numpy.typing import NDArray

NOTHING_Z = 1e6
"""Cycles writes 1e10 into the depth pass where a ray meets nothing."""


def prepare_passes() -> None:
    """Make Cycles draw one sample through each pixel's center from now on.

    A pass holds the first sample of a pixel, and the images' filter scatters samples over the neighbors. So passes
    are rendered by themselves: one sample, no light, a filter as narrow as a point.
    """
    scene, layer = bpy.context.scene, bpy.context.view_layer
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.seed, scene.cycles.max_bounces = 1, 0, 0
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BLACKMAN_HARRIS", 0.01
    layer.use_pass_z = layer.use_pass_normal = True


def render_depth(cameras: list[Any], points: NDArray[np.float64] | None, folder: Path) -> NDArray[np.float32]:
    """Planar depth [D,H,W] (camera-space z) at pixel centers, 0 where nothing is."""
    depth = _render_pass("Depth", cameras, points, folder)[..., 0]
    return np.where(depth < NOTHING_Z, depth, np.float32(0))


def render_normals(cameras: list[Any], points: NDArray[np.float64] | None, folder: Path) -> NDArray[np.float16]:
    """Shading normals [D,H,W,3] in the y-up world at pixel centers, of length 1, 0 where nothing is."""
    x, y, z = np.moveaxis(_render_pass("Normal", cameras, points, folder).astype(np.float64), -1, 0)
    normals = np.stack([x, z, -y], axis=-1)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.divide(normals, length, out=np.zeros_like(normals), where=length > 0).astype(np.float16)


def _render_pass(
    name: str, cameras: list[Any], points: NDArray[np.float64] | None, folder: Path
) -> NDArray[np.float32]:
    """A pass as linear color [D,H,W,3], top row first."""
    scene = bpy.context.scene
    _compose(name)
    image, file = scene.render.image_settings, folder / "pass.exr"
    image.file_format, image.color_mode, image.color_depth = "OPEN_EXR", "RGB", "32"
    views = []
    for matrix in cameras:
        aim(matrix, points)
        bpy.ops.render.render()  # `write_still` would build all geometry anew for every view
        bpy.data.images["Render Result"].save_render(str(file))
        views.append(_read(file))
    file.unlink()
    return np.stack(views)


def _compose(name: str) -> None:
    """Let the compositor put a pass where the image would be."""
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
