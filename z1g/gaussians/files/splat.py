"""`.splat` files of antimatter15's web viewer: 32 bytes per Gaussian, no header.

    float32 x, y, z             position in the y-down world of `.ply` files
    float32 sx, sy, sz          standard deviations
    uint8   r, g, b, opacity    0..255 for 0..1
    uint8   w, x, y, z          quaternion, (q + 1)·128, so each component is exact to 1/256

Viewers that show a file while it loads expect the most important Gaussians first: the largest opacity times volume.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.files import read_bytes
from z1g.gaussians.affine import transform, transform_back
from z1g.gaussians.channels import CHANNELS, join, split
from z1g.gaussians.ply import MAX_POINTS, Y_UP_TO_Y_DOWN

RECORD = np.dtype([("position", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rotation", "u1", 4)])


def write(path: Path, gaussians: Tensor) -> None:
    """Write activated Gaussians [N,14] of the y-up world, most important first."""
    moved = transform(gaussians.double(), Y_UP_TO_Y_DOWN)
    volume = moved[:, CHANNELS["scale"]].prod(dim=1)
    order = torch.argsort(volume * moved[:, CHANNELS["opacity"]][:, 0], descending=True, stable=True)
    parts = {name: part.numpy() for name, part in split(moved[order], dim=1).items()}
    rotation = parts["rotation"] / np.linalg.norm(parts["rotation"], axis=1, keepdims=True)
    rows = np.empty(len(moved), RECORD)
    rows["position"], rows["scale"] = parts["position"], parts["scale"]
    color = np.concatenate([parts["rgb"], parts["opacity"]], axis=1)
    rows["rgba"] = np.clip(np.round(color * 255), 0, 255)
    rows["rotation"] = np.clip(np.round(rotation * 128 + 128), 0, 255)
    path.write_bytes(rows.tobytes())


def read(path: Path) -> Tensor:
    """Activated Gaussians [N,14], float32, y-up world. Raises UserError if the file size is not a multiple of 32."""
    content = read_bytes(path, MAX_POINTS * RECORD.itemsize)
    if len(content) % RECORD.itemsize:
        raise UserError(f"{path}: {len(content)} bytes are not a whole number of Gaussians of {RECORD.itemsize} bytes")
    rows = np.frombuffer(content, RECORD)
    with np.errstate(invalid="ignore"):  # NaNs are kept: the caller checks
        position, scale = (torch.from_numpy(rows[name].astype(np.float64)) for name in ("position", "scale"))
    color = torch.from_numpy(rows["rgba"] / 255.0)
    parts = {
        "position": position,
        "opacity": color[:, 3:],
        "scale": scale,
        "rotation": torch.from_numpy(rows["rotation"] / 128.0 - 1),
        "rgb": color[:, :3],
    }
    return transform_back(join(parts, dim=1), Y_UP_TO_Y_DOWN).float()
