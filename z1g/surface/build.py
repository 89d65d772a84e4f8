"""Conversion of Gaussians to a textured mesh in glTF."""

import importlib
import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.files import atomic_file
from z1g.core.names import counted
from z1g.core.progress import Check, no_check
from z1g.gaussians.channels import CHANNELS
from z1g.gaussians.files import visible
from z1g.gaussians.finite import require_finite
from z1g.render import Rasterizer
from z1g.surface.cleaning import clean
from z1g.surface.fusion import fuse
from z1g.surface.views import SOLID, Frame, look

log = logging.getLogger("z1g")
PACKAGES = ("trimesh", "skimage", "scipy", "xatlas", "fast_simplification")


@dataclass(frozen=True)
class MeshOptions:
    """Options of mesh extraction.

    views: images around the object, view_size pixels wide. resolution: voxels along the longest side. faces: maximum
    number of triangles. texture: width in texels. refine: optimize points and texture on renders of the Gaussians (GPU
    only).
    """

    views: int = 40
    view_size: int = 256
    resolution: int = 128
    faces: int = 10_000
    texture: int = 1024
    refine: bool = False


@dataclass(frozen=True)
class TexturedMesh:
    """points and normals [N,3] in the Gaussians' frame, faces [F,3], uv [N,2] with v up, texture [S,S,3] bytes."""

    points: NDArray[np.float64]
    normals: NDArray[np.float64]
    faces: NDArray[np.int64]
    uv: NDArray[np.float64]
    texture: NDArray[np.uint8]

    def save(self, path: Path) -> None:
        """Write a `.glb` file with a matte material. glTF is y-up like z1g's world, so points are unchanged."""
        import trimesh
        from PIL import Image

        material = trimesh.visual.material.PBRMaterial(
            baseColorTexture=Image.fromarray(self.texture), metallicFactor=0.0, roughnessFactor=1.0
        )
        mesh = trimesh.Trimesh(
            self.points, self.faces, vertex_normals=self.normals, process=False,
            visual=trimesh.visual.TextureVisuals(uv=self.uv, material=material),
        )  # fmt: skip
        content: Any = mesh.export(file_type="glb")
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)


def require_packages(refine: bool = False) -> None:
    """Raise UserError if a package required for meshes is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"meshes need {', '.join(missing)}: pip install 'z1g[mesh]'")
    if refine:
        from z1g.surface.refinement import require_gpu

        require_gpu()


def build(gaussians: Tensor, rasterizer: Rasterizer, options: MeshOptions, check: Check = no_check) -> TexturedMesh:
    """Build a mesh of activated Gaussians [N,14]. Raises UserError.

    They must be finite and have a surface, and the packages must be installed. check: called between the parts of the
    work, and between views.
    """
    require_packages(options.refine)
    require_finite(gaussians, "no mesh is made")
    from z1g.surface.texture import bake, unwrap

    visible_gaussians = visible(gaussians)
    frame = Frame.around(visible_gaussians)
    inside = frame.enter(visible_gaussians)
    views = look(rasterizer, inside, options.views, options.view_size, check)
    solid = inside[inside[:, CHANNELS["opacity"].start] >= SOLID, CHANNELS["position"]]
    raw = fuse(views, solid.min(dim=0).values, solid.max(dim=0).values, options.resolution, check)
    check()
    surface = clean(raw, options.faces)
    log.info("%s, %d after cleaning; unwrapping", counted(len(raw.faces), "triangle"), len(surface.faces))
    check()
    mesh = unwrap(surface, options.texture)
    texture = bake(mesh, views, options.texture, check)
    if options.refine:
        from z1g.surface.refinement import refine

        mesh, texture = refine(mesh, texture, rasterizer, inside, check=check)
    return TexturedMesh(frame.leave(mesh.points), mesh.normals, mesh.faces, mesh.uv, texture)
