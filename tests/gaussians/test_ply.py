"""Splats as 3DGS `.ply` files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData
from support.gaussians import covariance, gaussians, rotation_of

from z1g.core.errors import UserError
from z1g.gaussians import ply
from z1g.geometry import camera

SH_C0 = 0.28209479177387814


def rigid(seed: int) -> np.ndarray:
    matrix = camera.view_frame(camera.CameraOptions().poses(seed), 1.5) @ camera.orbit_c2w(-40, 100 + seed, 0.7)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    return matrix


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
    # The y-down world of COLMAP: rotated by 180 degrees about x.
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
def test_rigid_transform_rotates_the_covariance(seed: int) -> None:
    x, matrix = gaussians(seed=seed).double(), rigid(seed)
    x[:, 7:11] = torch.nn.functional.normalize(x[:, 7:11], dim=1)
    moved = ply.transform(x, matrix)
    turn = matrix[:3, :3]
    np.testing.assert_allclose(covariance(moved), turn @ covariance(x) @ turn.T, atol=1e-12)
    np.testing.assert_allclose(moved[:, :3].numpy(), x[:, :3].numpy() @ turn.T + matrix[:3, 3], atol=1e-12)
    torch.testing.assert_close(moved[:, [3, 4, 5, 6, 11, 12, 13]], x[:, [3, 4, 5, 6, 11, 12, 13]])


def test_files_of_other_tools(tmp_path: Path) -> None:
    """Higher harmonics, another order of properties and missing normals are supported."""
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
def test_files_of_other_formats_are_refused(tmp_path: Path, content: bytes) -> None:
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
