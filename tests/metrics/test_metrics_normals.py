"""Normal consistency, and the metrics of geometry after a registration, against shapes whose values are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support.gaussians import covariance, gaussians

from z1g.gaussians.rotations import shortest_axes
from z1g.metrics import (
    Chamfer,
    FScore,
    NormalConsistency,
    NotMeasurable,
    RegisteredChamfer,
    RegisteredFScore,
    RegisteredNormalConsistency,
    Shape,
)
from z1g.metrics.alignment import aligned, fit_similarity

N = 2500


def boxes(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points [n,3] and normals on two boxes that no rotation maps to themselves."""
    draw = np.random.default_rng(seed)
    points, normals = draw.uniform(-1, 1, (n, 3)), np.zeros((n, 3))
    axis, side = draw.integers(0, 3, n), draw.choice([-1.0, 1.0], n)
    points[np.arange(n), axis] = side
    normals[np.arange(n), axis] = side
    first = draw.random(n) < 0.6
    half = np.where(first[:, None], [0.3, 0.12, 0.08], [0.06, 0.2, 0.06])
    center = np.where(first[:, None], [0.0, 0, 0], [0.2, 0.3, 0.02])
    return center + half * points, normals


def shape(points: np.ndarray, normals: np.ndarray, opacity: float = 1.0) -> Shape:
    """A shape compared with other samples of the boxes."""
    true, true_normals = boxes(N, 1)
    return Shape(
        torch.from_numpy(points), torch.full((len(points),), opacity), lambda n: torch.from_numpy(true),
        lambda: pytest.fail("no depth is needed"), normals=torch.from_numpy(normals),
        surface_normals=lambda n: torch.from_numpy(true_normals),
    )  # fmt: skip


def test_the_same_surface_has_consistent_normals_whatever_their_sign() -> None:
    points, normals = boxes(N, 2)
    flipped = normals * np.random.default_rng(0).choice([-1.0, 1.0], (N, 1))
    value = NormalConsistency(points=N).compute(shape(points, flipped))
    assert value > 0.9, "only points at edges have neighbors on other faces"
    assert value == pytest.approx(NormalConsistency(points=N).compute(shape(points, normals)))


def test_random_normals_are_consistent_by_half() -> None:
    """The mean of |cos| of a uniform direction with any other is 1/2."""
    points, _ = boxes(N, 2)
    random = np.random.default_rng(0).normal(size=(N, 3))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    assert NormalConsistency(points=N).compute(shape(points, random)) == pytest.approx(0.5, abs=0.02)


def test_nothing_visible_and_no_normals() -> None:
    points, normals = boxes(N, 2)
    assert NormalConsistency(points=N).compute(shape(points, normals, opacity=0.0)) == 0.0
    plain = shape(points, normals)
    with pytest.raises(NotMeasurable, match="no normals"):
        NormalConsistency(points=N).compute(Shape(plain.points, plain.opacity, plain.surface, plain.depth))


@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10))
@settings(max_examples=50, deadline=None)
def test_umeyama_recovers_a_similarity(seed: int, scale: float) -> None:
    draw = np.random.default_rng(seed)
    points, offset = draw.normal(size=(30, 3)), draw.normal(size=3)
    rotation = Rotation.random(random_state=seed).as_matrix()
    found = fit_similarity(points, scale * points @ rotation.T + offset)
    assert found.scale == pytest.approx(scale)
    np.testing.assert_allclose(found.rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(found.offset, offset, atol=1e-8)
    mirrored = fit_similarity(points, points * [-1, 1, 1])
    assert np.linalg.det(mirrored.rotation) == pytest.approx(1), "never a reflection"


def test_registration_undoes_a_small_similarity_and_only_then() -> None:
    points, normals = boxes(N, 2)
    turn = Rotation.from_euler("xyz", [6, 12, -5], degrees=True).as_matrix()
    moved, turned = 1.15 * points @ turn.T + [0.05, -0.03, 0.04], normals @ turn.T
    placed, away = shape(points, normals), shape(moved, turned)
    floor = Chamfer(points=N).compute(placed)
    assert Chamfer(points=N).compute(away) > 4 * floor
    assert RegisteredChamfer(points=N).compute(away) == pytest.approx(floor, rel=0.1)
    assert FScore(points=N).compute(away) < 0.6
    assert RegisteredFScore(points=N).compute(away) > 0.95
    assert NormalConsistency(points=N).compute(away) < 0.8
    assert RegisteredNormalConsistency(points=N).compute(away) > 0.9
    assert RegisteredChamfer(points=N).compute(placed) <= 1.05 * floor


def test_a_registration_is_never_worse_than_none() -> None:
    draw = np.random.default_rng(3)
    for _ in range(5):
        points = draw.normal(size=(500, 3)) * draw.uniform(0.01, 1)
        surface, _ = boxes(500, 4)
        found = aligned(points, surface)
        assert np.isfinite(found.of(points)).all()
        assert found.scale > 0


def test_the_shortest_axis_is_the_eigenvector_of_the_least_variance() -> None:
    x = gaussians(30)
    axes = shortest_axes(x).double().numpy()
    values, vectors = np.linalg.eigh(covariance(x))
    cosine = np.abs((axes * vectors[:, :, 0]).sum(axis=1))
    distinct = values[:, 1] > 1.01 * values[:, 0]
    assert distinct.sum() > 20
    np.testing.assert_allclose(cosine[distinct], 1, atol=1e-4)


def test_labels_tell_them_apart() -> None:
    assert (RegisteredChamfer().label, Chamfer().label) == ("Chamfer (registered)", "Chamfer")
    assert "Umeyama" in RegisteredNormalConsistency().reference
