"""Optimization of mesh and texture on renders of the Gaussians with nvdiffrast, as in DreamGaussian and LGM.

Minimizes the MSE of color and alpha plus weighted penalties of squared point offsets and of 1 - cos between neighboring
faces, then optimizes the texture only.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.progress import Check, no_check, track
from z1g.core.seeding import numpy_generator
from z1g.geometry.camera import Cameras
from z1g.render import Rasterizer
from z1g.surface.fusion import Triangles
from z1g.surface.texture import Unwrapped, point_normals
from z1g.surface.views import Views, look

NEAR, FAR = 0.1, 10.0


@dataclass(frozen=True)
class Refinement:
    """Budgets and learning rates of the original's conversion; rates in texel values and normalized units per step."""

    steps: int = 2048
    texture_steps: int = 512
    views: int = 96
    view_size: int = 512
    views_per_step: int = 4
    texture_rate: float = 1e-2
    point_rate: float = 1e-4
    offset_weight: float = 0.1
    normal_weight: float = 1e-3


def require_gpu() -> None:
    """Raise UserError if nvdiffrast or a GPU is missing."""
    if importlib.util.find_spec("nvdiffrast") is None:
        raise UserError("refining a mesh needs nvdiffrast, see docs/install.md; omit --refine to do without")
    if not torch.cuda.is_available():
        raise UserError("refining a mesh needs a GPU with CUDA; omit --refine to do without")


def refine(
    mesh: Unwrapped,
    texture: NDArray[np.uint8],
    rasterizer: Rasterizer,
    gaussians: Tensor,
    options: Refinement = Refinement(),
    check: Check = no_check,
) -> tuple[Unwrapped, NDArray[np.uint8]]:
    """Optimize points and texture to match renders of Gaussians [N,14] in the sphere of radius 0.5."""
    views = look(rasterizer, gaussians, options.views, options.view_size, check)
    fit = _Fit(mesh, texture, views, options)
    rates = [{"params": [fit.texture], "lr": options.texture_rate}, {"params": [fit.offsets], "lr": options.point_rate}]
    optimizer = torch.optim.Adam(rates)
    for step in track(range(options.steps + options.texture_steps), "refining", options.steps + options.texture_steps):
        check()
        if step == options.steps:
            fit.offsets.requires_grad_(False)
        optimizer.zero_grad(set_to_none=True)
        ids = numpy_generator(0, step).choice(options.views, options.views_per_step, replace=False)
        fit.loss(ids.tolist()).backward()
        optimizer.step()
    return fit.result()


class _Fit:
    """Points (not split at seams), their offsets and the texture, on the renders' device."""

    def __init__(self, mesh: Unwrapped, texture: NDArray[np.uint8], views: Views, options: Refinement) -> None:
        self.mesh, self.views, self.options = mesh, views, options
        device = views.rgb.device
        _, first = np.unique(mesh.origin, return_index=True)
        self.points = torch.from_numpy(mesh.points[first]).float().to(device)
        self.origin = torch.from_numpy(mesh.origin).to(device)
        self.faces = torch.from_numpy(mesh.faces).to(device)
        self.neighbors = torch.from_numpy(adjacent_faces(mesh.origin[mesh.faces])).to(device)
        uv = torch.from_numpy(mesh.uv * [1, -1] + [0, 1]).float().to(device)  # v down, as the texture's rows
        self.draw = Painter(self.faces, uv)
        self.offsets = torch.zeros_like(self.points, requires_grad=True)
        self.texture = (torch.from_numpy(texture).float() / 255).to(device).requires_grad_()

    def loss(self, ids: list[int]) -> Tensor:
        """Loss over some views."""
        moved = self.points + self.offsets
        rgb, alpha = self.draw(moved[self.origin], self.texture, self.views.cameras.views(ids))
        true_alpha = self.views.alpha[ids]
        error = (rgb - self.views.rgb[ids] * true_alpha).square().mean() + (alpha - true_alpha).square().mean()
        normals = face_normals(moved, self.origin[self.faces])
        bend = 1 - (normals[self.neighbors[:, 0]] * normals[self.neighbors[:, 1]]).sum(dim=1).mean()
        shift = self.offsets.square().sum(dim=1).mean()
        return error + self.options.normal_weight * bend + self.options.offset_weight * shift

    @torch.no_grad()
    def result(self) -> tuple[Unwrapped, NDArray[np.uint8]]:
        moved = (self.points + self.offsets).double().cpu().numpy()
        normals = point_normals(Triangles(moved, self.mesh.origin[self.mesh.faces]))
        origin = self.mesh.origin
        texture: NDArray[np.uint8] = (self.texture.clamp(0, 1) * 255).round().byte().cpu().numpy()
        return self.mesh._replace(points=moved[origin], normals=normals[origin]), texture


class Painter:
    """Differentiable renderer of a textured mesh: faces [F,3], uv [N,2] with v down."""

    def __init__(self, faces: Tensor, uv: Tensor) -> None:
        self.dr: Any = importlib.import_module("nvdiffrast.torch")
        self.context = self.dr.RasterizeCudaContext()
        self.faces, self.uv = faces.int().contiguous(), uv.contiguous()

    def __call__(self, points: Tensor, texture: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """Premultiplied color [V,3,H,W] and alpha [V,1,H,W] of points [N,3] with texture [S,S,3]; row 0 is the top."""
        clip = clip_positions(points, cameras).contiguous()
        fragments, _ = self.dr.rasterize(self.context, clip, self.faces, resolution=[cameras.height, cameras.width])
        uv, _ = self.dr.interpolate(self.uv[None].expand(len(clip), -1, -1).contiguous(), fragments, self.faces)
        color = self.dr.texture(texture[None].contiguous(), uv, filter_mode="linear", boundary_mode="clamp")
        covered = (fragments[..., 3:] > 0).to(color)
        image = torch.cat([color * covered, covered], dim=-1)
        image = self.dr.antialias(image.contiguous(), fragments, clip, self.faces)
        rgb, alpha = image.movedim(-1, 1).split([3, 1], dim=1)
        return rgb, alpha


def clip_positions(points: Tensor, cameras: Cameras) -> Tensor:
    """Clip coordinates [V,N,4] of points [N,3] for cameras [1,V]; y down, so that row 0 is the image's top."""
    w2c = cameras.world_to_camera()[0]
    local = points @ w2c[:, :3, :3].transpose(1, 2) + w2c[:, None, :3, 3]
    x, y, z = local.unbind(-1)
    depth = ((FAR + NEAR) * z - 2 * FAR * NEAR) / (FAR - NEAR)
    return torch.stack(
        [2 * cameras.focal / cameras.width * x, 2 * cameras.focal / cameras.height * y, depth, z], dim=-1
    )


def face_normals(points: Tensor, faces: Tensor) -> Tensor:
    """Unit normals [F,3]."""
    a, b, c = (points[faces[:, i]] for i in range(3))
    return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1, eps=1e-12)


def adjacent_faces(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs [E,2] of faces that share an edge."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    face = np.tile(np.arange(len(faces)), 3)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    edges, face = edges[order], face[order]
    same = (edges[1:] == edges[:-1]).all(axis=1)
    return np.stack([face[:-1][same], face[1:][same]], axis=1)
