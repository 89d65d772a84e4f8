"""File formats of Gaussians: exact layouts, round trips within a format's precision, hostile input."""

import contextlib
import gzip
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plyfile import PlyData
from support.gaussians import covariance, gaussians, rotation_of

from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.gaussians import files as splat_files
from z1g.gaussians import ply
from z1g.gaussians.channels import CHANNELS

SH_C0 = 0.28209479177387814
HALF_TURN = np.diag([1.0, -1.0, -1.0])
TOLERANCES = {
    ".ply": {"position": 1e-6, "opacity": 1e-6, "scale": 1e-6, "rotation": 1e-6, "rgb": 1e-6},
    ".splat": {"position": 1e-6, "opacity": 0.5 / 255, "scale": 1e-6, "rotation": 0.01, "rgb": 0.5 / 255},
    ".spz": {"position": 2**-17, "opacity": 0.5 / 255, "scale": 1 / 32, "rotation": 0.003, "rgb": 0.0037},
}
"""Largest errors: half of the quantization step of each format; .spz's scale is relative, as it stores logarithms."""


def matched(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Rows of `actual` in the order of `expected`, by position, with the signs of its quaternions."""
    nearest = torch.cdist(expected[:, :3].double(), actual[:, :3].double()).argmin(dim=1)
    assert len(set(nearest.tolist())) == len(expected)
    rows = actual[nearest].clone()
    turn = CHANNELS["rotation"]
    rows[:, turn] *= torch.sign((rows[:, turn] * expected[:, turn]).sum(dim=1, keepdim=True))
    return rows


@pytest.mark.parametrize("ending", TOLERANCES)
@given(n=st.integers(1, 40), seed=st.integers(0, 99))
def test_round_trips(tmp_path_factory: pytest.TempPathFactory, ending: str, n: int, seed: int) -> None:
    path = tmp_path_factory.mktemp("files") / f"a{ending}"
    x = gaussians(n, seed)
    splat_files.write(path, x)
    back = matched(splat_files.read(path), x)
    for name, tolerance in TOLERANCES[ending].items():
        values, expected = back[:, CHANNELS[name]], x[:, CHANNELS[name]]
        if name == "scale":
            values, expected = values.log(), expected.log()
        assert float((values - expected).abs().max()) <= tolerance + 1e-5, name


@pytest.mark.parametrize("seed", range(5))
def test_a_ply_that_is_written_again_has_the_same_quaternions(tmp_path: Path, seed: int) -> None:
    """To the bit, and as in memory: q and -q are one rotation, but files are compared."""
    x = gaussians(300, seed)
    unit = np.random.default_rng(seed).normal(size=(300, 4))
    x[:, CHANNELS["rotation"]] = torch.from_numpy(unit / np.linalg.norm(unit, axis=1, keepdims=True)).float()
    x[:4, CHANNELS["rotation"]] = torch.eye(4)
    splat_files.write(tmp_path / "a.ply", x)
    back = splat_files.read(tmp_path / "a.ply")
    splat_files.write(tmp_path / "b.ply", back)
    assert torch.equal(back[:, CHANNELS["rotation"]], x[:, CHANNELS["rotation"]])
    first, second = (PlyData.read(tmp_path / name)["vertex"] for name in ("a.ply", "b.ply"))
    for name in (f"rot_{i}" for i in range(4)):
        assert first[name].tobytes() == second[name].tobytes()


def test_a_splat_that_is_written_again_has_the_same_quaternions(tmp_path: Path) -> None:
    splat_files.write(tmp_path / "a.splat", gaussians(50))
    splat_files.write(tmp_path / "b.splat", splat_files.read(tmp_path / "a.splat"))
    first, second = (np.fromfile(tmp_path / name, np.uint8).reshape(-1, 32)[:, 28:] for name in ("a.splat", "b.splat"))
    # Bytes are a 128th apart, to which lengths are rounded.
    assert np.abs(first.astype(int) - second).max() <= 1


def test_splat_is_32_bytes_a_gaussian_with_the_most_important_first(tmp_path: Path) -> None:
    x = gaussians(30)
    splat_files.write(tmp_path / "a.splat", x)
    content = (tmp_path / "a.splat").read_bytes()
    assert len(content) == 32 * len(x)
    weight = (x[:, 4:7].prod(dim=1) * x[:, 3]).double()
    first = int(weight.argmax())
    px, py, pz, sx, sy, sz, *small = struct.unpack_from("<6f8B", content)
    np.testing.assert_allclose([px, -py, -pz], x[first, :3], rtol=1e-6)  # files are y down
    np.testing.assert_allclose([sx, sy, sz], x[first, 4:7], rtol=1e-6)
    np.testing.assert_allclose(np.array(small[:4]) / 255, x[first, [11, 12, 13, 3]], atol=0.5 / 255 + 1e-6)
    stored = (np.array([small[4:]]) - 128) / 128
    expected = HALF_TURN @ rotation_of(x[first : first + 1, 7:11].double().numpy())[0]
    np.testing.assert_allclose(rotation_of(stored / np.linalg.norm(stored))[0], expected, atol=0.03)


def read_spz(content: bytes) -> dict[str, np.ndarray]:
    """An independent reader, value by value, written from the format's description."""
    data = gzip.decompress(content)
    magic, version, n, degree, bits, _, _ = struct.unpack_from("<IIIBBBB", data)
    assert (magic, version, degree) == (0x5053474E, 3, 0)
    assert len(data) == 16 + n * (9 + 1 + 3 + 3 + 4)
    at, attributes = 16, {name: [] for name in ("position", "opacity", "f_dc", "log_scale", "rotation")}
    for i in range(n):
        numbers = [
            int.from_bytes(data[at + 9 * i + 3 * k : at + 9 * i + 3 * k + 3], "little", signed=True) for k in range(3)
        ]
        attributes["position"].append([number / 2**bits for number in numbers])
    at += 9 * n
    attributes["opacity"] = [data[at + i] / 255 for i in range(n)]
    at += n
    attributes["f_dc"] = [[(data[at + 3 * i + k] / 255 - 0.5) / 0.15 for k in range(3)] for i in range(n)]
    at += 3 * n
    attributes["log_scale"] = [[data[at + 3 * i + k] / 16 - 10 for k in range(3)] for i in range(n)]
    at += 3 * n
    for i in range(n):
        (word,) = struct.unpack_from("<I", data, at + 4 * i)
        largest, rest, q = word >> 30, word & (2**30 - 1), [0.0] * 4
        for place, k in enumerate([k for k in range(4) if k != largest]):
            part = rest >> (10 * (2 - place)) & 1023
            q[k] = (-1 if part & 512 else 1) * (part & 511) / 511 * 0.5**0.5
        q[largest] = (1 - sum(value**2 for value in q)) ** 0.5
        attributes["rotation"].append(q)
    return {name: np.array(values) for name, values in attributes.items()}


def test_spz_by_an_independent_reader(tmp_path: Path) -> None:
    x = gaussians(50, seed=3)
    splat_files.write(tmp_path / "a.spz", x)
    actual = read_spz((tmp_path / "a.spz").read_bytes())
    array = x.double().numpy()
    np.testing.assert_allclose(actual["position"], array[:, :3], atol=2**-17 + 1e-9)  # right, up, back: no rotation
    np.testing.assert_allclose(actual["opacity"], array[:, 3], atol=0.5 / 255 + 1e-9)
    np.testing.assert_allclose(0.5 + SH_C0 * actual["f_dc"], array[:, 11:14], atol=0.0038)
    np.testing.assert_allclose(actual["log_scale"], np.log(array[:, 4:7]), atol=1 / 32 + 1e-6)
    turn = rotation_of(np.roll(actual["rotation"], 1, axis=1))
    np.testing.assert_allclose(turn, rotation_of(array[:, 7:11]), atol=0.01)


def test_spz_of_version_2(tmp_path: Path) -> None:
    """A file of other tools: bytes for x, y, z of the quaternion, and harmonics, which are ignored."""
    q = np.array([0.5, -0.5, 0.5, 0.5])  # w first
    head = struct.pack("<IIIBBBB", 0x5053474E, 2, 1, 1, 12, 0, 0)
    position = b"".join(int(v * 4096).to_bytes(3, "little", signed=True) for v in (0.25, -1.5, 3.0))
    rest = bytes([204]) + bytes([255, 128, 0]) + bytes([112, 96, 160]) + bytes(round((v + 1) * 127.5) for v in q[1:])
    (tmp_path / "a.spz").write_bytes(gzip.compress(head + position + rest + bytes(9)))
    (row,) = splat_files.read(tmp_path / "a.spz").double().numpy()
    np.testing.assert_allclose(row[:3], [0.25, -1.5, 3.0])
    assert row[3] == pytest.approx(0.8)
    np.testing.assert_allclose(row[4:7], np.exp([-3.0, -4.0, 0.0]), rtol=1e-6)
    np.testing.assert_allclose(row[7:11], q, atol=0.01)
    assert row[11] == pytest.approx(0.5 + SH_C0 * 0.5 / 0.15, abs=1e-5)


def test_invisible_gaussians_are_omitted_except_in_ply(tmp_path: Path) -> None:
    x = gaussians(10)
    x[3:7, 3] = 0.003
    for ending, n in ((".ply", 10), (".splat", 6), (".spz", 6)):
        splat_files.write(tmp_path / f"a{ending}", x)
        assert len(splat_files.read(tmp_path / f"a{ending}")) == n
    with pytest.raises(UserError, match="not written: no Gaussian"):
        splat_files.write(tmp_path / "b.spz", x[3:7])
    assert not (tmp_path / "b.spz").exists()


def test_positions_that_spz_cannot_store_are_an_error_with_the_file_s_name(tmp_path: Path) -> None:
    x = gaussians(3)
    x[1, 0] = 1e6
    with pytest.raises(UserError, match=r"/b\.spz is not written: \.spz stores positions up to 128 units"):
        splat_files.write(tmp_path / "b.spz", x)


def test_quaternions_of_other_tools_need_not_have_length_1(tmp_path: Path) -> None:
    x = gaussians(3)
    x[0, 7:11] *= 7
    x[1, 7:11] = 0
    ply.write(tmp_path / "a.ply", x, np.eye(4))
    back = splat_files.read(tmp_path / "a.ply")
    torch.testing.assert_close(back[:, 7:11].norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("length", [1e-30, 1e30])
def test_quaternions_whose_squares_float32_does_not_hold_keep_their_rotation(tmp_path: Path, length: float) -> None:
    x = gaussians(4)
    expected = covariance(x)
    x[:, 7:11] *= length
    ply.write(tmp_path / "a.ply", x, np.eye(4))
    np.testing.assert_allclose(covariance(splat_files.read(tmp_path / "a.ply")), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("ending", TOLERANCES)
@pytest.mark.filterwarnings("error")
def test_a_zero_quaternion_is_written_as_the_identity(tmp_path: Path, ending: str) -> None:
    x = gaussians(4)
    x[2, 7:11] = 0
    splat_files.write(tmp_path / f"a{ending}", x)
    assert not x[2, 7:11].any(), "what is written stays as it is"
    x[2, 7:11] = torch.tensor([1.0, 0, 0, 0])
    np.testing.assert_allclose(matched(splat_files.read(tmp_path / f"a{ending}"), x)[2, 7:11], x[2, 7:11], atol=0.02)


@pytest.mark.parametrize("ending", TOLERANCES)
@pytest.mark.parametrize(("values", "message"), [((0, 1.0), "there are no Gaussians"), ((3, 1e39), "not finite")])
def test_what_could_not_be_read_again_is_not_written(
    tmp_path: Path, ending: str, values: tuple[int, float], message: str
) -> None:
    n, factor = values
    with pytest.raises(UserError, match=f"is not written: .*{message}"):
        splat_files.write(tmp_path / f"a{ending}", gaussians(n).double() * factor)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("ending", TOLERANCES)
@given(cut=st.floats(0, 0.999), seed=st.integers(0, 5))
def test_a_truncated_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, ending: str, cut: float, seed: int
) -> None:
    path = tmp_path_factory.mktemp("files") / f"a{ending}"
    splat_files.write(path, gaussians(9, seed))
    content = path.read_bytes()
    length = int(cut * len(content))
    path.write_bytes(content[:length])
    if ending == ".splat" and length and length % 32 == 0:
        return  # a whole number of Gaussians: the file does not store their number
    with pytest.raises(UserError, match=rf"a\{ending}"):
        splat_files.read(path)


@pytest.mark.slow
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_flipped_byte_never_raises_another_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    for ending in TOLERANCES:
        path = folder / f"a{ending}"
        splat_files.write(path, gaussians(9))
        content = bytearray(path.read_bytes())
        content[position % len(content)] = value
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            assert torch.isfinite(splat_files.read(path)).all()


SPZ = struct.Struct("<IIIBBBB")


def packed(content: bytes) -> bytes:
    """Without a time stamp, because xdist workers must collect the same parameters."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ply", b"", "does not begin with ply"),
        ("a.splat", b"", "no Gaussians"),
        ("a.splat", bytes(33), "not a whole number"),
        ("a.spz", b"", "does not begin"),
        ("a.spz", b"\x89PNG\r\n", "not a valid .spz"),
        ("a.spz", packed(b"hello"), "does not begin"),
        ("a.spz", packed(SPZ.pack(0x5053474E, 4, 1, 0, 12, 0, 0) + bytes(20)), "version 4"),
        ("a.spz", packed(SPZ.pack(0x5053474E, 3, 2**32 - 1, 0, 12, 0, 0)), "damaged"),
        ("a.spz", packed(SPZ.pack(0x5053474E, 3, 5_000_000, 0, 12, 0, 0) + bytes(99)), "truncated: 99"),
        ("a.spz", packed(SPZ.pack(0x5053474E, 3, 1, 9, 12, 0, 0) + bytes(20)), "damaged"),
        ("a.obj", b"v 0 0 0", "unknown extension"),
        ("a", b"", "unknown extension"),
    ],
)
def test_foreign_and_hostile_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        splat_files.read(tmp_path / name)


def test_a_decompression_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A stream of 64 MiB with one Gaussian in its header is decompressed up to that Gaussian only, and refused."""
    head = SPZ.pack(0x5053474E, 3, 1, 0, 12, 0, 0)
    (tmp_path / "a.spz").write_bytes(gzip.compress(head + bytes(2**26), 1))
    with pytest.raises(UserError, match=r"a\.spz is damaged: it has more bytes than those of 1 Gaussian"):
        splat_files.read(tmp_path / "a.spz")


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_spz_is_noticed_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    """gzip ends with a checksum."""
    path = tmp_path_factory.mktemp("files") / "a.spz"
    splat_files.write(path, gaussians(50))
    expected, content = splat_files.read(path), bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        assert torch.equal(splat_files.read(path), expected)


@pytest.fixture
def deadline() -> Iterator[None]:
    """Ends a test that hangs, by an exception after 20 seconds."""
    previous = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.usefixtures("deadline")
@pytest.mark.parametrize("ending", TOLERANCES)
@pytest.mark.parametrize("verb", ["mesh", "export", "view"])
def test_fifos_and_devices_are_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str, verb: str
) -> None:
    words = {"export": ["--out", str(tmp_path / "out.ply")], "view": ["--no-browser"]}.get(verb, [])
    os.mkfifo(tmp_path / f"fifo{ending}")
    # Not /dev/zero, which would fill the memory before the deadline.
    (tmp_path / f"device{ending}").symlink_to("/dev/null")
    for file in (tmp_path / f"fifo{ending}", tmp_path / f"device{ending}"):
        assert main([verb, str(file), *words]) == 2
        assert f"{file} cannot be read: not a regular file" in capsys.readouterr().err


def test_non_finite_numbers_are_refused(tmp_path: Path) -> None:
    x = gaussians(4)
    x[2, 0] = float("nan")
    ply.write(tmp_path / "a.ply", x, np.eye(4))
    with pytest.raises(UserError, match="1 of 4 Gaussians contain numbers that are not finite"):
        splat_files.read(tmp_path / "a.ply")


@pytest.mark.parametrize("ending", TOLERANCES)
@pytest.mark.parametrize(("channel", "attribute"), [(1, "position"), (3, "opacity"), (5, "scale"), (13, "rgb")])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_not_written(
    tmp_path: Path, ending: str, channel: int, attribute: str, value: float
) -> None:
    x = gaussians(4)
    x[2, channel] = value
    message = rf"a\{ending} is not written: 1 of 4 Gaussians contain .* not finite \({attribute}\)"
    with pytest.raises(UserError, match=message):
        splat_files.write(tmp_path / f"a{ending}", x)
    assert not any(tmp_path.iterdir())


def test_too_far_for_spz(tmp_path: Path) -> None:
    x = gaussians(4)
    x[0, 0] = 200
    with pytest.raises(UserError, match="up to 128 units"):
        splat_files.write(tmp_path / "a.spz", x)


def test_export_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.ply"
    splat_files.write(source, gaussians())
    assert main(["export", str(source), "--out", str(tmp_path / "new/a.spz")]) == 0
    assert main(["export", str(tmp_path / "new/a.spz"), "--out", str(tmp_path / "b.splat")]) == 0
    assert len(splat_files.read(tmp_path / "b.splat")) == 20
    assert main(["export", str(source), "--out", str(tmp_path / "a.stl")]) == 2
    said = capsys.readouterr().err
    assert "unknown extension" in said
    assert "a mesh of them is a .glb file" in said
    assert main(["export", str(tmp_path / "none.ply"), "--out", str(tmp_path / "a.spz")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.tmp"))
