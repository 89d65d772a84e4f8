"""The original's fitted splats: six `.ply` files per scene, one per splatter image, with pixels in row-major order."""

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.files import require_regular
from z1g.data.shards import BrokenObject
from z1g.gaussians.channels import CHANNELS, to_images
from z1g.gaussians.ply import Y_UP_TO_Y_DOWN, read
from z1g.geometry.camera import N_INPUTS

_STEPS = re.compile(r"eval_pred_gs_(\d*).*_es")
LAYOUTS = ("{scene}/eval_pred_gs_*_es", "*/{scene}/eval_pred_gs_*_es", "eval_pred_gs_*_es/{scene}", "{scene}")
"""Possible folders of a scene relative to the root; of several evaluations, the latest is read."""


def read_splats(root: Path, scene: str, size: int, rotations: str) -> Tensor:
    """Activated splatter images [6,14,S,S] in the view-1 frame. Raises BrokenObject if they are incomplete."""
    folder = _folder(root, scene)
    try:
        images = [_read_image(folder / f"splatter_{i}.ply", size) for i in range(N_INPUTS)]
    except (UserError, OSError) as error:
        raise BrokenObject(str(error)) from error
    splats = torch.stack(images)
    if not splats.isfinite().all():
        raise BrokenObject(f"{folder} has values that are not finite")
    if rotations == "as_drawn":
        splats[:, CHANNELS["rotation"]] = drawn_rotation(splats[:, CHANNELS["rotation"]], dim=1)
    return splats


def drawn_rotation(quaternions: Tensor, dim: int) -> Tensor:
    """Unit quaternions, w first along `dim`, of the rotations nearest to those of a rasterizer without normalization.

    For q = (w, v) of any length, R = I + 2w[v]× + 2[v]×² keeps the axis v and rotates and scales the plane orthogonal
    to it by the complex number 1 - 2|v|² + 2iw|v|, whose argument is the angle of the nearest rotation.
    """
    w, v = quaternions.narrow(dim, 0, 1), quaternions.narrow(dim, 1, 3)
    length = v.norm(dim=dim, keepdim=True)
    half = torch.atan2(2 * w * length, 1 - 2 * length.square()) / 2
    axis = v / length.clamp(min=1e-30)
    return torch.cat([half.cos(), axis * half.sin()], dim=dim)


def _folder(root: Path, scene: str) -> Path:
    folders = [path for path in _candidates(root, scene) if (path / "splatter_0.ply").is_file()]
    if not folders:
        raise BrokenObject(f"no splatter_0.ply for {scene} in {root} (searched: {', '.join(LAYOUTS)})")
    return max(folders, key=_steps)


def _candidates(root: Path, scene: str) -> Iterator[Path]:
    # Escaped, so that the scene's name is not a pattern.
    escaped = re.sub(r"([*?[])", r"[\1]", scene)
    for layout in LAYOUTS:
        yield from root.glob(layout.format(scene=escaped))


def _steps(path: Path) -> tuple[int, str]:
    match = next((m for part in reversed(path.parts) if (m := _STEPS.fullmatch(part))), None)
    return int(match[1] or 0) if match else 0, str(path)


def _read_image(path: Path, size: int) -> Tensor:
    # The original's files are in its own y-up frame; passing the same flip as z1g's writer leaves the values unchanged.
    require_regular(path)
    gaussians = read(path, Y_UP_TO_Y_DOWN)
    if len(gaussians) != size**2:
        side = len(gaussians) ** 0.5
        raise BrokenObject(f"{path} has {len(gaussians)} Gaussians, {side:g} per side; splat.size is {size}")
    return to_images(gaussians[None], size)[0, 0]
