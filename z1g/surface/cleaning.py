"""Cleaning of a raw surface: removal of small pieces, smoothing and simplification."""

import numpy as np
from numpy.typing import NDArray

from z1g.surface.fusion import Triangles

KEPT_SHARE = 0.02
"""Pieces with less than this fraction of the largest piece's area are removed."""
SMOOTHING = (0.5, -0.53, 8)
"""Lambda, mu and iterations of Taubin smoothing (1995), which removes the grid's steps and preserves the volume."""


def clean(surface: Triangles, max_faces: int) -> Triangles:
    """Keep the largest pieces, smooth them, and simplify to at most `max_faces` triangles."""
    smooth = smoothed(largest_pieces(surface))
    return simplified(smooth, max_faces)


def largest_pieces(surface: Triangles) -> Triangles:
    """Remove connected pieces that are small relative to the largest one, and cavities, whose faces point inward."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(surface.points)
    starts, ends = surface.faces[:, [0, 1]].ravel(), surface.faces[:, [1, 2]].ravel()
    edges = coo_matrix((np.ones(len(starts), bool), (starts, ends)), shape=(n, n))
    _, piece_of_point = connected_components(edges, directed=False)
    piece = piece_of_point[surface.faces[:, 0]]
    area, volume = (np.bincount(piece, weights=values) for values in (areas(surface), volumes(surface)))
    area[volume < 0] = 0
    return used_points(surface.points, surface.faces[(area >= KEPT_SHARE * area.max())[piece]])


def smoothed(surface: Triangles) -> Triangles:
    """Move points toward and away from the mean of their neighbors alternately (Taubin smoothing)."""
    from scipy.sparse import coo_matrix, diags

    n = len(surface.points)
    starts, ends = surface.faces.ravel(), np.roll(surface.faces, -1, axis=1).ravel()
    ones = np.ones(2 * len(starts))
    links = coo_matrix((ones, (np.concatenate([starts, ends]), np.concatenate([ends, starts]))), shape=(n, n)).tocsr()
    links.data[:] = 1  # an edge shared by two faces is counted once
    mean = diags(1 / np.maximum(np.asarray(links.sum(axis=1))[:, 0], 1)) @ links
    toward, away, rounds = SMOOTHING
    points = surface.points
    for _ in range(rounds):
        for step in (toward, away):
            points = points + step * (mean @ points - points)
    return Triangles(points, surface.faces)


def simplified(surface: Triangles, max_faces: int) -> Triangles:
    """Simplify to at most `max_faces` triangles by quadric edge collapse (Garland & Heckbert 1997)."""
    import fast_simplification

    if len(surface.faces) <= max_faces:
        return surface
    points, faces = fast_simplification.simplify(
        surface.points.astype(np.float32), surface.faces.astype(np.int32), target_count=max_faces
    )
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    return used_points(points.astype(np.float64), faces.astype(np.int64))


def used_points(points: NDArray[np.float64], faces: NDArray[np.int64]) -> Triangles:
    """Remove points that no face uses."""
    used, index = np.unique(faces, return_inverse=True)
    return Triangles(points[used], index.reshape(faces.shape).astype(np.int64))


def areas(surface: Triangles) -> NDArray[np.float64]:
    """Area [F] of every face."""
    a, b, c = (surface.points[surface.faces[:, i]] for i in range(3))
    area: NDArray[np.float64] = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return area


def volumes(surface: Triangles) -> NDArray[np.float64]:
    """Signed volume [F] between each face and the origin; their sum over a closed surface is its volume."""
    a, b, c = (surface.points[surface.faces[:, i]] for i in range(3))
    volume: NDArray[np.float64] = (a * np.cross(b, c)).sum(axis=1) / 6
    return volume
