"""Linear maps of Gaussians against float64 linear algebra."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from z1g.gaussians.affine import left_singular, transformed
from z1g.gaussians.channels import CHANNELS
from z1g.gaussians.rotations import rotation_matrices


def splats(seed: int, n: int = 64, thin: float = 1e-4) -> torch.Tensor:
    """Random activated Gaussians [1,n,14] in float64, some of them thin discs and needles."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.rand(1, n, 14, dtype=torch.float64, generator=draw)
    values[..., CHANNELS["position"]] -= 0.5
    values[..., CHANNELS["scale"]] = torch.where(values[..., 4:7] < 0.4, thin, 1.0) * (0.01 + values[..., 4:7] * 0.05)
    values[..., CHANNELS["rotation"]] = torch.randn(1, n, 4, dtype=torch.float64, generator=draw)
    return values


def covariances(gaussians: torch.Tensor) -> torch.Tensor:
    axes = rotation_matrices(gaussians[..., CHANNELS["rotation"]].transpose(1, 2)).permute(0, 3, 1, 2)
    spread = axes * gaussians[..., None, CHANNELS["scale"]]
    return spread @ spread.transpose(-1, -2)


def maps(seed: int) -> torch.Tensor:
    """A map [1,3,3] with singular values between 0.5 and 2, mirrored for odd seeds."""
    draw = np.random.default_rng(seed)
    left, right = (np.linalg.qr(draw.normal(size=(3, 3)))[0] for _ in range(2))
    matrix = left @ np.diag(draw.uniform(0.5, 2, 3)) @ right
    sign = -1 if seed % 2 else 1
    matrix[0] *= sign * np.sign(np.linalg.det(matrix))
    return torch.from_numpy(matrix)[None]


@given(seed=st.integers(0, 10_000), single=st.booleans())
@settings(max_examples=40, deadline=None)
def test_maps_transform_positions_and_covariances(seed: int, single: bool) -> None:
    """M·p and M·Σ·Mᵀ in float64, also for discs with a thickness of a ten-thousandth of their width."""
    given_splats, matrix = splats(seed), maps(seed)
    actual = transformed(given_splats.float() if single else given_splats, matrix).double()
    tolerance = 2e-5 if single else 1e-10
    moved = given_splats[..., :3] @ matrix[0].T
    assert torch.allclose(actual[..., :3], moved, atol=tolerance)
    expected = matrix @ covariances(given_splats) @ matrix.transpose(1, 2)
    error = torch.linalg.matrix_norm(covariances(actual) - expected) / torch.linalg.matrix_norm(expected)
    assert float(error.max()) < tolerance
    kept = [*range(3, 4), *range(11, 14)]
    assert torch.allclose(actual[..., kept], given_splats[..., kept], atol=1e-7)
    norms = torch.linalg.vector_norm(actual[..., CHANNELS["rotation"]], dim=-1)
    assert torch.allclose(norms, torch.ones_like(norms), atol=1e-6)


def test_thin_directions_stay_exact() -> None:
    """The smallest standard deviation keeps float32's relative precision, which a sum of squares would lose."""
    gaussians, matrix = splats(5, thin=1e-5), maps(4)
    actual = transformed(gaussians.float(), matrix)[..., CHANNELS["scale"]].double().sort(-1).values
    axes = rotation_matrices(gaussians[..., CHANNELS["rotation"]].transpose(1, 2)).permute(0, 3, 1, 2)
    spread = matrix[:, None] @ (axes * gaussians[..., None, CHANNELS["scale"]])
    expected = torch.linalg.svdvals(spread).sort(-1).values
    assert float((actual / expected - 1).abs().max()) < 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_left_singular_vectors_are_rotations(seed: int) -> None:
    matrices = torch.randn(50, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    axes, values = left_singular(matrices)
    assert torch.allclose(axes.transpose(1, 2) @ axes, torch.eye(3, dtype=torch.float64).expand(50, 3, 3), atol=1e-9)
    assert torch.allclose(torch.linalg.det(axes), torch.ones(50, dtype=torch.float64))
    assert torch.allclose(values.sort(-1).values, torch.linalg.svdvals(matrices).sort(-1).values, atol=1e-9)
