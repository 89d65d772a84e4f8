"""Colors that depend on the direction of view: harmonics of degree 1 to 3, as in 3D Gaussian Splatting."""

import torch
from torch import Tensor

DEGREES = {3: 1, 8: 2, 15: 3}
"""Degree by the number of coefficients above degree 0."""


def basis(directions: Tensor, degree: int) -> Tensor:
    """Harmonics above degree 0 of unit vectors [N,3]: [N,K], K = 3, 8 or 15.

    Real spherical harmonics with the Condon-Shortley phase, in the order m = -l..l of each degree l; the reference
    implementation of 3D Gaussian Splatting (Kerbl et al., SIGGRAPH 2023) stores its coefficients for these.
    """
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    columns = [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree > 1:
        columns += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degree > 2:
        columns += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(columns, dim=-1)


def seen_color(rgb: Tensor, coefficients: Tensor, directions: Tensor) -> Tensor:
    """Colors [N,3], at least 0, of Gaussians seen along directions [N,3] (camera to Gaussian, any length).

    rgb: [N,3], the color of degree 0 (0.5 + SH_C0·f_dc). coefficients: [N,K,3] of higher degrees, in whose frame the
    directions are.
    """
    unit = torch.nn.functional.normalize(directions, dim=-1)
    harmonics = basis(unit, DEGREES[coefficients.shape[1]])
    return (rgb + torch.einsum("nk,nkc->nc", harmonics, coefficients)).clamp(min=0)
