"""Registration of an output to the true views by a similarity: scale, turn about the upright axis, offset.

Candidates are found on points, then refined on silhouettes and depth by Levenberg-Marquardt with numeric derivatives.
Where an object's shape fits several turns alike, the color of the same views decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from z1g.core.errors import UserError
from z1g.geometry.frames import about_y
from z1g.peers.content import Array, Content
from z1g.peers.target import Target

TURNS = 36
"""Turns of which the best are refined."""
CANDIDATES = 4
POINTS = 3000
MIN_OPACITY = 0.1
KEPT = 0.9
"""Fraction of the nearest distances that count: the rest may be of parts that one of both lacks."""
COARSE = 48
"""Side of the images in the first refinement, pixels."""
STEPS = np.array([0.01, 0.02, 0.004, 0.004, 0.004])
"""Of the numeric derivatives by log scale, turn (rad) and offset."""
FARTHEST = 0.1
"""Larger differences of depth count as this one, normalized units."""
DEPTH_WEIGHT = 5.0
ALIKE = 1.2
"""Candidates whose error is less than this multiple of the least fit the shape alike."""


@dataclass(frozen=True)
class Registration:
    """What was found: p_world = scale · turn · p + offset, p being the content after its frame.

    iou_before, iou: of the silhouettes. alike: turns in degrees that fit the shape as well, among which color decided.
    """

    scale: float
    turn_deg: float
    offset: tuple[float, float, float]
    iou_before: float
    iou: float
    alike: tuple[float, ...] = ()

    def record(self) -> dict[str, object]:
        """As JSON."""
        return {
            "scale": round(self.scale, 6), "turn_deg": round(self.turn_deg, 3),
            "offset": [round(x, 6) for x in self.offset], "iou_before": round(self.iou_before, 4),
            "iou": round(self.iou, 4), "alike": [round(x, 1) for x in self.alike],
        }  # fmt: skip


def similarity(parameters: Array) -> Array:
    """Matrix [4,4] of log scale, turn (rad) and offset [3]."""
    matrix = np.eye(4)
    matrix[:3, :3] = math.exp(parameters[0]) * about_y(math.degrees(parameters[1]))
    matrix[:3, 3] = parameters[2:]
    return matrix


def register(content: Content, target: Target) -> tuple[Content, Registration]:
    """Place a content on an object. Raises UserError if it has nothing to see."""
    before = overlap(content, target)
    start = _centered(content)
    rough, small = content.moved(start), _at(target, COARSE)
    refined = [_refine(rough, small, candidate, 8) for candidate in _candidates(rough, target)]
    least = min(error for _, error in refined)
    alike = [parameters for parameters, error in refined if error <= ALIKE * least]
    if len(alike) > 1:
        alike.sort(key=lambda parameters: _color_error(rough.moved(similarity(parameters)), small))
    best, _ = _refine(rough, target, alike[0], 12)
    matrix = similarity(best) @ start
    placed = content.moved(matrix)
    scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    turn = math.degrees(math.atan2(matrix[0, 2], matrix[0, 0]))
    x, y, z = matrix[:3, 3].tolist()
    turns = tuple(math.degrees(p[1]) for p in alike) if len(alike) > 1 else ()
    return placed, Registration(scale, turn, (x, y, z), before, overlap(placed, target), turns)


def overlap(content: Content, target: Target) -> float:
    """Intersection over union of the silhouettes of all views together."""
    alpha = content.draw(target.cameras).alpha.cpu() >= 0.5
    true = functional.interpolate(target.alpha, size=alpha.shape[-2:], mode="area") >= 0.5
    either = int((alpha | true).sum())
    return int((alpha & true).sum()) / either if either else 1.0


def visible_points(content: Content, most: int = POINTS) -> Array:
    """Up to `most` points [N,3] of what can be seen. Raises UserError if there are fewer than ten."""
    cloud = content.cloud()
    points = cloud.points[cloud.opacity >= MIN_OPACITY].double().cpu()
    if len(points) < 10:
        raise UserError(f"nothing can be seen of it: {len(points)} of {len(cloud.points)} Gaussians are opaque")
    chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:most]
    picked: Array = points[chosen].numpy()
    return picked


def _centered(content: Content) -> Array:
    """The map [4,4] to the unit sphere of radius 0.5, so that steps have the same size whatever the file's unit."""
    low, high = _extent(visible_points(content))
    scale = 1.0 / max(float(np.linalg.norm(high - low)), 1e-30)
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[:3, 3] = -scale * (low + high) / 2
    return matrix


def _extent(points: Array) -> tuple[Array, Array]:
    """Low and high end [3] of a cloud without its outermost hundredth."""
    low, high = np.quantile(points, [0.01, 0.99], axis=0)
    return low, high


def _candidates(content: Content, target: Target) -> list[Array]:
    """Parameters whose clouds are nearest to the true one, each the best among its neighbors in turn."""
    from scipy.spatial import cKDTree

    true = target.points()
    if len(true) < 10:
        raise UserError("the true views show nothing to register to")
    true = true[np.random.default_rng(0).permutation(len(true))[:POINTS]]
    points, tree = visible_points(content), cKDTree(true)
    low, high = _extent(true)
    found: list[tuple[float, Array]] = []
    for turn in np.arange(TURNS) * 2 * math.pi / TURNS:
        turned = points @ about_y(math.degrees(turn)).T
        own_low, own_high = _extent(turned)
        scale = float(np.linalg.norm(high - low) / np.linalg.norm(own_high - own_low))
        offset = (low + high) / 2 - scale * (own_low + own_high) / 2
        placed = scale * turned + offset
        distance = _trimmed(tree.query(placed)[0]) + _trimmed(cKDTree(placed).query(true)[0])
        found.append((distance, np.array([math.log(scale), turn, *offset])))
    around = [found[-1], *found, found[0]]
    valleys = [
        found[i]
        for i, (before, after) in enumerate(zip(around, around[2:], strict=False))
        if found[i][0] <= min(before[0], after[0])
    ]
    return [parameters for _, parameters in sorted(valleys, key=lambda one: one[0])[:CANDIDATES]]


def _trimmed(distances: NDArray[np.float64]) -> float:
    kept = np.sort(distances)[: max(1, int(KEPT * len(distances)))]
    return float(kept.mean())


def _at(target: Target, side: int) -> Target:
    """The target at about `side` pixels."""
    own = target.cameras.height
    small = next(s for s in range(min(own, side), 0, -1) if own % s == 0)
    if small == own:
        return target
    cameras = type(target.cameras)(target.cameras.c2w, target.cameras.fov_y_deg, small, small)
    rgb, alpha = (functional.interpolate(x, size=(small, small), mode="area") for x in (target.rgb, target.alpha))
    known = functional.interpolate((target.depth > 0).float(), size=(small, small), mode="area")
    depth = functional.interpolate(target.depth, size=(small, small), mode="area")
    return Target(cameras, rgb, alpha, torch.where(known > 0.999, depth, torch.zeros(())))


def _residuals(content: Content, target: Target) -> Tensor:
    """Differences of alpha and of depth, as one vector."""
    drawn = content.draw(target.cameras)
    size = target.alpha.shape[-2:]
    alpha, depth = (functional.interpolate(x.cpu(), size=size, mode="area") for x in (drawn.alpha, drawn.depth))
    both = (target.depth > 0) & (alpha > 0.5)
    gap = (depth / alpha.clamp(min=0.5) - target.depth).clamp(-FARTHEST, FARTHEST)
    gap = torch.where(both, DEPTH_WEIGHT * gap, torch.zeros(()))
    return torch.cat([(alpha - target.alpha).flatten(), gap.flatten()]).double()


def _refine(content: Content, target: Target, start: Array, iterations: int) -> tuple[Array, float]:
    """Levenberg-Marquardt from a start; parameters and the sum of squares."""
    best = start.copy()
    residuals = _residuals(content.moved(similarity(best)), target)
    error, damping = float(residuals.square().sum()), 1e-2
    for _ in range(iterations):
        columns = [
            (_residuals(content.moved(similarity(best + step)), target) - residuals) / step[i]
            for i, step in enumerate(np.diag(STEPS))
        ]
        jacobian = torch.stack(columns, dim=1)
        normal, slope = jacobian.T @ jacobian, jacobian.T @ residuals
        improved = False
        while not improved and damping < 1e6:
            damped = normal + damping * torch.diag(normal.diagonal() + 1e-12)
            tried = best - torch.linalg.solve(damped, slope).numpy()
            new = _residuals(content.moved(similarity(tried)), target)
            improved = float(new.square().sum()) < error
            damping = damping / 5 if improved else damping * 5
        if not improved:
            break
        gain = error - float(new.square().sum())
        best, residuals, error = tried, new, float(new.square().sum())
        if gain < 1e-6 * error:
            break
    return best, error


def _color_error(content: Content, target: Target) -> float:
    drawn = content.draw(target.cameras)
    rgb = functional.interpolate(drawn.rgb.cpu().float(), size=target.rgb.shape[-2:], mode="area")
    return float((rgb - target.rgb).square().mean())
