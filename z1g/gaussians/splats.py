"""Splats of one object in memory: to read, write, move and take apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from z1g.gaussians import affine, files
from z1g.gaussians.channels import CHANNELS, N_CHANNELS, join, split

RIGID = 1e-4
"""Largest deviation of a rigid transform from one, in each number."""
LARGEST_CONDITION = 1e12
"""Largest ratio of the longest to the shortest stretch of a matrix that counts as invertible."""


@dataclass(frozen=True, eq=False)
class Splats:
    """Gaussians of one object in z1g's world: y up, +z towards the photograph's camera, within 0.5 of the origin.

    tensor: [N,14], float32, activated: position (3), opacity (1) in 0..1, scale (3) as standard deviations,
    rotation (4) as a unit quaternion with w first, rgb (3) in 0..1. Raises ValueError for another shape, and TypeError
    for what is no tensor of floats.
    """

    tensor: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.tensor, Tensor) or not self.tensor.is_floating_point():
            kind = getattr(self.tensor, "dtype", "")
            raise TypeError(
                f"splats are a tensor of floats [N,{N_CHANNELS}], not {type(self.tensor).__name__} {kind}".rstrip()
                + "; torch.as_tensor(values, dtype=torch.float32) makes one"
            )
        if self.tensor.ndim != 2 or self.tensor.shape[1] != N_CHANNELS:
            raise ValueError(f"splats are a tensor [N,{N_CHANNELS}], not {list(self.tensor.shape)}")

    @classmethod
    def load(cls, path: Path | str) -> Splats:
        """Read a `.ply`, `.splat` or `.spz` file.

        Raises UserError if the file is missing, of another format, damaged, empty or not finite.
        """
        return cls(files.read(Path(path)))

    @classmethod
    def from_parts(cls, position: Tensor, opacity: Tensor, scale: Tensor, rotation: Tensor, rgb: Tensor) -> Splats:
        """The inverse of `parts`: position [N,3], opacity [N,1], scale [N,3], rotation [N,4] and rgb [N,3]."""
        named = {"position": position, "opacity": opacity, "scale": scale, "rotation": rotation, "rgb": rgb}
        return cls(join(named, dim=1))

    def save(self, path: Path | str) -> None:
        """Write a file; its extension is the format: `.ply` keeps everything, `.splat` and `.spz` what is visible.

        Raises UserError for another extension, or if the splats are not finite or none is visible.
        """
        files.write(Path(path), self.tensor)

    def parts(self) -> dict[str, Tensor]:
        """Views of `tensor`: `position` [N,3], `opacity` [N,1], `scale` [N,3], `rotation` [N,4] and `rgb` [N,3]."""
        return split(self.tensor, dim=1)

    @property
    def position(self) -> Tensor:
        """Centers [N,3] in the world."""
        return self.tensor[:, CHANNELS["position"]]

    @property
    def opacity(self) -> Tensor:
        """Opacities [N,1] in 0..1."""
        return self.tensor[:, CHANNELS["opacity"]]

    @property
    def rgb(self) -> Tensor:
        """Colors [N,3] in 0..1."""
        return self.tensor[:, CHANNELS["rgb"]]

    def __len__(self) -> int:
        return len(self.tensor)

    def to(self, device: torch.device | str) -> Splats:
        """The same splats on a device."""
        return Splats(self.tensor.to(device))

    def visible(self) -> Splats:
        """Those that a rasterizer draws, with an opacity of 1/255 or more: less than half of a model's."""
        return Splats(files.visible(self.tensor))

    def moved(self, matrix: ArrayLike) -> Splats:
        """Turned and shifted by a rigid transform [4,4]: p' = R·p + t. Raises ValueError if it is not rigid."""
        exact = np.asarray(matrix, dtype=np.float64)
        if exact.shape != (4, 4):
            raise ValueError(f"a rigid transform is a matrix [4,4], not {list(exact.shape)}; see `mapped` for [3,3]")
        rotation = exact[:3, :3]
        rigid = np.abs(rotation @ rotation.T - np.eye(3)).max() < RIGID and np.linalg.det(rotation) > 0
        if not np.isfinite(exact).all():
            raise ValueError("the matrix has numbers that are not finite")
        if not rigid or np.abs(exact[3] - [0, 0, 0, 1]).max() > RIGID:
            raise ValueError("the matrix is no rotation and translation; `mapped` also stretches and mirrors")
        return Splats(affine.transform(self.tensor.double(), exact).to(self.tensor))

    def mapped(self, matrix: ArrayLike) -> Splats:
        """Stretched, turned or mirrored around the origin by an invertible matrix M [3,3]: p' = M·p, Σ' = M·Σ·Mᵀ.

        Raises ValueError if the matrix has another shape or is not invertible.
        """
        exact = np.asarray(matrix, dtype=np.float64)
        usable = exact.shape == (3, 3) and np.isfinite(exact).all()
        if not usable or not np.linalg.cond(exact) < LARGEST_CONDITION:
            raise ValueError(f"an invertible matrix [3,3] is needed, not {exact.tolist()}")
        return Splats(affine.transformed(self.tensor.double()[None], torch.from_numpy(exact)[None])[0].to(self.tensor))
