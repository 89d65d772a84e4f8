"""Faults of outputs that numbers would hide: nothing to see, a wrong unit, a mirrored file."""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as functional

from z1g.core.errors import UserError
from z1g.geometry.frames import Condition, about_y
from z1g.peers.content import Array, Content
from z1g.peers.registration import visible_points
from z1g.peers.target import Target

SIZES = (0.1, 10.0)
"""Least and largest size of an output in units of the object, whose sphere has diameter 1, that is measured."""
MIRRORED_DB = 3.0
"""An output counts as mirrored if its mirror image is better by as many decibels, and as good as MIRRORED_PSNR."""
MIRRORED_PSNR = 15.0


def require_size(content: Content, registered: bool) -> None:
    """Raise UserError if what can be seen of the content is far larger or smaller than the object."""
    points = visible_points(content)
    low, high = np.quantile(points, [0.01, 0.99], axis=0)
    size = float(np.linalg.norm(high - low))
    if not SIZES[0] <= size <= SIZES[1]:
        times = f"{size:.3g} times as large as the object"
        hint = "" if registered else "; another frame is needed, or registered: true"
        raise UserError(f"wrong size: it is {times} in this frame{hint}")


def require_not_mirrored(content: Content, target: Target, condition: Condition) -> None:
    """Raise UserError if the mirror image of the content fits the true views clearly better than itself."""
    own, other = (_psnr(one, target) for one in (content, content.moved(mirror(condition))))
    if other >= own + MIRRORED_DB and other >= MIRRORED_PSNR:
        raise UserError(f"mirrored: its mirror image fits the true views with {other:.1f} dB, itself with {own:.1f} dB")


def mirror(condition: Condition) -> Array:
    """The reflection [4,4] that exchanges left and right as the condition camera sees them."""
    turn = about_y(condition.azimuth_deg)
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([-1.0, 1.0, 1.0]) @ turn.T
    return matrix


def _psnr(content: Content, target: Target) -> float:
    drawn = content.draw(target.cameras)
    size = target.rgb.shape[-2:]
    rgb, alpha = (functional.interpolate(x.cpu().float(), size=size, mode="area") for x in (drawn.rgb, drawn.alpha))
    error = float(((rgb + 1 - alpha).clamp(0, 1) - (target.rgb + 1 - target.alpha)).square().mean())
    return -10 * math.log10(max(error, 1e-10))
