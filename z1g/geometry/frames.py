"""Frames of other systems' outputs: axes, scale and the camera of the condition image, each with its source.

A frame says where the condition camera is in the coordinates of a file. With the true condition camera, this places the
file's content in z1g's y-up world. What a system's authors do not say is in `unknown`; nothing is guessed silently.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
FrameName = Literal[
    "auto", "z1g", "lgm", "grm", "trellis", "diffsplat", "instantmesh", "instantmesh_texmap", "instantmesh_app",
    "triposr", "sf3d", "spar3d", "zero123plus",
]  # fmt: skip
Size = Literal["camera", "box", "same"]
"""What the unit of a file is. camera: the condition camera's distance is known in it; box: the longest side of the
object's bounding box is 1; same: that of z1g's normalized objects."""
Color = Literal["harmonics", "sigmoid"]
"""What `f_dc` of a `.ply` is: a harmonic of degree 0 (color = 0.5 + 0.2821·f_dc), or color = sigmoid(f_dc)."""

Y_UP: Rows = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
Y_DOWN: Rows = ((1, 0, 0), (0, -1, 0), (0, 0, -1))
Z_UP_FRONT_X: Rows = ((0, 1, 0), (0, 0, 1), (1, 0, 0))
HALF_TURN: Rows = ((-1, 0, 0), (0, 1, 0), (0, 0, -1))
Z_MIRRORED: Rows = ((0, 1, 0), (0, 0, -1), (1, 0, 0))
_DIAGONAL = math.sqrt(0.5)
AZIMUTH_225: Rows = ((_DIAGONAL, -_DIAGONAL, 0), (0, 0, 1), (-_DIAGONAL, -_DIAGONAL, 0))


@dataclass(frozen=True)
class Frame:
    """Coordinates of a system's files.

    axes: rows [3,3] from the file's coordinates to a y-up world in which the condition camera is at azimuth 0 (towards
    +z); `mesh_axes` are those of mesh files, where they differ. A determinant of -1 is a mirrored file. radius,
    fov_y_deg: of the condition camera, in the file's unit. tilted: the system takes the condition's elevation for 0, so
    that its object leans. sources: where each field is from. registers: a similarity has to be found for each object.
    """

    axes: Rows
    size: Size
    sources: dict[str, str]
    radius: float | None = None
    fov_y_deg: float | None = None
    mesh_axes: Rows | None = None
    tilted: bool = False
    color: Color = "harmonics"
    unknown: tuple[str, ...] = ()
    registers: bool = False

    def scale(self, radius: float, fov_y_deg: float, longest_side: float) -> float:
        """Factor from the file's unit to normalized units, for objects as the true condition camera sees them.

        The image of a small object at the origin has the same size in both cameras. longest_side: of the true object's
        bounding box, normalized units.
        """
        if self.size == "box":
            return longest_side
        if self.size == "same" or self.radius is None or self.fov_y_deg is None:
            return 1.0
        return (radius * math.tan(math.radians(fov_y_deg) / 2)) / (
            self.radius * math.tan(math.radians(self.fov_y_deg) / 2)
        )


@dataclass(frozen=True)
class Condition:
    """The true condition camera of an object: angles in the y-up world, degrees, distance, field of view.

    longest_side: of the object's bounding box, normalized units.
    """

    azimuth_deg: float
    elevation_deg: float
    radius: float
    fov_y_deg: float
    longest_side: float = 1.0

    @classmethod
    def of(cls, c2w: Array, fov_y_deg: float, longest_side: float = 1.0) -> Condition:
        """From the pose [4,4] of the condition view in the y-up world."""
        x, y, z = c2w[:3, 3]
        level = math.hypot(x, z)
        azimuth, elevation = math.degrees(math.atan2(x, z)), math.degrees(math.atan2(y, level))
        return cls(azimuth, elevation, math.hypot(level, y), fov_y_deg, longest_side)


def to_world(frame: Frame, condition: Condition, mesh: bool = False) -> Array:
    """Affine map [4,4] from a file's coordinates to the normalized y-up world."""
    rows = frame.mesh_axes if mesh and frame.mesh_axes is not None else frame.axes
    matrix = np.eye(4)
    scale = frame.scale(condition.radius, condition.fov_y_deg, condition.longest_side)
    lean = about_x(-condition.elevation_deg) if frame.tilted else np.eye(3)
    matrix[:3, :3] = scale * (about_y(condition.azimuth_deg) @ lean @ np.array(rows, np.float64))
    return matrix


def about_y(degrees: float) -> Array:
    """Rotation [3,3] about the upright axis, from +z towards +x."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])


def about_x(degrees: float) -> Array:
    """Rotation [3,3] about x, from +y towards +z."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


_LGM = "github.com/3DTopia/LGM@fe8d12c"
_GRM = "github.com/justimyhxu/GRM@0d4efb1"
_TRELLIS = "github.com/microsoft/TRELLIS@6b0d647"
_DIFFSPLAT = "github.com/chenguolin/DiffSplat@a99d757"
_INSTANTMESH = "github.com/TencentARC/InstantMesh@08822c5"
_TRIPOSR = "github.com/VAST-AI-Research/TripoSR@d26e331"
_SF3D = "github.com/Stability-AI/stable-fast-3d@ff21fc4"
_SPAR3D = "github.com/Stability-AI/stable-point-aware-3d@fdc311b"
_CANONICAL = "whether its objects stand upright or lean with the condition's elevation: learned, not documented"

FRAMES: dict[FrameName, Frame] = {
    "auto": Frame(
        Y_DOWN, "same", {"axes": "y down in splats and y up in meshes, as most viewers expect; the rest is registered"},
        mesh_axes=Y_UP, registers=True, unknown=("everything but the upright axis",),
    ),
    "z1g": Frame(
        Y_DOWN, "same", {"axes": "z1g/gaussians/ply.py: COLMAP's y-down world", "size": "normalized objects"},
        mesh_axes=Y_UP,
    ),
    "lgm": Frame(
        Y_UP, "camera",
        {
            "axes": f"{_LGM} core/models.py: orbit_camera at azimuth 0 is on +z, y up; core/gs.py saves without a turn",
            "radius": f"{_LGM} core/options.py: cam_radius 1.5",
            "fov_y_deg": f"{_LGM} core/options.py: fovy 49.1",
            "tilted": f"{_LGM} infer.py: the multi-view model is asked for elevation 0, whatever the condition's is",
        },
        radius=1.5, fov_y_deg=49.1, tilted=True,
    ),
    "grm": Frame(
        AZIMUTH_225, "camera",
        {
            "axes": f"{_GRM} test.py: z up; generate_input_camera puts the condition at azimuth 225 from +x to +y",
            "radius": f"{_GRM} test.py: 2.7", "fov_y_deg": f"{_GRM} test.py: 50",
            "color": f"{_GRM} model/render/gaussian_utils.py: color is sigmoid(f_dc), which save_ply writes as it is",
            "tilted": f"{_GRM} test.py: elevations of Zero123++ v1.1 are taken for absolute ones",
        },
        radius=2.7, fov_y_deg=50.0, color="sigmoid",
        unknown=("what scale_i holds in files of a model with sigmoid scales; read as logarithms",),
    ),
    "trellis": Frame(
        Y_DOWN, "box",
        {
            "axes": f"{_TRELLIS} trellis/representations/gaussian/gaussian_model.py, save_ply: (x, -z, y), z up",
            "mesh_axes": f"{_TRELLIS} trellis/utils/postprocessing_utils.py, to_glb: y up",
            "size": f"{_TRELLIS} trellis/models/structured_latent_vae/decoder_gs.py: the cube of side 1 at the origin",
        },
        mesh_axes=Y_UP, registers=True,
        unknown=("its turn about the upright axis: objects stand as their authors modeled them, not as the condition "
                 "sees them", "its scale, where it does not fill the cube"),
    ),
    "diffsplat": Frame(
        Y_UP, "camera",
        {
            "axes": f"{_DIFFSPLAT} src/utils/geo_util.py, orbit_camera: azimuth 0 is on +z, y up",
            "radius": f"{_DIFFSPLAT} src/infer_gsdiff_sd.py: --distance 1.4",
            "fov_y_deg": f"{_DIFFSPLAT} src/options.py: fxfy 1422.222 / 1024 of the image's side",
            "tilted": f"{_DIFFSPLAT} src/infer_gsdiff_sd.py: --elevation, or an estimate, places the cameras upright",
        },
        radius=1.4, fov_y_deg=math.degrees(2 * math.atan(0.5 / (1422.222 / 1024))),
        unknown=("the elevation that it was given or estimated; an error tilts its object",),
    ),
    "instantmesh": Frame(
        Z_MIRRORED, "camera",
        {
            "axes": f"{_INSTANTMESH} src/utils/camera_util.py: z up, condition on +x; src/utils/mesh_util.py, "
            "save_obj, called by run.py, negates z and turns the faces",
            "radius": f"{_INSTANTMESH} run.py: 4.0", "fov_y_deg": f"{_INSTANTMESH} src/utils/camera_util.py: 30",
            "tilted": f"{_INSTANTMESH} src/utils/camera_util.py: absolute elevations 20 and -10 (Zero123++ v1.2)",
        },
        radius=4.0, fov_y_deg=30.0,
        unknown=("how large Zero123++ v1.2 draws an object in relation to the condition image",),
    ),
    "instantmesh_texmap": Frame(
        Z_UP_FRONT_X, "camera",
        {
            "axes": f"{_INSTANTMESH} run.py --export_texmap: save_obj_with_mtl writes the vertices as they are",
            "radius": f"{_INSTANTMESH} run.py: 4.0", "fov_y_deg": f"{_INSTANTMESH} src/utils/camera_util.py: 30",
        },
        radius=4.0, fov_y_deg=30.0,
        unknown=("how large Zero123++ v1.2 draws an object in relation to the condition image",),
    ),
    "instantmesh_app": Frame(
        HALF_TURN, "camera",
        {
            "axes": f"{_INSTANTMESH} app.py: vertices[:, [1, 2, 0]], y up; save_glb then turns by 180 degrees. Its "
            ".obj is mirrored; use the .glb",
            "radius": f"{_INSTANTMESH} app.py: 4.0", "fov_y_deg": f"{_INSTANTMESH} src/utils/camera_util.py: 30",
        },
        radius=4.0, fov_y_deg=30.0,
        unknown=("how large Zero123++ v1.2 draws an object in relation to the condition image",),
    ),
    "triposr": Frame(
        Z_UP_FRONT_X, "camera",
        {
            "axes": f"{_TRIPOSR} tsr/utils.py, get_spherical_cameras: z up, azimuth 0 on +x; run.py does not turn it",
            "radius": f"{_TRIPOSR} tsr/system.py, render: camera_distance 1.9",
            "fov_y_deg": f"{_TRIPOSR} tsr/system.py, render: fovy_deg 40",
        },
        radius=1.9, fov_y_deg=40.0,
        unknown=(_CANONICAL, "whether the condition's camera is that of `render`: the network sees no camera"),
    ),
    "sf3d": Frame(
        HALF_TURN, "camera",
        {
            "axes": f"{_SF3D} sf3d/utils.py, default_cond_c2w: z up, condition on +x; sf3d/system.py then turns by -90 "
            "degrees about x and 90 about y",
            "radius": f"{_SF3D} sf3d/system.py: default_distance 1.6",
            "fov_y_deg": f"{_SF3D} sf3d/system.py: default_fovy_deg 40",
            "tilted": f"{_SF3D} sf3d/utils.py, default_cond_c2w: the condition has elevation 0",
        },
        radius=1.6, fov_y_deg=40.0, tilted=True, unknown=(_CANONICAL,),
    ),
    "spar3d": Frame(
        HALF_TURN, "camera",
        {
            "axes": f"{_SPAR3D} spar3d/utils.py, default_cond_c2w, and spar3d/system.py, output_rotation: as SF3D",
            "radius": f"{_SPAR3D} spar3d/system.py: default_distance 2.2",
            "fov_y_deg": f"{_SPAR3D} spar3d/system.py: default_fovy_rad 0.591627",
            "tilted": f"{_SPAR3D} spar3d/utils.py, default_cond_c2w: the condition has elevation 0",
        },
        radius=2.2, fov_y_deg=math.degrees(0.591627), tilted=True, unknown=(_CANONICAL,),
    ),
    "zero123plus": Frame(
        Z_UP_FRONT_X, "camera",
        {
            "axes": f"{_INSTANTMESH} src/utils/camera_util.py, get_zero123plus_input_cameras: z up, condition on +x",
            "radius": f"{_INSTANTMESH} src/utils/camera_util.py: 4.0, its convention for Zero123++'s images",
            "fov_y_deg": f"{_INSTANTMESH} src/utils/camera_util.py: 30, its convention for Zero123++'s images",
        },
        radius=4.0, fov_y_deg=30.0,
        unknown=("the distance of Zero123++'s cameras: its README has azimuths and elevations only",),
    ),
}  # fmt: skip
"""Presets by name; `registers` says which need a registration because their authors' files do not say enough."""
