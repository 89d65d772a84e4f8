"""diff-gaussian-rasterization, the seed's rasterizer, for parity runs: a loop over objects and views."""

import math
from typing import TYPE_CHECKING, Literal

from z1g.errors import UserError
from z1g.render import Rasterizer, RenderOutput
from z1g.splat import split

if TYPE_CHECKING:
    import torch

    from z1g.camera import Cameras
else:
    from z1g.lazy import torch

NEAR, FAR = 0.5, 2.5


class DiffGaussian(Rasterizer):
    """Its conventions: quaternions used as they come, 3-sigma footprint, alpha up to 0.99, near plane 0.2."""

    kind: Literal["diff_gaussian"] = "diff_gaussian"

    def render(self, gaussians: "torch.Tensor", cameras: "Cameras") -> RenderOutput:
        try:
            from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer
        except ImportError as error:
            raise UserError(
                "render kind 'diff_gaussian' needs diff-gaussian-rasterization, built from source (docs/install.md)"
            ) from error
        tangent = math.tan(math.radians(cameras.fov_y_deg) / 2)
        aspect = cameras.width / cameras.height
        projection = _projection(tangent * aspect, tangent).to(gaussians.device)
        pictures = []
        for item, poses in zip(gaussians.float(), cameras.world_to_camera().float(), strict=True):
            parts = {name: value.contiguous() for name, value in split(item, dim=1).items()}
            for w2c in poses:
                # The extension multiplies row vectors: transposed matrices.
                view = w2c.T.contiguous()
                settings = GaussianRasterizationSettings(
                    image_height=cameras.height, image_width=cameras.width, tanfovx=tangent * aspect, tanfovy=tangent,
                    bg=torch.zeros(3, device=gaussians.device), scale_modifier=1.0, viewmatrix=view,
                    projmatrix=view @ projection.T, sh_degree=0, campos=torch.linalg.inv(w2c)[:3, 3],
                    prefiltered=False, debug=False,
                )  # fmt: skip
                rgb, _, depth, alpha = GaussianRasterizer(raster_settings=settings)(
                    means3D=parts["position"], means2D=torch.zeros_like(parts["position"], requires_grad=True),
                    shs=None, colors_precomp=parts["rgb"], opacities=parts["opacity"], scales=parts["scale"],
                    rotations=parts["rotation"], cov3D_precomp=None,
                )  # fmt: skip
                pictures.append(torch.cat([rgb, alpha, depth]))
        b, v = cameras.c2w.shape[:2]
        stacked = torch.stack(pictures).unflatten(0, (b, v))
        return RenderOutput(stacked[:, :, :3], stacked[:, :, 3:4], stacked[:, :, 4:5])


def _projection(tan_x: float, tan_y: float) -> "torch.Tensor":
    """Perspective matrix [4,4] for column vectors, z to 0..1, camera looking along +z."""
    matrix = torch.zeros(4, 4)
    matrix[0, 0], matrix[1, 1] = 1 / tan_x, 1 / tan_y
    matrix[2, 2], matrix[2, 3] = FAR / (FAR - NEAR), -FAR * NEAR / (FAR - NEAR)
    matrix[3, 2] = 1
    return matrix
