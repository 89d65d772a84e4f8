"""Meshes of other systems, drawn with the rasterizer of meshes in the light of our renders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from z1g.core.errors import UserError
from z1g.geometry.camera import Cameras
from z1g.meshes.files import problem
from z1g.meshes.limits import FileLimits
from z1g.meshes.raster.draw import Rasterizer
from z1g.meshes.raster.reading import read_mesh
from z1g.meshes.raster.scene import MeshError, Part, face_normals
from z1g.meshes.raster.worker import start
from z1g.meshes.renderers.raster import Raster, opengl_problem
from z1g.peers.content import Array, Cloud, Content, Drawn

SAMPLES = 50_000
"""Points of the surface that stand for a mesh in metrics of geometry."""


class Drawer:
    """The rasterizer of meshes, started for the first mesh, for square images of `resolution` pixels."""

    def __init__(self, options: Raster, resolution: int) -> None:
        self.options, self.resolution = options, resolution
        self._started: Rasterizer | None = None

    def rasterizer(self) -> Rasterizer:
        """The rasterizer. Raises UserError where OpenGL does not work."""
        if self._started is None:
            trouble = opengl_problem()
            if trouble is not None:
                raise UserError(f"meshes of other systems are drawn with OpenGL: {trouble}")
            self._started = start({**self.options.settings(), "resolution": self.resolution})
        return self._started


@dataclass(frozen=True)
class MeshContent(Content):
    """Triangles with materials."""

    parts: tuple[Part, ...]
    drawer: Drawer
    kind: ClassVar[str] = "mesh"  # type: ignore[misc]

    def moved(self, matrix: Array) -> MeshContent:
        return replace(self, parts=tuple(_moved(part, matrix) for part in self.parts))

    def draw(self, cameras: Cameras) -> Drawn:
        used = np.concatenate([part.used() for part in self.parts])
        reach = max(0.5, float(np.linalg.norm(used, axis=1).max()))
        poses = cameras.c2w[0].double().cpu().numpy()
        with self.drawer.rasterizer().load(list(self.parts), reach) as drawing:
            images = [drawing.image(pose, cameras.fov_y_deg) for pose in poses]
            depths = [drawing.geometry(pose, cameras.fov_y_deg)[0] for pose in poses]
        rgba = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        alpha, depth = rgba[:, 3:], torch.from_numpy(np.stack(depths))[:, None]
        return Drawn(rgba[:, :3] * alpha, alpha, depth * alpha)

    def cloud(self) -> Cloud:
        """Points sampled uniformly by area."""
        corners = np.concatenate([part.positions[part.triangles] for part in self.parts])
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        draw = np.random.default_rng(0)
        chosen = draw.choice(len(corners), size=SAMPLES, p=area / area.sum())
        normals = np.concatenate([face_normals(part.positions, part.triangles) for part in self.parts])[chosen]
        points = _inside(corners[chosen], draw)
        return Cloud(torch.from_numpy(points), torch.ones(SAMPLES, dtype=torch.float64), torch.from_numpy(normals))


def read_mesh_content(path: Path, drawer: Drawer) -> MeshContent:
    """The mesh of a file in its own coordinates. Raises UserError with the reason if it cannot be used."""
    reason = problem(path, FileLimits())
    if reason is not None:
        raise UserError(reason)
    try:
        parts, _ = read_mesh(path, drawer.options.triangles)
    except MeshError as error:
        raise UserError(str(error)) from error
    kept = [part for part in parts if len(part.triangles)]
    if not kept:
        raise UserError("the mesh has no faces; the file is empty or truncated")
    used = np.concatenate([part.used() for part in kept])
    if not np.isfinite(used).all():
        raise UserError("the mesh has vertices that are not finite numbers (NaN or infinity)")
    corners = np.concatenate([part.positions[part.triangles] for part in kept])
    if not np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() > 0:
        raise UserError("none of the mesh's faces has an area")
    return MeshContent(tuple(kept), drawer)


def _moved(part: Part, matrix: Array) -> Part:
    """A part after an affine map; one that mirrors turns the faces, so that the outside stays outside."""
    linear = matrix[:3, :3]
    mirrored = np.linalg.det(linear) < 0
    normals = part.normals
    if normals is not None:
        turned = normals @ np.linalg.inv(linear)
        length = np.linalg.norm(turned, axis=1, keepdims=True)
        normals = np.divide(turned, length, out=np.zeros_like(turned), where=length > 0)
    triangles = part.triangles[:, ::-1] if mirrored else part.triangles
    return replace(part, positions=part.positions @ linear.T + matrix[:3, 3], triangles=triangles, normals=normals)


def _inside(corners: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.float64]:
    """A point inside each triangle [N,3,3], uniformly (Osada et al., ACM TOG 2002, equation 1)."""
    root, along = np.sqrt(draw.random((len(corners), 1))), draw.random((len(corners), 1))
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    points: NDArray[np.float64] = (1 - root) * a + root * (1 - along) * b + root * along * c
    return points
