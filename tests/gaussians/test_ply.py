"""Splats as 3DGS `.ply` files."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
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
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "does not begin with ply"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n", "lacks y, z, f_dc_0"),
        (b"ply\nformat binary_big_endian 1.0\nelement vertex 1\nproperty float x\nend_header\n0000", "lacks y, z"),
        (b"ply\nformat ascii 2.0\nelement vertex 1\nproperty float x\nend_header\n0\n", "its format is ascii 2.0"),
        (b"ply\nelement vertex 1\nproperty float x\nend_header\n0\n", "no format"),
        (b"ply\nformat ascii 1.0\nelement vertex many\nproperty float x\nend_header\n0000", "a number of rows"),
        (b"ply\nformat ascii 1.0\nelement\nproperty float x\nend_header\n0000", "a number of rows"),
        (b"ply\nformat ascii 1.0\nproperty float x\nend_header\n0000", "is not a property"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty real x\nend_header\n0\n", "'property real x' is not"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float x\nend_header\n0 0\n", "twice"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty list uchar int x\nend_header\n1 0\n", "has lists"),
        (b"ply\nformat ascii 1.0\nelement face 1\nproperty float x\nend_header\n0\n", "no element vertex"),
        (b"ply\nformat ascii 1.0\nfurther words\nend_header\n", "its header has 'further'"),
        (b"ply\nformat ascii 1.0\n" + b"comment x\n" * 10_000 + b"end_header\n", "header does not end"),
        (b"ply\nformat ascii 1.0\nelement vertex 1", "header does not end"),
        (MESH.replace(b"vertex 1", b"vertex 999999999999") + b"end_header\n" + bytes(12), "more than 10000000"),
        (MESH.replace(b"vertex 1", b"vertex 9999999") + b"end_header\n" + bytes(12), "is truncated"),
        (MESH + b"end_header\n" + bytes(13), "it has 1 byte more than its header says"),
        (MESH + b"end_header\n" + bytes(12), "lacks f_dc_0"),
        (MESH + b"element face 1\nproperty list uchar int vertex_indices\nend_header\n" + bytes(25), "lacks f_dc_0"),
        (b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nend_header\n0\n", "is truncated|too few"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n1\n", "more rows"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0 1\n", "rows of 2 numbers"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\nnothing\n", "not a usable"),
    ],
)
def test_files_of_other_formats_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.ply: .*({words})"):
        ply.read(path, np.eye(4))


def test_a_property_of_another_size_is_noticed(tmp_path: Path) -> None:
    """A byte among the floats would shift every value after it."""
    path = tmp_path / "a.ply"
    ply.write(path, gaussians(), np.eye(4))
    path.write_bytes(path.read_bytes().replace(b"property float nx", b"property uchar nx"))
    with pytest.raises(UserError, match="more than its header says"):
        ply.read(path, np.eye(4))


# Any legal file, written by another package


def table(x: torch.Tensor, kinds: dict[str, str], harmonics: float = 0.0) -> np.ndarray:
    """What 3DGS's vertices say about Gaussians [N,14], with types by name, "f4" for others."""
    ours = x.double().numpy()
    columns = {"x": ours[:, 0], "y": -ours[:, 1], "z": -ours[:, 2]}
    columns |= {f"f_dc_{i}": (ours[:, 11 + i] - 0.5) / SH_C0 for i in range(3)}
    columns |= {f"f_rest_{i}": np.full(len(x), harmonics) for i in range(9)}
    columns |= {"opacity": np.log(ours[:, 3] / (1 - ours[:, 3])), "age": np.arange(len(x)) % 100}
    columns |= {f"scale_{i}": np.log(ours[:, 4 + i]) for i in range(3)}
    # A half turn about x from the left.
    w, a, b, c = ours[:, 7:11].T
    columns |= {"rot_0": -a, "rot_1": w, "rot_2": -c, "rot_3": b}
    rows = np.zeros(len(x), dtype=[(name, kinds.get(name, "f4")) for name in columns])
    for name, values in columns.items():
        rows[name] = values
    return rows


FACES = np.array([([0, 1, 2], 7), ([2, 1, 0, 3], 8)], dtype=[("vertex_indices", "O"), ("mark", "i4")])
SPELLINGS = {b"float": b"float32", b"double": b"float64", b"uchar": b"uint8", b"int": b"int32", b"ushort": b"uint16"}


@pytest.mark.parametrize("place", ["alone", "first", "last"])
@pytest.mark.parametrize("form", ["ascii", "<", ">"])
@pytest.mark.parametrize("number", ["f4", "f8"])
@pytest.mark.parametrize("header", ["plain", "numbered", "crlf"])
def test_any_legal_file_is_read(tmp_path: Path, form: str, place: str, number: str, header: str) -> None:
    """Against plyfile's writer; `numbered` are types like float32, `crlf` are headers with carriage returns."""
    x = gaussians(7)
    kinds = dict.fromkeys(("x", "y", "opacity", "rot_0", "rot_1", "rot_2", "rot_3"), number)
    vertices = PlyElement.describe(table(x, {**kinds, "age": "u1"}), "vertex")
    faces = PlyElement.describe(FACES, "face", len_types={"vertex_indices": "u1"}, val_types={"vertex_indices": "u2"})
    elements = {"alone": [vertices], "first": [vertices, faces], "last": [faces, vertices]}[place]
    order = "=" if form == "ascii" else form
    path = tmp_path / "a.ply"
    PlyData(elements, text=form == "ascii", byte_order=order, comments=["by plyfile"], obj_info=["x 1"]).write(
        str(path)
    )
    head, _, body = path.read_bytes().partition(b"end_header\n")
    if header == "numbered":
        for short, long in SPELLINGS.items():
            head = re.sub(rb"(property (?:list )?(?:\w+ )?)" + short + rb" ", rb"\g<1>" + long + rb" ", head)
    head += b"end_header\n"
    if header == "crlf":
        head = head.replace(b"\n", b"\r\n")
        body = body.replace(b"\n", b"\r\n") if form == "ascii" else body
    path.write_bytes(head + body)
    back = ply.read(path, np.eye(4))
    back[:, 7:11] *= torch.sign((back[:, 7:11] * x[:, 7:11]).sum(dim=1, keepdim=True))
    torch.testing.assert_close(back, x, atol=1e-5, rtol=1e-4)


def test_double_precision_is_not_lost(tmp_path: Path) -> None:
    x = gaussians(3)
    rows = table(x, {"x": "f8"})
    rows["x"] = [1 / 3, 1e-30, 1e30]
    for text in (False, True):
        PlyData([PlyElement.describe(rows, "vertex")], text=text).write(str(tmp_path / "a.ply"))
        assert ply.read(tmp_path / "a.ply", np.eye(4))[:, 0].tolist() == torch.tensor([1 / 3, 1e-30, 1e30]).tolist()


def test_dropped_harmonics_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for harmonics, times in ((0.0, 0), (0.5, 1)):
        caplog.clear()
        vertices = PlyElement.describe(table(gaussians(5), {}, harmonics), "vertex")
        PlyData([vertices]).write(str(tmp_path / "a.ply"))
        ply.read(tmp_path / "a.ply", np.eye(4))
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == times
        assert all("a.ply: 9 coefficients of spherical harmonics above degree 0 are dropped" in line for line in said)


@pytest.mark.parametrize("form", ["<", ">", "ascii"])
def test_cut_files_of_every_form_are_refused(tmp_path: Path, form: str) -> None:
    faces = PlyElement.describe(FACES, "face", len_types={"vertex_indices": "u1"}, val_types={"vertex_indices": "u2"})
    vertices = PlyElement.describe(table(gaussians(4), {}), "vertex")
    order = "=" if form == "ascii" else form
    PlyData([faces, vertices], text=form == "ascii", byte_order=order).write(str(tmp_path / "a.ply"))
    content = (tmp_path / "a.ply").read_bytes()
    start = content.index(b"end_header\n") + len(b"end_header\n")
    for end in (start, start + 1, start + 7, start + (len(content) - start) // 2, len(content) - 12):
        (tmp_path / "a.ply").write_bytes(content[:end])
        with pytest.raises(UserError, match=r"a\.ply: not a usable"):
            ply.read(tmp_path / "a.ply", np.eye(4))
