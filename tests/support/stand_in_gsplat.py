"""A stand-in for gsplat's public functions in plain torch, on a CPU; strict about what it is given."""

from itertools import pairwise

import torch
from torch import Tensor

from z1g.gaussians.channels import join
from z1g.geometry.camera import Cameras
from z1g.render.base import Conventions
from z1g.render.projection import project


def checked(tensor: Tensor, *shape: int) -> Tensor:
    """In float64; gsplat's kernels read contiguous float32."""
    assert tensor.shape == shape
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    return tensor.double()


class StandIn:
    """The four steps of `gsplat.rasterization`, computed in float64."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def fully_fused_projection(
        self, means: Tensor, covars: None, quats: Tensor, scales: Tensor, viewmats: Tensor, Ks: Tensor,
        width: int, height: int, *, near_plane: float, opacities: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:  # fmt: skip
        """Like gsplat, it leaves anything where a Gaussian is not drawn, here NaN."""
        self.calls.append("projection")
        b, n, c = *means.shape[:2], viewmats.shape[1]
        parts = {"position": checked(means, b, n, 3), "opacity": checked(opacities, b, n)[..., None].detach()}
        parts |= {"scale": checked(scales, b, n, 3), "rotation": checked(quats, b, n, 4)}
        assert all(part.isfinite().all() for part in parts.values())
        gaussians = join(parts | {"rgb": torch.zeros_like(parts["position"])}, dim=2)
        focal, poses = checked(Ks, b, c, 3, 3)[0, 0, 1, 1], checked(viewmats, b, c, 4, 4)
        fov_y_deg = 2 * torch.rad2deg(torch.atan(0.5 * height / focal))
        cameras = Cameras(torch.linalg.inv(poses), float(fov_y_deg), height, width)
        seen = project(gaussians, cameras, Conventions(near=near_plane))
        radii = seen.extent.ceil().int().mT.contiguous()
        hidden = (radii == 0).any(dim=3, keepdim=True)
        mean, depth, conic = (
            value.masked_fill(hidden, torch.nan).float()
            for value in (seen.mean.mT, seen.depth[..., None], seen.conic.mT)
        )
        return radii, mean.contiguous(), depth.squeeze(3), conic.contiguous(), None

    def isect_tiles(
        self, means2d: Tensor, radii: Tensor, depths: Tensor, tile_size: int, tile_width: int, tile_height: int
    ) -> tuple[None, Tensor, Tensor]:
        """Indices of tiles of all images, ascending, and in each those of Gaussians of all images by depth."""
        self.calls.append("isect")
        tiles, order = [], []
        ranked = depths.detach().flatten(0, 1).argsort(dim=1, stable=True)
        images = zip(means2d.detach().flatten(0, 1), radii.flatten(0, 1), ranked, strict=True)
        for image, (mean, radius, by_depth) in enumerate(images):
            first, last = ((mean - radius) / tile_size).floor(), ((mean + radius) / tile_size).floor()
            for tile in range(tile_width * tile_height):
                place = torch.tensor([tile % tile_width, tile // tile_width])
                touched = ((radius > 0) & (first <= place) & (place <= last)).all(dim=1)
                found = by_depth[touched[by_depth]]
                tiles.append(torch.full_like(found, image * tile_width * tile_height + tile))
                order.append(found + image * len(mean))
        return None, torch.cat(tiles), torch.cat(order).int()

    def isect_offset_encode(self, isect_ids: Tensor, n_images: int, tile_width: int, tile_height: int) -> Tensor:
        """Where each tile's part of the list begins [n_images,tile_height,tile_width]."""
        self.calls.append("offsets")
        starts = torch.searchsorted(isect_ids, torch.arange(n_images * tile_height * tile_width))
        return starts.int().view(n_images, tile_height, tile_width)

    def rasterize_to_pixels(
        self, means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, image_width: int, image_height: int,
        tile_size: int, isect_offsets: Tensor, flatten_ids: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Colors [B,C,H,W,4] and alpha [B,C,H,W,1]."""
        self.calls.append("pixels")
        b, c, n = means2d.shape[:3]
        rows, columns = isect_offsets.shape[2:]
        assert isect_offsets.shape == (b, c, -(-image_height // tile_size), -(-image_width // tile_size))
        mean, conic = checked(means2d, b, c, n, 2).flatten(0, 2), checked(conics, b, c, n, 3).flatten(0, 2)
        color, opacity = checked(colors, b, c, n, 4).flatten(0, 2), checked(opacities, b, c, n).flatten()
        bounds = [*isect_offsets.flatten().tolist(), len(flatten_ids)]
        tiles = []
        for tile, (start, end) in enumerate(pairwise(bounds)):
            ids, corner = flatten_ids[start:end].long(), (tile % columns, tile // columns % rows)
            weight = weights(mean[ids], conic[ids], opacity[ids], corner, tile_size)
            tiles.append(torch.cat([weight @ color[ids], weight.sum(dim=1, keepdim=True)], dim=1))
        grid = torch.stack(tiles).view(b, c, rows, columns, tile_size, tile_size, 5)
        whole = grid.transpose(3, 4).reshape(b, c, rows * tile_size, columns * tile_size, 5)
        image = whole[:, :, :image_height, :image_width].float()
        return image[..., :4].contiguous(), image[..., 4:].contiguous()


def weights(mean: Tensor, conic: Tensor, opacity: Tensor, corner: tuple[int, int], side: int) -> Tensor:
    """Shares [pixels,Gaussians] of Gaussians, nearest first, in the pixels of a tile."""
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    at = torch.stack([x + side * corner[0], y + side * corner[1]], dim=2).view(-1, 1, 2)
    dx, dy = (at.double() - mean).unbind(2)
    alpha = opacity * torch.exp(-0.5 * (conic[:, 0] * dx**2 + conic[:, 2] * dy**2) - conic[:, 1] * dx * dy)
    alpha = torch.where(alpha < 1 / 255, 0, alpha.clamp(max=0.999))
    left = (1 - alpha).cumprod(dim=1)
    before = torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], dim=1)
    return torch.where(left > 1e-4, before * alpha, 0)
