"""Stage 1 sees more objects than there are: turned or mirrored onto the inputs' own layout, and with other colors.

Both are exact. The six inputs stand in a ring whose elevations alternate, so a third of a turn, or a mirror through
every other camera, brings them onto each other: the images change places and nothing is rendered anew.
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
"""Right-multiplied to a c2w: the camera whose image is the mirrored one."""
COLORS = tuple(permutations(range(3)))


@dataclass(frozen=True)
class Symmetry:
    """An isometry [3,3] of the view-1 frame under which the inputs' cameras change places.

    sources: for each of the six, which one's image it shows afterwards. mirrored: its image is flipped as well.
    """

    matrix: Array
    sources: tuple[int, ...]
    mirrored: bool


def symmetries(c2w: Array) -> list[Symmetry]:
    """Of the poses [6,4,4] of the inputs, the identity first: six for Zero123++, the group of a triangle."""
    found = []
    for mirrored in (False, True):
        seen = c2w @ FLIP if mirrored else c2w
        for target in c2w:
            matrix = target @ np.linalg.inv(seen[0])
            near = np.abs((matrix @ seen)[:, None] - c2w[None]).max(axis=(2, 3)) < 1e-3
            if (near.sum(axis=0) == 1).all() and (near.sum(axis=1) == 1).all():
                found.append(Symmetry(matrix[:3, :3], tuple(near.argmax(axis=0).tolist()), mirrored))
    return found


def channels(symmetry: Symmetry) -> Array:
    """What a symmetry does to the 14 channels of a splat, as a matrix [14,14].

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


class Augmenter:
    """Turns and recolors the samples of a batch on its device, each by its own key."""

    def __init__(self, options: Augmentation, poses: Tensor, device: torch.device) -> None:
        """poses: [V,4,4] of any object. Raises UserError where turns are asked for and its inputs have no symmetry."""
        self.options = options
        inputs = poses[list(INPUT_VIEWS)].double().numpy()
        found = symmetries(inputs)
        if options.turned > 0 and len(found) < 2:
            raise UserError(
                "autodecoder.augment.turned needs inputs that lie on each other when turned, as those of "
                "Zero123++'s layouts do; these do not: set it to 0"
            )
        self.mirrored = torch.tensor([one.mirrored for one in found], device=device)
        self.views = torch.tensor([_all_views(one.sources) for one in found], device=device)
        self.poses = torch.tensor(np.stack([_homogeneous(one.matrix) for one in found])).float().to(device)
        self.flips = torch.tensor(np.stack([FLIP if one.mirrored else np.eye(4) for one in found])).float().to(device)
        self.splats = torch.tensor(np.stack([channels(one) for one in found])).float().to(device)
        self.colors = torch.tensor(COLORS, device=device)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with `rgba` [B,V,H,W,4], `c2w` [B,V,4,4] and `splats` [B,6,14,S,S], as if objects were so."""
        device = batch["rgba"].device
        turn = _chosen(batch, self.options.turned, len(self.mirrored), purposes.TURN, device)
        color = _chosen(batch, self.options.recolored, len(self.colors), purposes.COLOR, device)
        order = self.colors[color]
        found = {**batch, "rgba": self._images(batch["rgba"], turn, order)}
        found["c2w"] = self.poses[turn][:, None] @ batch["c2w"] @ self.flips[turn][:, None]
        if "splats" in batch:
            found["splats"] = self._splats(batch["splats"], turn, order)
        return found

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
    """Unit quaternion [4] with w ≥ 0 of the rotation nearest to a matrix [3,3], as poses were rounded to float32."""
    left, _, right = np.linalg.svd(turn)
    quaternion = quaternions(torch.from_numpy(left @ right))
    return quaternion if quaternion[0] >= 0 else -quaternion


def _all_views(sources: Sequence[int]) -> list[int]:
    """Sources among all leading views; the condition stays, as no turn maps it on an input."""
    return [CONDITION_VIEW, *(INPUT_VIEWS[source] for source in sources)]


def _homogeneous(matrix: Array) -> Array:
    found = np.eye(4)
    found[:3, :3] = matrix
    return found


def _chosen(batch: Batch, share: float, n: int, purpose: int, device: torch.device) -> Tensor:
    """Of `n` things one for each sample [B]: any but the first for a share of them, else the first."""
    drawn = batch_uniform(batch, purpose, device)
    if n < 2 or share == 0:
        return torch.zeros_like(drawn, dtype=torch.long)
    return torch.where(drawn < share, 1 + (drawn / share * (n - 1)).long().clamp(max=n - 2), 0)
