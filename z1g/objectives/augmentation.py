"""Augmentation of stage 1's objects by symmetries of the input cameras and by permutations of the color channels.

Both are exact. The six input cameras form a ring with alternating elevations, so that rotations by a third of a turn
and reflections through every other camera permute them: the images are permuted and nothing is rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from z1g.core.errors import UserError
from z1g.gaussians.channels import CHANNELS, N_CHANNELS
from z1g.gaussians.rotations import multiply, quaternions
from z1g.geometry.camera import CONDITION_VIEW, INPUT_VIEWS
from z1g.objectives import purposes
from z1g.training.data import Batch, batch_uniform

if TYPE_CHECKING:
    from z1g.config.sections import Augmentation

Array = NDArray[np.float64]
FLIP = np.diag([-1.0, 1.0, 1.0, 1.0])
"""Right factor of a c2w that mirrors the camera's image."""
COLORS = tuple(permutations(range(3)))


@dataclass(frozen=True)
class Symmetry:
    """An isometry [3,3] of the view-1 frame that permutes the input cameras.

    sources: for each of the six inputs, the index of the input whose image it gets. mirrored: images are also flipped.
    """

    matrix: Array
    sources: tuple[int, ...]
    mirrored: bool


def symmetries(c2w: Array) -> list[Symmetry]:
    """Symmetries of the input poses [6,4,4], starting with the identity; six for Zero123++, the group of a triangle."""
    group = []
    for mirrored in (False, True):
        source = c2w @ FLIP if mirrored else c2w
        for target in c2w:
            matrix = target @ np.linalg.inv(source[0])
            near = np.abs((matrix @ source)[:, None] - c2w[None]).max(axis=(2, 3)) < 1e-3
            if (near.sum(axis=0) == 1).all() and (near.sum(axis=1) == 1).all():
                group.append(Symmetry(matrix[:3, :3], tuple(near.argmax(axis=0).tolist()), mirrored))
    return group


def channels(symmetry: Symmetry) -> Array:
    """Matrix [14,14] of the effect of a symmetry on the 14 channels of a splat.

    A mirror M leaves a Gaussian's axes R left-handed; M·R·diag(-1,1,1) is the same ellipsoid. With M = G·X for a
    rotation G and X = diag(-1,1,1), X·R·X has the quaternion (w, x, -y, -z).
    """
    matrix = np.eye(N_CHANNELS)
    matrix[CHANNELS["position"], CHANNELS["position"]] = symmetry.matrix
    turn = symmetry.matrix @ FLIP[:3, :3] if symmetry.mirrored else symmetry.matrix
    product = multiply(_quaternion(turn).expand(4, 4), torch.eye(4, dtype=torch.float64)).T.numpy()
    conjugate = np.diag([1.0, 1.0, -1.0, -1.0]) if symmetry.mirrored else np.eye(4)
    matrix[CHANNELS["rotation"], CHANNELS["rotation"]] = product @ conjugate
    return matrix


def turned(splats: Tensor, symmetry: Symmetry) -> Tensor:
    """Splatter images [6,14,S,S] of an object after a symmetry of the input cameras."""
    images = splats[list(symmetry.sources)]
    matrix = torch.from_numpy(channels(symmetry)).to(splats)
    return torch.einsum("ij,vjhw->vihw", matrix, images.flip(3) if symmetry.mirrored else images)


class Augmenter:
    """Turns and recolors the samples of a batch on its device, with random numbers from the samples' keys."""

    def __init__(self, options: Augmentation, poses: Tensor, device: torch.device) -> None:
        """poses: [V,4,4] of any object. Raises UserError if `turned` is positive and the inputs have no symmetry."""
        self.options = options
        inputs = poses[list(INPUT_VIEWS)].double().numpy()
        group = symmetries(inputs)
        if options.turned > 0 and len(group) < 2:
            raise UserError(
                "autodecoder.augment.turned needs input cameras that are symmetric under rotation, as in Zero123++'s "
                "layouts; these are not: set it to 0"
            )
        self.mirrored = torch.tensor([symmetry.mirrored for symmetry in group], device=device)
        self.views = torch.tensor([_all_views(symmetry.sources) for symmetry in group], device=device)
        self.poses = torch.tensor(np.stack([_homogeneous(symmetry.matrix) for symmetry in group])).float().to(device)
        flips = [FLIP if symmetry.mirrored else np.eye(4) for symmetry in group]
        self.flips = torch.tensor(np.stack(flips)).float().to(device)
        self.splats = torch.tensor(np.stack([channels(symmetry) for symmetry in group])).float().to(device)
        self.colors = torch.tensor(COLORS, device=device)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with augmented `rgba` [B,V,H,W,4], `c2w` [B,V,4,4] and `splats` [B,6,14,S,S]."""
        device = batch["rgba"].device
        turn = _chosen(batch, self.options.turned, len(self.mirrored), purposes.TURN, device)
        color = _chosen(batch, self.options.recolored, len(self.colors), purposes.COLOR, device)
        order = self.colors[color]
        augmented = {**batch, "rgba": self._images(batch["rgba"], turn, order)}
        augmented["c2w"] = self.poses[turn][:, None] @ batch["c2w"] @ self.flips[turn][:, None]
        if "splats" in batch:
            augmented["splats"] = self._splats(batch["splats"], turn, order)
        return augmented

    def _images(self, rgba: Tensor, turn: Tensor, order: Tensor) -> Tensor:
        n = self.views.shape[1]
        fixed = torch.take_along_dim(rgba[:, :n], self.views[turn][:, :, None, None, None], dim=1)
        images = torch.cat([fixed, rgba[:, n:]], dim=1)
        images = torch.where(self.mirrored[turn][:, None, None, None, None], images.flip(3), images)
        with_alpha = torch.cat([order, torch.full_like(order[:, :1], 3)], dim=1)
        return torch.take_along_dim(images, with_alpha[:, None, None, None], dim=4)

    def _splats(self, splats: Tensor, turn: Tensor, order: Tensor) -> Tensor:
        sources = self.views[turn][:, len(self.views[0]) - splats.shape[1] :] - INPUT_VIEWS[0]
        images = torch.take_along_dim(splats, sources[:, :, None, None, None], dim=1)
        images = torch.where(self.mirrored[turn][:, None, None, None, None], images.flip(4), images)
        rows = torch.arange(N_CHANNELS, device=splats.device).repeat(len(order), 1)
        rows[:, CHANNELS["rgb"]] = order + CHANNELS["rgb"].start
        matrix = torch.take_along_dim(self.splats[turn], rows[:, :, None], dim=1)
        return torch.einsum("bij,bvjhw->bvihw", matrix, images)


def _quaternion(turn: Array) -> Tensor:
    """Unit quaternion [4] with w ≥ 0 of the rotation nearest to a matrix [3,3] computed from float32 poses."""
    left, _, right = np.linalg.svd(turn)
    quaternion = quaternions(torch.from_numpy(left @ right))
    return quaternion if quaternion[0] >= 0 else -quaternion


def _all_views(sources: Sequence[int]) -> list[int]:
    """Sources among all leading views. The condition is unchanged, as no symmetry maps it to an input."""
    return [CONDITION_VIEW, *(INPUT_VIEWS[source] for source in sources)]


def _homogeneous(matrix: Array) -> Array:
    homogeneous = np.eye(4)
    homogeneous[:3, :3] = matrix
    return homogeneous


def _chosen(batch: Batch, share: float, n: int, purpose: int, device: torch.device) -> Tensor:
    """An index below `n` per sample [B]: uniform over all but 0 for a fraction `share` of samples, otherwise 0."""
    drawn = batch_uniform(batch, purpose, device)
    if n < 2 or share == 0:
        return torch.zeros_like(drawn, dtype=torch.long)
    return torch.where(drawn < share, 1 + (drawn / share * (n - 1)).long().clamp(max=n - 2), 0)
