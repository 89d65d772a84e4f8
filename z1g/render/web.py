"""Splats for the browser: 16 bytes each, and the scripts that draw and show them. Does not import torch."""

from importlib import resources

import numpy as np
from numpy.typing import NDArray

from z1g.gaussians.channels import CHANNELS

Array = NDArray[np.float64]
SPAN, LOG_MIN, LOG_SPAN = 2.0, -10.0, 10.0
"""Ranges of the quantization: 16 bits per position, 8 bits per logarithm of a scale."""


def script() -> str:
    """JavaScript that defines `splatCanvas`, `splatTools` and `remembered`, see the files `splat_*.js`."""
    ranges = f"const PACKED = {{ span: {SPAN}, logMin: {LOG_MIN}, logSpan: {LOG_SPAN} }};\n"
    files = [resources.files("z1g.render").joinpath(f"splat_{part}.js") for part in ("canvas", "tools")]
    return ranges + "".join(file.read_text(encoding="utf-8") for file in files)


def thin(gaussians: Array, limit: int) -> Array:
    """Draw at most `limit` of the Gaussians [N,14] uniformly, and enlarge them to cover the same area."""
    if len(gaussians) <= limit:
        return gaussians
    kept = gaussians[np.random.default_rng(0).permutation(len(gaussians))[:limit]]
    kept[:, CHANNELS["scale"]] *= (len(gaussians) / limit) ** 0.5
    return kept


def pack(gaussians: Array) -> bytes:
    """Pack Gaussians [N,14] into 16 little-endian bytes each.

    The layout is position 3×u16, log scale 3×u8, quaternion x y z 3×u8 (w ≥ 0), rgba 4×u8.
    """
    out = np.zeros(
        len(gaussians), np.dtype([("position", "<u2", 3), ("scale", "u1", 3), ("rotation", "u1", 3), ("rgba", "u1", 4)])
    )
    rotation = gaussians[:, CHANNELS["rotation"]]
    rotation = rotation / np.maximum(np.linalg.norm(rotation, axis=1, keepdims=True), 1e-12)
    rotation = np.where(rotation[:, :1] < 0, -rotation, rotation)
    rgba = np.concatenate([gaussians[:, CHANNELS["rgb"]], gaussians[:, CHANNELS["opacity"]]], axis=1)
    scale = np.log(np.maximum(gaussians[:, CHANNELS["scale"]], 1e-12))
    out["position"] = _levels(gaussians[:, CHANNELS["position"]] / SPAN + 0.5, 65535)
    out["scale"] = _levels((scale - LOG_MIN) / LOG_SPAN, 255)
    out["rotation"] = _levels(rotation[:, 1:] / 2 + 0.5, 255)
    out["rgba"] = _levels(rgba, 255)
    return out.tobytes()


def _levels(values: Array, top: int) -> Array:
    levels: Array = np.rint(np.clip(values, 0, 1) * top)
    return levels
