"""Spherical harmonics: against scipy's complex ones, and through the files of other tools."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y
from support.gaussians import gaussians

from z1g.core.errors import UserError
from z1g.gaussians import files
from z1g.gaussians.harmonics import basis, seen_color
from z1g.gaussians.ply import PROPERTIES


def real_harmonics(directions: np.ndarray, degree: int) -> np.ndarray:
    """[N,K] from scipy: sqrt(2)·Im for m < 0, sqrt(2)·Re for m > 0, with the Condon-Shortley phase kept."""
    polar, azimuth = np.arccos(directions[:, 2]), np.arctan2(directions[:, 1], directions[:, 0])
    columns = []
    for n in range(1, degree + 1):
        for m in range(-n, n + 1):
            value = sph_harm_y(n, abs(m), polar, azimuth)
            part = value.real if m == 0 else np.sqrt(2) * (value.real if m > 0 else value.imag)
            columns.append(part)
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_basis_is_that_of_scipy(degree: int) -> None:
    draw = np.random.default_rng(degree)
    directions = draw.normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    np.testing.assert_allclose(basis(torch.from_numpy(directions), degree).numpy(), real_harmonics(directions, degree))


def test_color_is_never_negative_and_ignores_the_length_of_directions() -> None:
    draw = np.random.default_rng(0)
    rgb, bands = draw.uniform(0, 1, (30, 3)), draw.normal(size=(30, 15, 3))
    directions = draw.normal(size=(30, 3))
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    expected = np.maximum(rgb + np.einsum("nk,nkc->nc", real_harmonics(unit, 3), bands), 0)
    seen = seen_color(*(torch.from_numpy(x) for x in (rgb, bands, 7 * directions)))
    np.testing.assert_allclose(seen.numpy(), expected, atol=1e-12)
    assert (expected == 0).any()


def ply_with_bands(path: Path, bands: np.ndarray) -> Path:
    """A `.ply` of plain Gaussians with f_rest [N,K,3], red first, as 3D Gaussian Splatting writes it."""
    n, k, _ = bands.shape
    names = [*PROPERTIES, *(f"f_rest_{i}" for i in range(3 * k))]
    table = np.zeros((n, len(names)), "<f4")
    table[:, names.index("rot_0")] = 1
    table[:, len(PROPERTIES) :] = bands.transpose(0, 2, 1).reshape(n, -1)
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {n}\n"
    path.write_bytes(
        (head + "".join(f"property float {x}\n" for x in names) + "end_header\n").encode() + table.tobytes()
    )
    return path


@pytest.mark.parametrize("k", [3, 8, 15])
def test_ply_keeps_coefficients_by_color(tmp_path: Path, k: int) -> None:
    bands = np.random.default_rng(k).normal(size=(5, k, 3)).astype(np.float32)
    colored = files.read_colored(ply_with_bands(tmp_path / "a.ply", bands))
    assert colored.harmonics is not None
    np.testing.assert_array_equal(colored.harmonics.numpy(), bands)
    np.testing.assert_array_equal(colored.axes, np.diag([1, -1, -1]))  # y-down


def test_a_number_of_coefficients_of_no_degree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"12 coefficients f_rest_ are of no degree; 9, 24 or 45 are"):
        files.read_colored(ply_with_bands(tmp_path / "a.ply", np.ones((2, 4, 3), np.float32)))


def test_coefficients_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    bands = np.ones((2, 3, 3), np.float32)
    bands[1, 2, 0] = np.nan
    with pytest.raises(UserError, match="spherical harmonics contain numbers that are not finite"):
        files.read_colored(ply_with_bands(tmp_path / "a.ply", bands))


def test_zero_coefficients_count_as_none(tmp_path: Path) -> None:
    assert files.read_colored(ply_with_bands(tmp_path / "a.ply", np.zeros((2, 15, 3)))).harmonics is None


def test_spz_has_bytes_around_128(tmp_path: Path) -> None:
    x = gaussians(4)
    x[:, 3] = 0.9
    files.write(tmp_path / "plain.spz", x)
    plain = gzip.decompress((tmp_path / "plain.spz").read_bytes())
    coded = np.random.default_rng(0).integers(0, 256, (4, 8, 3)).astype(np.uint8)
    head = plain[:12] + struct.pack("<B", 2) + plain[13:16]  # of degree 2
    (tmp_path / "a.spz").write_bytes(gzip.compress(head + plain[16:] + coded.tobytes()))
    colored = files.read_colored(tmp_path / "a.spz")
    assert colored.harmonics is not None
    np.testing.assert_allclose(colored.harmonics.numpy(), (coded.astype(float) - 128) / 128)
    torch.testing.assert_close(colored.gaussians, files.read(tmp_path / "plain.spz"))


def test_splat_files_have_no_harmonics(tmp_path: Path) -> None:
    files.write(tmp_path / "a.splat", gaussians(4))
    assert files.read_colored(tmp_path / "a.splat").harmonics is None
