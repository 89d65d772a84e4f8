"""Sheets of six views, and splats as 3DGS `.ply` files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plyfile import PlyData

from z1g.core.errors import UserError
from z1g.gaussians import ply
from z1g.geometry import camera, mosaic

SH_C0 = 0.28209479177387814


def gaussians(n: int = 20, seed: int = 0) -> torch.Tensor:
    x = torch.rand(n, 14, generator=torch.Generator().manual_seed(seed))
    x[:, :3] -= 0.5
    x[:, 3] = 0.02 + 0.96 * x[:, 3]
    x[:, 4:7] = 0.001 + 0.1 * x[:, 4:7]
    x[:, 7:11] = torch.nn.functional.normalize(x[:, 7:11] - 0.5, dim=1)
    return x


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrices [N,3,3] of quaternions [N,4], w first, from the product q·v·q*."""
    w, x, y, z = (quaternion[:, i] for i in range(4))
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def covariance(x: torch.Tensor) -> np.ndarray:
    array = x.double().numpy()
    turned = rotation_of(array[:, 7:11]) * array[:, None, 4:7]
    return turned @ turned.transpose(0, 2, 1)


def rigid(seed: int) -> np.ndarray:
    matrix = camera.view_frame(camera.CameraOptions().poses(seed), 1.5) @ camera.orbit_c2w(-40, 100 + seed, 0.7)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    return matrix


def test_views_stand_in_reading_order() -> None:
    views = torch.arange(6.0)[None, :, None, None, None].expand(1, 6, 1, 2, 3)
    sheet = mosaic.tile(views)
    assert sheet.shape == (1, 1, 6, 6)
    assert sheet[0, 0, ::2, ::3].tolist() == [[0, 1], [2, 3], [4, 5]]


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_untile_inverts_tile(b: int, c: int, h: int, w: int, seed: int) -> None:
    views = torch.randn(b, 6, c, h, w, generator=torch.Generator().manual_seed(seed))
    sheet = mosaic.tile(views)
    assert sheet.shape == (b, c, 3 * h, 2 * w)
    torch.testing.assert_close(mosaic.untile(sheet), views)
    torch.testing.assert_close(sheet[:, :, h : 2 * h, w:], views[:, 3])


def test_a_sheet_holds_six() -> None:
    with pytest.raises(ValueError, match="6 views, not 5"):
        mosaic.tile(torch.zeros(1, 5, 3, 2, 2))


def test_ply_values(tmp_path: Path) -> None:
    x = gaussians()
    ply.write(tmp_path / "a.ply", x, np.eye(4))
    data = PlyData.read(tmp_path / "a.ply")
    assert data.byte_order == "<"
    assert [element.name for element in data.elements] == ["vertex"]
    vertex = data["vertex"]
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
    names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert [p.name for p in vertex.properties] == names
    table = {name: np.asarray(vertex[name], dtype=np.float64) for name in names}
    array = x.double().numpy()
    # The y-down world of COLMAP: half a turn about x.
    for name, expected in {"x": array[:, 0], "y": -array[:, 1], "z": -array[:, 2], "nx": 0, "ny": 0, "nz": 0}.items():
        np.testing.assert_allclose(table[name], expected, atol=1e-6)
    for i in range(3):
        np.testing.assert_allclose(table[f"f_dc_{i}"], (array[:, 11 + i] - 0.5) / SH_C0, atol=1e-5)
        np.testing.assert_allclose(table[f"scale_{i}"], np.log(array[:, 4 + i]), atol=1e-4)
    np.testing.assert_allclose(table["opacity"], np.log(array[:, 3] / (1 - array[:, 3])), atol=1e-5)
    stored = np.stack([table[f"rot_{i}"] for i in range(4)], axis=1)
    half_turn = np.diag([1.0, -1.0, -1.0])
    np.testing.assert_allclose(rotation_of(stored), half_turn @ rotation_of(array[:, 7:11]), atol=1e-5)


def test_full_and_empty_opacity_stay_finite(tmp_path: Path) -> None:
    x = gaussians(2)
    x[:, 3] = torch.tensor([0.0, 1.0])
    x[0, 4:7] = 0
    ply.write(tmp_path / "a.ply", x, np.eye(4))
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"]
    assert all(np.isfinite(vertex[p.name]).all() for p in vertex.properties)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ply_round_trip(tmp_path: Path, seed: int) -> None:
    x, to_world = gaussians(seed=seed), rigid(seed)
    ply.write(tmp_path / "a.ply", x, to_world)
    back = ply.read(tmp_path / "a.ply", to_world)
    sign = torch.sign((back[:, 7:11] * x[:, 7:11]).sum(dim=1, keepdim=True))
    back[:, 7:11] *= sign
    torch.testing.assert_close(back, x, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_rigid_transform_turns_the_covariance(seed: int) -> None:
    x, matrix = gaussians(seed=seed).double(), rigid(seed)
    x[:, 7:11] = torch.nn.functional.normalize(x[:, 7:11], dim=1)
    moved = ply.transform(x, matrix)
    turn = matrix[:3, :3]
    np.testing.assert_allclose(covariance(moved), turn @ covariance(x) @ turn.T, atol=1e-12)
    np.testing.assert_allclose(moved[:, :3].numpy(), x[:, :3].numpy() @ turn.T + matrix[:3, 3], atol=1e-12)
    torch.testing.assert_close(moved[:, [3, 4, 5, 6, 11, 12, 13]], x[:, [3, 4, 5, 6, 11, 12, 13]])


def test_files_of_other_tools(tmp_path: Path) -> None:
    """Higher harmonics, another order of properties and no normals are fine."""
    x = gaussians()
    ply.write(tmp_path / "a.ply", x, np.eye(4))
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"]
    names = ["opacity", *(f"f_dc_{i}" for i in range(3)), "f_rest_0", "rot_0", "rot_1", "rot_2", "rot_3"]
    names += ["scale_2", "scale_1", "scale_0", "z", "y", "x"]
    rows = np.stack([vertex[n] if n != "f_rest_0" else np.full(len(x), 9.0) for n in names], axis=1).astype("<f4")
    header = ["ply", "format binary_little_endian 1.0", "comment by hand", f"element vertex {len(x)}"]
    header += [f"property float {name}" for name in names] + ["end_header\n"]
    (tmp_path / "b.ply").write_bytes("\n".join(header).encode() + rows.tobytes())
    torch.testing.assert_close(ply.read(tmp_path / "b.ply", np.eye(4)), ply.read(tmp_path / "a.ply", np.eye(4)))


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    ply.write(path, gaussians(), np.eye(4))
    content = path.read_bytes()
    for length in (len(content) - 1, len(content) // 2, 100, 0):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"a\.ply"):
            ply.read(path, np.eye(4))


MESH = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n",
        b"ply\nformat binary_big_endian 1.0\nelement vertex 1\nproperty float x\nend_header\n0000",
        b"ply\nformat binary_little_endian 1.0\nelement vertex many\nproperty float x\nend_header\n0000",
        b"ply\nformat binary_little_endian 1.0\nelement\nproperty float x\nend_header\n0000",
        MESH + b"end_header\n" + bytes(12),
        MESH + b"element face 1\nproperty list uchar int vertex_indices\nend_header\n" + bytes(25),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.ply"):
        ply.read(path, np.eye(4))


def test_properties_that_are_not_floats_are_refused(tmp_path: Path) -> None:
    """A byte among the floats would shift every value after it."""
    path = tmp_path / "a.ply"
    ply.write(path, gaussians(), np.eye(4))
    path.write_bytes(path.read_bytes().replace(b"property float nx", b"property uchar nx"))
    with pytest.raises(UserError, match="float properties only"):
        ply.read(path, np.eye(4))
