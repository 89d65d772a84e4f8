"""Random Gaussians, and their covariances computed in float64 with numpy."""

import numpy as np
import torch


def gaussians(n: int = 20, seed: int = 0) -> torch.Tensor:
    """Activated Gaussians [n,14], positions within ±0.5."""
    x = torch.rand(n, 14, generator=torch.Generator().manual_seed(seed))
    x[:, :3] -= 0.5
    x[:, 3] = 0.02 + 0.96 * x[:, 3]
    x[:, 4:7] = 0.001 + 0.1 * x[:, 4:7]
    x[:, 7:11] = torch.nn.functional.normalize(x[:, 7:11] - 0.5, dim=1)
    return x


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrices [N,3,3] of quaternions [N,4], w first, from the product q·v·q*."""
    w, x, y, z = (quaternion[:, i] for i in range(4))
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def covariance(x: torch.Tensor) -> np.ndarray:
    """Covariance matrices [N,3,3] of activated Gaussians [N,14]."""
    array = x.double().numpy()
    axes = rotation_of(array[:, 7:11]) * array[:, None, 4:7]
    return axes @ axes.transpose(0, 2, 1)
