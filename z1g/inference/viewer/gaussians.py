"""The Gaussians of a file as the viewer draws them: scaled to a common size, colored by attribute."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from z1g.gaussians import files as splat_files
from z1g.gaussians.channels import CHANNELS, MIN_ALPHA, N_CHANNELS
from z1g.gaussians.rotations import rotation_matrices
from z1g.render.web import pack, thin
from z1g.surface.views import Frame

VIEWS = 6
_HEX = ("e64d40", "f2a626", "8cbf33", "26a699", "4073d9", "a659bf")
VIEW_COLORS = np.array([list(bytes.fromhex(color)) for color in _HEX]) / 255
COLORINGS = ("rgb", "opacity", "scale", "normal", "source view")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class VisibleGaussians:
    """The visible Gaussians of one file, moved and scaled into the sphere of radius 0.5.

    gaussians: [N,14]; N is smaller than `n_visible` if they were thinned. views: [N], indices of input views, if known.
    """

    name: str
    gaussians: Floats
    views: NDArray[np.int64] | None
    n_visible: int

    @classmethod
    def load(cls, path: Path, limit: int) -> VisibleGaussians:
        """Read a file, of which at most `limit` Gaussians are shown. Raises UserError."""
        gaussians = splat_files.read(path)
        side = math.isqrt(len(gaussians) // VIEWS)
        # Files of `infer` contain six square images, row by row; in pruned files the views are unknown.
        complete = len(gaussians) == VIEWS * side * side
        views = np.repeat(np.arange(VIEWS), side * side) if complete else np.zeros(len(gaussians), int)
        visible = (gaussians[:, CHANNELS["opacity"].start] >= MIN_ALPHA).numpy()
        scaled = Frame.around(gaussians).enter(gaussians).double().numpy()
        rows = thin(np.column_stack([scaled, views])[visible], limit)
        known = rows[:, N_CHANNELS].astype(int) if complete else None
        return cls(path.name, rows[:, :N_CHANNELS], known, int(visible.sum()))

    def packed(self, by: str) -> bytes:
        """16 bytes each for `splatCanvas`, colored by one of COLORINGS."""
        colored = self.gaussians.copy()
        colored[:, CHANNELS["rgb"]] = self.colors(by)
        return pack(colored)

    def colors(self, by: str) -> Floats:
        """Colors [N,3] in 0..1 by one of COLORINGS. `normal` is the thinnest axis, turned outwards."""
        scales, rgb = self.gaussians[:, CHANNELS["scale"]], self.gaussians[:, CHANNELS["rgb"]].clip(0, 1)
        if by == "opacity":
            return ramp(self.gaussians[:, CHANNELS["opacity"].start])
        if by == "scale":
            size = np.log(scales.max(axis=1))
            low, high = np.quantile(size, [0.02, 0.98])
            return ramp((size - low) / max(high - low, 1e-9))
        if by == "normal":
            normal = np.take_along_axis(self._axes(), scales.argmin(axis=1)[:, None, None], axis=2)[..., 0]
            outward = np.sign((normal * self.gaussians[:, CHANNELS["position"]]).sum(axis=1, keepdims=True))
            return 0.5 + 0.5 * normal * np.where(outward == 0, 1, outward)
        if by == "source view":
            return np.full_like(rgb, 0.6) if self.views is None else VIEW_COLORS[self.views]
        return rgb

    def _axes(self) -> Floats:
        """Rotation matrices [N,3,3]; columns are the Gaussians' axes."""
        import torch

        quaternions = torch.from_numpy(self.gaussians[:, CHANNELS["rotation"]].T.copy())[None]
        axes: Floats = rotation_matrices(quaternions, normalize=False)[0].permute(2, 0, 1).numpy()
        return axes


def ramp(values: Floats) -> Floats:
    """Map values [N] in 0..1 to colors [N,3]: dark blue, green, yellow."""
    stops = np.array([[0.15, 0.1, 0.4], [0.1, 0.55, 0.5], [0.98, 0.9, 0.2]])
    clipped = np.clip(values, 0, 1)
    return np.stack([np.interp(clipped, [0, 0.5, 1], stops[:, i]) for i in range(3)], axis=1)
