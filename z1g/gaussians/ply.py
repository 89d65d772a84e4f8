"""Splats as 3D Gaussian Splatting `.ply` files.

One vertex per Gaussian with the properties of the 3DGS reference: position, normals (zero), f_dc (degree-0 spherical
harmonics), logit opacity, log scales, quaternion with w first. Files use the y-down world of COLMAP reconstructions,
which splat viewers rotate upright; `write` rotates z1g's y-up world by 180 degrees about x.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from z1g.core.errors import UserError
from z1g.gaussians.affine import transform
from z1g.gaussians.channels import CHANNELS

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
MAX_PROPERTIES = 256
LARGEST_HEADER = 65_536
"""Size limit of a header, bytes."""


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

    Raises UserError if the file is not a 3DGS `.ply` in binary little-endian floats, or is truncated.
    """
    with path.open("rb") as stream:
        head, separator, _ = stream.read(LARGEST_HEADER).partition(b"end_header\n")
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    names = [words[2] for words in lines if words[:2] == ["property", "float"] and len(words) == 3]
    elements = [words[1:] for words in lines if words[:1] == ["element"]]
    only_floats = len(names) == sum(words[:1] == ["property"] for words in lines)
    vertices = len(elements) == 1 and len(elements[0]) == 2 and elements[0][0] == "vertex" and elements[0][1].isdigit()
    if not separator or ["format", "binary_little_endian", "1.0"] not in lines or not (vertices and only_floats):
        raise UserError(f"{path}: not a binary little-endian .ply of Gaussians with float properties only")
    count = int(elements[0][1][:12])
    missing = [name for name in PROPERTIES if name not in names and not name.startswith("n")]
    if count > MAX_POINTS or len(names) > MAX_PROPERTIES:
        raise UserError(f"{path} is damaged: {elements[0][1]} Gaussians with {len(names)} properties")
    with path.open("rb") as stream:
        stream.seek(len(head) + len(separator))
        body = stream.read(min(4 * count * len(names), path.stat().st_size))
    if missing or len(body) < 4 * count * len(names):
        raise UserError(f"{path}: {'lacks ' + ', '.join(missing) if missing else 'is truncated'}")
    table = np.frombuffer(body, "<f4").reshape(count, len(names))
    column = {name: table[:, i].astype(np.float64) for i, name in enumerate(names)}

    def pick(*columns: str) -> NDArray[np.float64]:
        return np.stack([column[name] for name in columns], axis=1)

    parts = [
        pick("x", "y", "z"),
        1 / (1 + np.exp(-pick("opacity"))),
        np.exp(pick("scale_0", "scale_1", "scale_2")),
        pick("rot_0", "rot_1", "rot_2", "rot_3"),
        0.5 + SH_C0 * pick("f_dc_0", "f_dc_1", "f_dc_2"),
    ]
    back = np.linalg.inv(Y_UP_TO_Y_DOWN @ to_world).astype(np.float64)
    return transform(torch.from_numpy(np.concatenate(parts, axis=1)), back).float()
