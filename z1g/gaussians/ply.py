"""Splats as 3D Gaussian Splatting `.ply` files.

One vertex per Gaussian with the properties of the 3DGS reference: position, normals (zero), f_dc (degree-0 spherical
harmonics), logit opacity, log scales, quaternion with w first. Files use the y-down world of COLMAP reconstructions,
which splat viewers rotate upright; `write` rotates z1g's y-up world by 180 degrees about x.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.names import counted
from z1g.gaussians import ply_table
from z1g.gaussians.affine import transform, transform_back
from z1g.gaussians.channels import CHANNELS
from z1g.gaussians.harmonics import DEGREES

log = logging.getLogger("z1g")
SH_C0 = 0.28209479177387814
"""Degree-0 spherical harmonic: color = 0.5 + SH_C0·f_dc."""
Y_UP_TO_Y_DOWN = np.diag([1.0, -1.0, -1.0, 1.0])
PROPERTIES = (
    ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
    + [f"scale_{i}" for i in range(3)]
    + [f"rot_{i}" for i in range(4)]
)  # fmt: skip
EPSILON = 1e-8
MAX_POINTS = 10_000_000
"""Limit of Gaussians in a file of any format, that of Niantic's reader; a larger number means that it is damaged."""


def write(path: Path, gaussians: Tensor, to_world: NDArray[np.float64]) -> None:
    """Write activated Gaussians [N,14]; `to_world` [4,4] is the rigid transform from their frame to the y-up world."""
    moved = transform(gaussians.detach().cpu().double(), Y_UP_TO_Y_DOWN @ to_world).numpy()
    rgb = (moved[:, CHANNELS["rgb"]] - 0.5) / SH_C0
    opacity = np.clip(moved[:, CHANNELS["opacity"]], EPSILON, 1 - EPSILON)
    columns = [
        moved[:, CHANNELS["position"]],
        np.zeros_like(rgb),
        rgb,
        np.log(opacity / (1 - opacity)),
        np.log(np.maximum(moved[:, CHANNELS["scale"]], 0) + EPSILON),
        moved[:, CHANNELS["rotation"]],
    ]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(moved)}"]
    header += [f"property float {name}" for name in PROPERTIES] + ["end_header\n"]
    path.write_bytes("\n".join(header).encode("ascii") + np.concatenate(columns, axis=1).astype("<f4").tobytes())


def read(path: Path, to_world: NDArray[np.float64]) -> Tensor:
    """Inverse of `write`: activated Gaussians [N,14], float32, in the frame that `to_world` maps to the world.

    Any legal `.ply` of Gaussians is read: ascii or binary, of either byte order, numbers of any type, with other
    properties and elements. Harmonics above degree 0 are dropped, which is logged. Raises UserError if the file is
    something else, lacks properties, or is truncated.
    """
    column = _columns(path)
    bands = [name for name in column if name.startswith("f_rest_")]
    if any(np.any(column[name]) for name in bands):
        log.warning(
            "%s: %s of spherical harmonics above degree 0 %s dropped; each Gaussian has one color",
            path, counted(len(bands), "coefficient"), "is" if len(bands) == 1 else "are",
        )  # fmt: skip
    return _gaussians(column, to_world)


def read_harmonics(path: Path, to_world: NDArray[np.float64]) -> tuple[Tensor, Tensor | None]:
    """Like `read`, and the harmonics above degree 0: [N,K,3] in the file's own axes, None if there are none.

    Raises UserError also for a number of coefficients that no degree has.
    """
    column = _columns(path)
    bands = sorted((name for name in column if name.startswith("f_rest_")), key=lambda name: int(name[7:] or -1))
    gaussians = _gaussians(column, to_world)
    if not any(np.any(column[name]) for name in bands):
        return gaussians, None
    if len(bands) % 3 or len(bands) // 3 not in DEGREES:
        raise UserError(f"{path}: {len(bands)} coefficients f_rest_ are of no degree; 9, 24 or 45 are")
    # All coefficients of red, then those of green and blue.
    table = np.stack([column[name] for name in bands], axis=1).astype(np.float64)
    return gaussians, torch.from_numpy(table).float().unflatten(1, (3, -1)).transpose(1, 2).contiguous()


def _columns(path: Path) -> dict[str, NDArray]:
    """The table of a file. Raises UserError if it is no `.ply` of Gaussians."""
    column = ply_table.read_element(path, "vertex", MAX_POINTS)
    missing = [name for name in PROPERTIES if name not in column and not name.startswith("n")]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}")
    return column


def _gaussians(column: dict[str, NDArray], to_world: NDArray[np.float64]) -> Tensor:
    def pick(*columns: str) -> NDArray[np.float64]:
        return np.stack([column[name] for name in columns], axis=1).astype(np.float64)

    parts = [
        pick("x", "y", "z"),
        1 / (1 + np.exp(-pick("opacity"))),
        np.exp(pick("scale_0", "scale_1", "scale_2")),
        pick("rot_0", "rot_1", "rot_2", "rot_3"),
        0.5 + SH_C0 * pick("f_dc_0", "f_dc_1", "f_dc_2"),
    ]
    return transform_back(torch.from_numpy(np.concatenate(parts, axis=1)), Y_UP_TO_Y_DOWN @ to_world).float()
