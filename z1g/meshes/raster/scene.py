"""What a mesh file contains, once it is read: parts with vertices in the file's world and one material each."""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FLAT = 1e-4
"""A mesh counts as flat if its smallest extent is below this fraction of its largest."""
SIZES = (1e-12, 1e12)
"""Smallest and largest extent of a mesh; outside, squared coordinates leave the range of float32."""
RADIUS = 0.5
"""Radius of the sphere that a normalized mesh fits into."""

Wrap = Literal["repeat", "clamp", "mirror"]
AlphaMode = Literal["opaque", "mask", "blend"]


class MeshError(Exception):
    """The mesh cannot be used; the message is shown to the user."""


def require_few(triangles: int, limit: int) -> None:
    """Raise MeshError for meshes with too many triangles."""
    if triangles > limit:
        raise MeshError(f"the mesh has {triangles:,} triangles, more than data.renderer.triangles {limit:,}")


@dataclass(frozen=True, eq=False)
class Texture:
    """An image [H,W,4], 8 bit, straight alpha, sRGB, top row first, and how it continues outside of [0,1]².

    `name` tells from which file it is, where that is known.
    """

    image: NDArray[np.uint8]
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
    nearest: bool = False
    """Whether magnified texels keep their edges."""
    name: str = ""


@dataclass(frozen=True, eq=False)
class Material:
    """Base color and alpha of a surface: factor · texture · vertex color, as glTF 2.0 defines them (section 3.9.2).

    `factor` is linear RGBA. Where the alpha mode is "mask", alpha is 0 below `cutoff` and 1 above.
    """

    factor: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    texture: Texture | None = None
    alpha_mode: AlphaMode = "opaque"
    cutoff: float = 0.5


GRAY = Material((0.8, 0.8, 0.8, 1.0))
"""Material of surfaces that have none, as in Blender."""


@dataclass(frozen=True, eq=False)
class Part:
    """Triangles [T,3] of vertices: positions [N,3], normals [N,3], uv [N,2] (origin at the image's top left), color
    [N,4] (linear).
    """

    positions: NDArray[np.float64]
    triangles: NDArray[np.int64]
    normals: NDArray[np.float64] | None = None
    uv: NDArray[np.float64] | None = None
    color: NDArray[np.float64] | None = None
    material: Material = field(default_factory=Material)

    def used(self) -> NDArray[np.float64]:
        """The positions [M,3] that triangles have; others may be anything, also not finite."""
        has_triangle = np.zeros(len(self.positions), bool)
        has_triangle[self.triangles] = True
        return self.positions[has_triangle]


@dataclass(frozen=True)
class Normalization:
    """p_z1g = (p - center) * scale; as in `z1g/meshes/blender/geometry.py`."""

    center: tuple[float, float, float]
    scale: float
    up_axis: Literal["y", "z"]


def normalized(parts: list[Part], up_axis: Literal["y", "z"]) -> tuple[list[Part], Normalization]:
    """The parts, y-up, centered on their bounding box and scaled into the sphere of radius 0.5.

    Raises MeshError for meshes that are empty, not finite, flat, tiny or huge, and for texture coordinates that are not
    finite.
    """
    upright = y_up([part for part in parts if len(part.triangles)], up_axis)
    if not upright:
        raise MeshError("the mesh has no faces; the file is empty or truncated")
    used = np.concatenate([part.used() for part in upright])
    if not np.isfinite(used).all():
        raise MeshError("the mesh has vertices that are not finite numbers (NaN or infinity)")
    low, high = used.min(axis=0), used.max(axis=0)
    extent = high - low
    if extent.max() == 0:
        raise MeshError("the mesh is a single point: its bounding box has no size")
    if not SIZES[0] <= extent.max() <= SIZES[1]:
        raise MeshError(f"the mesh is {extent.max():.3g} units large; {SIZES[0]:g} to {SIZES[1]:g} can be rendered")
    if extent.min() < FLAT * extent.max():
        raise MeshError(f"the mesh is flat: its bounding box is {' x '.join(f'{side:.4g}' for side in extent)}")
    upright = [_drawable(part) for part in upright]
    center = (low + high) / 2
    scale = RADIUS / float(np.linalg.norm(used - center, axis=1).max())
    placed = [replace(part, positions=(part.positions - center) * scale) for part in upright]
    x, y, z = center.tolist()
    return placed, Normalization((x, y, z), scale, up_axis)


def _drawable(part: Part) -> Part:
    """The part with unit normals, and with texture coordinates only where there is a texture."""
    uv = part.uv if part.material.texture is not None else None
    if uv is not None and not np.isfinite(uv[np.unique(part.triangles)].astype(np.float32)).all():
        raise MeshError("the mesh has texture coordinates that are not finite numbers (NaN or infinity)")
    return replace(part, uv=uv, normals=None if part.normals is None else _unit_normals(part, part.normals))


def _unit_normals(part: Part, normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normals of unit length; those without a direction become the mean of their faces' normals."""
    length = np.linalg.norm(normals, axis=1)
    absent = ~((length > 0) & np.isfinite(length))
    if absent.any():
        mean = np.zeros_like(normals)
        np.add.at(mean, part.triangles, face_normals(part.positions, part.triangles)[:, None])
        normals = np.where(absent[:, None], mean, normals)
        length = np.linalg.norm(normals, axis=1)
    unit: NDArray[np.float64] = normals / np.where(length > 0, length, 1.0)[:, None]
    return unit


def y_up(parts: list[Part], up_axis: Literal["y", "z"]) -> list[Part]:
    """The parts in a y-up world."""
    return parts if up_axis == "y" else [_raised(part) for part in parts]


def _raised(part: Part) -> Part:
    """From a z-up to a y-up world: (x, y, z) -> (x, z, -y)."""
    turn = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])
    normals = None if part.normals is None else part.normals @ turn.T
    return replace(part, positions=part.positions @ turn.T, normals=normals)


def face_normals(positions: NDArray[np.float64], triangles: NDArray[np.int64]) -> NDArray[np.float64]:
    """Unit normals [T,3], counterclockwise seen from outside; 0 for triangles without an area."""
    a, b, c = (positions[triangles[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)
    return unit


def flat_shaded(part: Part) -> Part:
    """A part without normals, with three vertices of its own for every triangle and the triangle's normal at them."""
    if part.normals is not None:
        return part
    corners = part.triangles.reshape(-1)
    per_corner = [None if values is None else values[corners] for values in (part.uv, part.color)]
    normals = np.repeat(face_normals(part.positions, part.triangles), 3, axis=0)
    return replace(
        part, positions=part.positions[corners], triangles=np.arange(len(corners)).reshape(-1, 3), normals=normals,
        uv=per_corner[0], color=per_corner[1],
    )  # fmt: skip
