"""What a system's file contains, placed in the world of our renders: splats or a mesh, drawn from the same cameras."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from z1g.geometry.camera import Cameras

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """Images of V views: rgb [V,3,H,W], premultiplied; alpha [V,1,H,W]; depth [V,1,H,W], weighted by alpha."""

    rgb: Tensor
    alpha: Tensor
    depth: Tensor


class Content(ABC):
    """An object in the normalized y-up world. Cameras are c2w [1,V,4,4] in that world, OpenCV axes."""

    kind: str
    """`splats` or `mesh`."""

    @abstractmethod
    def moved(self, matrix: Array) -> Content:
        """The same after a similarity or affine map [4,4]."""

    @abstractmethod
    def draw(self, cameras: Cameras) -> Drawn:
        """Images of the cameras [1,V]."""

    @abstractmethod
    def cloud(self) -> Cloud:
        """Its geometry as points."""


@dataclass(frozen=True)
class Cloud:
    """points [N,3], opacity [N], and normals [N,3], unit, whose sign may be arbitrary."""

    points: Tensor
    opacity: Tensor
    normals: Tensor
