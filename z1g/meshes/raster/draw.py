"""Draws normalized meshes with OpenGL into images, depth and normals.

Images are drawn with several samples per pixel, in a frame that is one pixel larger on every side, and then filtered.
Only the rectangle that the mesh covers is cleared, filtered and read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster import shaders
from z1g.meshes.raster.context import open_context
from z1g.meshes.raster.occlusion import Occlusion
from z1g.meshes.raster.programs import Programs, Sun, put_material
from z1g.meshes.raster.scene import RADIUS, AlphaMode, Material, Part, Texture, flat_shaded
from z1g.meshes.raster.views import Box, aim, around, covered

MOST_LAYERS = 16
"""Layers of transparent surfaces behind each other that are drawn; deeper ones are left out."""
SRGB8_ALPHA8 = 0x8C43
ANISOTROPY = 16.0
VERTEX = np.dtype([("position", "f4", 3), ("normal", "f4", 3), ("uv", "f4", 2), ("color", "f4", 4)])
FIELDS = ("position", "normal", "uv", "color")


@dataclass(frozen=True)
class _Surface:
    """A part in the memory of the GPU: one array for each program."""

    programs: Programs
    color: Any
    geometry: Any
    occluder: Any
    material: Material
    texture: Any


class Rasterizer:
    """An OpenGL context without a screen, for square images of `resolution` pixels.

    samples: per pixel along each axis. ambient: radiance from everywhere; with 1 and no suns, the color of a pixel is
    the surface's own. occlusion: whether the object blocks a part of that radiance. Raises NoOpenGL.
    """

    def __init__(
        self, resolution: int, samples: int = 3, ambient: float = 1.0, suns: Sequence[Sun] = (), occlusion: bool = False
    ) -> None:
        self.context = open_context()
        self.renderer = str(self.context.info["GL_RENDERER"])
        self.resolution, self.samples = resolution, samples
        # Software runs 16 times as long for 16 samples along a texture, which the samples of a pixel replace.
        software = "llvmpipe" in self.renderer or "softpipe" in self.renderer
        self._anisotropy = 1.0 if software else min(ANISOTROPY, self.context.max_anisotropy)
        self.occlusion = Occlusion(self.context) if occlusion else None
        self._light = ambient, suns, self.occlusion
        self.programs: dict[AlphaMode, Programs] = {}
        self._filters()
        self._targets()
        self._white = self._upload(Texture(np.full((1, 1, 4), 255, np.uint8)))

    def _filters(self) -> None:
        context, weights = self.context, shaders.pixel_filter(self.samples)
        fragments = (
            shaders.filter_rows(weights, self.samples), shaders.resolve(weights, self.samples), shaders.COPY_FRAGMENT
        )  # fmt: skip
        self.filter_rows, self.resolve, self.copy = (
            context.vertex_array(context.program(shaders.SCREEN_VERTEX, fragment), []) for fragment in fragments
        )
        self.drawn_any = context.query(samples=True)

    def _targets(self) -> None:
        context, n, k = self.context, self.resolution, self.samples
        large, frame = (k * (n + 2),) * 2, (k, k, k * n, k * n)

        def target(size: tuple[int, int], kind: str, depth: Any = None, inside: Box | None = None) -> Any:
            made = context.framebuffer([context.texture(size, 4, dtype=kind)], depth)
            made.viewport = inside or (0, 0, *size)
            return made

        depths = [context.depth_texture(large) for _ in range(3)]
        for depth in depths:
            depth.compare_func = ""  # read as numbers
        self.solid = target(large, "f2", depths[0], frame)
        self.layers = [target(large, "f2", depth, frame) for depth in depths[1:]]
        self.sum = target(large, "f2", None, frame)
        self.rows = target((n, large[1]), "f2")
        self.image = target((n, n), "f1")
        self.surface = target((n, n), "f4", context.depth_renderbuffer((n, n)))

    @contextmanager
    def load(self, parts: Sequence[Part], reach: float = RADIUS) -> Iterator["Drawing"]:
        """Upload the normalized parts of a mesh; they are released after the block.

        reach: radius of the sphere around the origin that contains the mesh, where it is not normalized.
        """
        held: list[Any] = []
        # Another rasterizer of this process may have been the last one.
        with self.context:
            try:
                surfaces = self._surfaces(parts, held)
                if self.occlusion is not None:
                    occluders = [programs.occluder for programs in self.programs.values()]
                    self.occlusion.bake(occluders, partial(_draw_occluders, surfaces))
                yield Drawing(self, surfaces, around(np.concatenate([part.used() for part in parts])), reach)
            finally:
                for item in held:
                    item.release()

    def _surfaces(self, parts: Sequence[Part], held: list[Any]) -> list[_Surface]:
        """Upload parts and their textures, each texture once, and note in `held` what must be released."""
        textures: dict[int, Any] = {}
        surfaces = []
        for part in parts:
            texture = part.material.texture
            if texture is not None and id(texture) not in textures:
                textures[id(texture)] = self._upload(texture)
                held.append(textures[id(texture)])
            uploaded = self._white if texture is None else textures[id(texture)]
            surfaces.append(self._surface(flat_shaded(part), uploaded, held))
        return surfaces

    def _surface(self, part: Part, texture: Any, held: list[Any]) -> _Surface:
        vertices = np.zeros(len(part.positions), VERTEX)
        vertices["position"], vertices["color"] = part.positions, 1.0
        for name, values in (("normal", part.normals), ("uv", part.uv), ("color", part.color)):
            if values is not None:
                vertices[name] = values
        buffer = self.context.buffer(vertices.tobytes())
        indices = self.context.buffer(part.triangles.astype("u4").tobytes())
        mode = part.material.alpha_mode
        if mode not in self.programs:
            self.programs[mode] = Programs(self.context, mode, *self._light)
        programs = self.programs[mode]
        color, geometry, occluder = (
            program and self._array(program, buffer, indices)
            for program in (programs.color, programs.geometry, programs.occluder)
        )
        held += [*filter(None, (color, geometry, occluder)), buffer, indices]
        return _Surface(programs, color, geometry, occluder, part.material, texture)

    def _array(self, program: Any, vertices: Any, indices: Any) -> Any:
        """A vertex array of the fields that the program reads; a driver may have removed others."""
        layout = [f"{VERTEX[name].shape[0]}f" if name in program else f"{VERTEX[name].itemsize}x" for name in FIELDS]
        used = [name for name in FIELDS if name in program]
        return self.context.vertex_array(program, [(vertices, " ".join(layout), *used)], indices)

    def _upload(self, texture: Texture) -> Any:
        height, width, _ = texture.image.shape
        uploaded = self.context.texture((width, height), 4, texture.image.tobytes(), internal_format=SRGB8_ALPHA8)
        uploaded.build_mipmaps()
        magnified = self.context.NEAREST if texture.nearest else self.context.LINEAR
        uploaded.filter = (self.context.LINEAR_MIPMAP_LINEAR, magnified)
        uploaded.anisotropy = self._anisotropy
        uploaded.repeat_x, uploaded.repeat_y = (wrap == "repeat" for wrap in texture.wrap)  # mirrors: in the program
        return uploaded


class Drawing:
    """A mesh in the memory of the GPU. Cameras are c2w [4,4], y-up world, OpenCV axes."""

    def __init__(
        self, owner: Rasterizer, surfaces: Sequence[_Surface], hull: NDArray[np.float64], reach: float = RADIUS
    ) -> None:
        """hull: points [P,3] whose convex hull contains the mesh. reach: as of `Rasterizer.load`."""
        self._gl, self._surfaces, self._hull, self._reach = owner, surfaces, hull, reach

    def image(self, c2w: NDArray[np.float64], fov_y_deg: float) -> NDArray[np.uint8]:
        """The image [H,W,4] of one camera: 8-bit sRGB, straight alpha."""
        gl, n, k = self._gl, self._gl.resolution, self._gl.samples
        image = np.zeros((n, n, 4), np.uint8)
        box = covered(self._hull, c2w, fov_y_deg, n)
        if box is None:
            return image
        for programs in gl.programs.values():
            aim(programs.color, c2w, fov_y_deg, self._reach)
        left, bottom, width, height = box
        samples = (k * left, k * bottom, k * (width + 2), k * (height + 2))
        self._clear(gl.solid, samples, depth=1.0)
        translucent = [part for part in self._surfaces if part.material.alpha_mode == "blend"]
        self._draw([part for part in self._surfaces if part.material.alpha_mode != "blend"])
        self._filter(self._peeled(translucent, samples) if translucent else gl.solid, box)
        pixels = np.frombuffer(gl.image.read(viewport=box, components=4), np.uint8)
        image[n - bottom - height : n - bottom, left : left + width] = pixels.reshape(height, width, 4)[::-1]
        return image

    def geometry(self, c2w: NDArray[np.float64], fov_y_deg: float) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Planar depth [H,W] and unit normals [H,W,3] (y-up world) at pixel centers, 0 where there is no surface."""
        gl = self._gl
        for programs in gl.programs.values():
            aim(programs.geometry, c2w, fov_y_deg, self._reach)
        self._clear(gl.surface, (0, 0, gl.resolution, gl.resolution), depth=1.0)
        for part in self._surfaces:
            _use(part.programs.geometry, part)
            part.geometry.render()
        values = np.frombuffer(gl.surface.read(components=4, dtype="f4"), np.float32)
        upright = values.reshape(gl.resolution, gl.resolution, 4)[::-1]
        return np.ascontiguousarray(upright[..., 3]), upright[..., :3].astype(np.float16)

    def _clear(self, target: Any, box: Box, depth: float) -> None:
        target.use()
        target.clear(0.0, 0.0, 0.0, 0.0, depth=depth, viewport=box)
        self._gl.context.enable_only(self._gl.context.DEPTH_TEST)

    def _draw(self, parts: Sequence[_Surface]) -> None:
        for part in parts:
            _use(part.programs.color, part)
            part.color.render()

    def _peeled(self, translucent: Sequence[_Surface], box: Box) -> Any:
        """Add layers of transparent surfaces from the front to the back, then what is opaque behind them.

        Depth peeling (Everitt, 2001): each pass draws the nearest surface behind the layer before.
        """
        gl, query = self._gl, self._gl.drawn_any
        self._clear(gl.sum, box, 1.0)
        self._clear(gl.layers[1], box, 0.0)
        gl.solid.depth_attachment.use(2)
        for layer in range(MOST_LAYERS):
            target, before = gl.layers[layer % 2], gl.layers[(layer + 1) % 2]
            self._clear(target, box, 1.0)
            before.depth_attachment.use(1)
            with query:
                self._draw(translucent)
            if not query.samples:
                break
            self._add_behind(target)
        self._add_behind(gl.solid)
        return gl.sum

    def _add_behind(self, layer: Any) -> None:
        gl, context = self._gl, self._gl.context
        gl.sum.use()
        context.enable_only(context.BLEND)
        # Under operator (Porter and Duff, 1984): sum + (1 - sum's alpha) * layer, premultiplied.
        context.blend_func = context.ONE_MINUS_DST_ALPHA, context.ONE
        layer.color_attachments[0].use(0)
        gl.copy.render(context.TRIANGLES, 3)

    def _filter(self, samples: Any, box: Box) -> None:
        gl, context, k = self._gl, self._gl.context, self._gl.samples
        left, bottom, width, height = box
        context.enable_only(context.NOTHING)
        for array, source, target, scissor in (
            (gl.filter_rows, samples, gl.rows, (left, k * bottom, width, k * (height + 2))),
            (gl.resolve, gl.rows, gl.image, box),
        ):
            target.scissor = scissor
            target.use()
            source.color_attachments[0].use(0)
            array.render(context.TRIANGLES, 3)


def _draw_occluders(parts: Sequence[_Surface]) -> None:
    for part in parts:
        _use(part.programs.occluder, part)
        part.occluder.render()


def _use(program: Any, part: _Surface) -> None:
    put_material(program, part.material)
    part.texture.use(0)
