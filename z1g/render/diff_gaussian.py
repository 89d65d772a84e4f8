"""diff-gaussian-rasterization, the original's rasterizer, for parity runs; it loops over objects and views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from z1g.core.errors import UserError
from z1g.core.needs import require_package
from z1g.gaussians.channels import split
from z1g.render.base import Conventions, Rasterizer, RenderOutput, require_shapes

if TYPE_CHECKING:
    import torch

    from z1g.geometry.camera import Cameras
else:
    from z1g.core.lazy import torch

NEAR, FAR = 0.5, 2.5


class DiffGaussian(Rasterizer):
    """diff-gaussian-rasterization on CUDA. Its conventions are fixed; see `conventions`."""

    kind: Literal["diff_gaussian"] = "diff_gaussian"

    def check(self) -> None:
        require_package("", "diff_gaussian_rasterization", "it is built from source (docs/install.md)")

    def conventions(self) -> Conventions:
        return Conventions(
            near=0.2, alpha_cap=0.99, footprint="three_sigma", normalize_rotation=False, cap_gradient="pass"
        )

    def render(self, gaussians: torch.Tensor, cameras: Cameras) -> RenderOutput:
        require_shapes(gaussians, cameras)
        try:
            from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer
        except ImportError as error:
            raise UserError(
                "render kind 'diff_gaussian' needs diff-gaussian-rasterization, built from source (docs/install.md)"
            ) from error
        if not gaussians.is_cuda:
            raise UserError("render kind 'diff_gaussian' needs a GPU; use {kind: cpu} or {kind: auto} here")
        tan_x, tan_y = _tangents(cameras)
        from z1g.render.projection import finite

        b, v = cameras.c2w.shape[:2]
        # Autocast would compute poses in half precision.
        with torch.autocast("cuda", enabled=False):
            views, projections, positions = matrices(cameras.to(gaussians.device))
            (usable, _), images = finite(gaussians.float(), dim=2), []
            for i in range(b):
                parts = {name: value.contiguous() for name, value in split(usable[i], dim=1).items()}
                for j in range(v):
                    settings = GaussianRasterizationSettings(
                        image_height=cameras.height, image_width=cameras.width, tanfovx=tan_x, tanfovy=tan_y,
                        bg=torch.zeros(3, device=gaussians.device), scale_modifier=1.0, viewmatrix=views[i, j],
                        projmatrix=projections[i, j], sh_degree=0, campos=positions[i, j],
                        prefiltered=False, debug=False,
                    )  # fmt: skip
                    rgb, _, depth, alpha = GaussianRasterizer(raster_settings=settings)(
                        means3D=parts["position"], means2D=torch.zeros_like(parts["position"], requires_grad=True),
                        shs=None, colors_precomp=parts["rgb"], opacities=parts["opacity"], scales=parts["scale"],
                        rotations=parts["rotation"], cov3D_precomp=None,
                    )  # fmt: skip
                    images.append(torch.cat([rgb, alpha, depth]))
        stacked = torch.stack(images).unflatten(0, (b, v)).to(gaussians.dtype)
        return RenderOutput(stacked[:, :, :3], stacked[:, :, 3:4], stacked[:, :, 4:5])


def matrices(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For row vectors: world to camera and world to clip space [B,V,4,4], and camera positions [B,V,3], all float32.

    A point projects to pixel ((ndc + 1)·size - 1) / 2, counted from the first pixel's center.
    """
    w2c = cameras.world_to_camera()
    clip = _projection(*_tangents(cameras)).to(w2c) @ w2c
    row_view, row_clip = (x.transpose(-1, -2).float().contiguous() for x in (w2c, clip))
    return row_view, row_clip, cameras.c2w[..., :3, 3].float().contiguous()


def _tangents(cameras: Cameras) -> tuple[float, float]:
    """Tangents of half the fields of view along x and y."""
    return 0.5 * cameras.width / cameras.focal, 0.5 * cameras.height / cameras.focal


def _projection(tan_x: float, tan_y: float) -> torch.Tensor:
    """Perspective matrix [4,4] for column vectors, z to 0..1, camera looking along +z."""
    matrix = torch.zeros(4, 4)
    matrix[0, 0], matrix[1, 1] = 1 / tan_x, 1 / tan_y
    matrix[2, 2], matrix[2, 3] = FAR / (FAR - NEAR), -FAR * NEAR / (FAR - NEAR)
    matrix[3, 2] = 1
    return matrix
