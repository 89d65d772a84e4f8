"""Setup of camera, lights and renderer, and rendering of the images."""

import math
from pathlib import Path
from typing import Any

import bpy  # type: ignore[import-not-found,unused-ignore]
import numpy as np
from clock import Clock
from faults import SettingsError
from framing import aim
from numpy.typing import NDArray

GPU_KINDS = ("OPTIX", "CUDA", "HIP", "METAL", "ONEAPI")
"""In order of preference."""
EEVEE = "BLENDER_EEVEE_NEXT" if (4, 2) <= bpy.app.version < (5, 0) else "BLENDER_EEVEE"


def choose_gpu() -> None:
    """Make Cycles render on this machine's GPUs only, without the CPU. Raises SettingsError if there is no GPU."""
    preferences = bpy.context.preferences.addons["cycles"].preferences
    for kind in GPU_KINDS:
        try:
            preferences.compute_device_type = kind
        except TypeError:
            continue  # this Blender was built without it
        preferences.refresh_devices()
        for device in preferences.devices:
            device.use = device.type == kind
        if any(device.use for device in preferences.devices):
            return
    raise SettingsError(f"Cycles finds no GPU here (looked for {', '.join(GPU_KINDS)})")


def try_eevee() -> None:
    """Render a tiny image: without a graphics driver, EEVEE crashes Blender. This detects it before any object."""
    scene = bpy.context.scene
    scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.render.engine, scene.eevee.taa_render_samples = EEVEE, 1
    scene.render.resolution_x = scene.render.resolution_y = 8
    bpy.ops.render.render()


def set_up(settings: dict[str, Any]) -> None:
    """Set up camera, lights and renderer of the imported scene."""
    scene, render, cycles = bpy.context.scene, bpy.context.scene.render, bpy.context.scene.cycles
    lens = bpy.data.cameras.new("camera")
    lens.sensor_fit = "VERTICAL"
    lens.angle, lens.clip_start, lens.clip_end = math.radians(settings["fov_y_deg"]), 0.01, 1e4
    scene.camera = bpy.data.objects.new("camera", lens)
    scene.collection.objects.link(scene.camera)
    light(**settings["lighting"])
    render.engine = EEVEE if settings["engine"] == "eevee" else "CYCLES"
    scene.eevee.taa_render_samples = settings["samples"]
    cycles.device = settings["device"].upper()
    cycles.samples = settings["samples"]
    # Adaptive sampling and denoising depend on thresholds; dither adds noise to uniform colors.
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


def light(strength: float, panorama: dict[str, Any] | None, suns: list[dict[str, float]]) -> None:
    """Set a uniform white background or a panorama, and suns; see `z1g.meshes.lighting.Light`. Raises SettingsError."""
    scene, world = bpy.context.scene, bpy.data.worlds.new("world")
    world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (1, 1, 1, 1)
    background.inputs["Strength"].default_value = strength
    scene.world = world
    if panorama is not None:
        _hang_panorama(world.node_tree, background, **panorama)
    for sun in suns:
        lamp = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
        lamp.data.energy = sun["strength"]
        # A sun shines along -z; rotated by 90 - elevation about x, it shines from the front (Blender's -y).
        lamp.rotation_euler = (math.radians(90 - sun["elevation_deg"]), 0, math.radians(sun["azimuth_deg"]))
        scene.collection.objects.link(lamp)


def _hang_panorama(tree: Any, background: Any, file: str, rotation_deg: float) -> None:
    try:
        image = bpy.data.images.load(file)
    except RuntimeError as error:
        raise SettingsError(f"{file} cannot be read: {str(error).strip()}") from error
    if not image.size[0]:
        raise SettingsError(f"{file} is not an image that Blender can read")
    texture, mapping = tree.nodes.new("ShaderNodeTexEnvironment"), tree.nodes.new("ShaderNodeMapping")
    texture.image = image
    # Cycles places the center of a panorama at +x; the condition view's camera is at -y.
    mapping.inputs["Rotation"].default_value = (0, 0, math.radians(90 - rotation_deg))
    tree.links.new(tree.nodes.new("ShaderNodeTexCoord").outputs["Generated"], mapping.inputs["Vector"])
    tree.links.new(mapping.outputs["Vector"], texture.inputs["Vector"])
    tree.links.new(texture.outputs["Color"], background.inputs["Color"])


def render_images(cameras: list[Any], points: NDArray[np.float64] | None, folder: Path, clock: Clock) -> None:
    """Write one PNG per camera; `points`: see `aim`.

    Every view has its own seed, so that the noise pattern differs between views.
    """
    scene = bpy.context.scene
    image = scene.render.image_settings
    image.file_format, image.color_mode, image.color_depth, image.compression = "PNG", "RGBA", "8", 15
    for view, matrix in enumerate(cameras):
        aim(matrix, points)
        scene.cycles.seed = view
        # With persistent data, Cycles ignores a new seed without a tag; tags other than TIME rebuild all geometry.
        scene.update_tag(refresh={"TIME"})
        with clock("render"):
            bpy.ops.render.render()
        with clock("write"):
            bpy.data.images["Render Result"].save_render(str(folder / f"{view:03d}.png"))
