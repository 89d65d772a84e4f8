"""Our own splats and meshes, put into the frame of each system by its authors' conventions, give our own figures again.

The way into a frame is computed here from the cameras and the last steps that each system's code has, in numpy and
scipy, not with the presets.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support.peer_objects import World, world
from torch import Tensor

from z1g.config.peers import PeerOptions
from z1g.gaussians import files
from z1g.geometry.camera import orbit_c2w
from z1g.geometry.frames import FRAMES, Condition, Frame, to_world
from z1g.peers.evaluate import Given, evaluate
from z1g.report.peers import read_peer
from z1g.stages.measuring import Measure, render_pair

Array = np.ndarray


def looking_at_origin(position: Array, up: Array) -> Array:
    """Axes [3,3] of a camera, OpenGL: columns right, up, back."""
    back = position / np.linalg.norm(position)
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back], axis=1)


Y_UP, Z_UP = np.array([0.0, 1, 0]), np.array([0.0, 0, 1])
AXIS = {"x": np.array([1.0, 0, 0]), "z": np.array([0.0, 0, 1])}


def turned(degrees: float, axis: str) -> Array:
    """Rotation of trimesh.transformations.rotation_matrix."""
    return Rotation.from_euler(axis, degrees, degrees=True).as_matrix()


# name: (condition camera's direction and up, its distance and field of view, leans, last step of the file's writer)
GRADIO = turned(90, "y") @ turned(-90, "x")
SYSTEMS: dict[str, tuple[Array, Array, float, float, bool, Array]] = {
    "lgm": (AXIS["z"], Y_UP, 1.5, 49.1, True, np.eye(3)),
    "grm": (np.array([math.cos(math.radians(225)), math.sin(math.radians(225)), 0]), Z_UP, 2.7, 50.0, False, np.eye(3)),
    "diffsplat": (AXIS["z"], Y_UP, 1.4, math.degrees(2 * math.atan(512 / 1422.222)), False, np.eye(3)),
    "instantmesh": (AXIS["x"], Z_UP, 4.0, 30.0, False, np.diag([1.0, 1, -1])),
    "instantmesh_texmap": (AXIS["x"], Z_UP, 4.0, 30.0, False, np.eye(3)),
    "instantmesh_app": (AXIS["x"], Z_UP, 4.0, 30.0, False, np.diag([-1.0, 1, -1]) @ np.eye(3)[[1, 2, 0]]),
    "triposr": (AXIS["x"], Z_UP, 1.9, 40.0, False, np.eye(3)),
    "sf3d": (AXIS["x"], Z_UP, 1.6, 40.0, True, GRADIO),
    "spar3d": (AXIS["x"], Z_UP, 2.2, math.degrees(0.591627), True, GRADIO),
    "zero123plus": (AXIS["x"], Z_UP, 4.0, 30.0, False, np.eye(3)),
}


def into_frame(name: str, c2w: Array, fov_y_deg: float, longest: float, mesh: bool) -> Array:
    """Linear map [3,3] from the y-up world to a system's file, for an object with this condition camera."""
    # Azimuth 0, where these have the condition.
    front = Rotation.from_euler("y", -math.atan2(c2w[0, 3], c2w[2, 3])).as_matrix()
    if name == "trellis":
        # A z-up world in which glTF's axes are (x, -z, y), and then the writers' own turns; the cube has side 1.
        z_up = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
        last = z_up.T if mesh else np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
        return last @ z_up @ front / longest
    if name in ("z1g", "auto"):
        return front if mesh else np.diag([1.0, -1, -1]) @ front
    direction, up, radius, fov, leans, last = SYSTEMS[name]
    position = c2w[:3, 3] if leans else c2w[:3, 3] * [1, 0, 1]
    true = looking_at_origin(position, Y_UP)
    theirs = looking_at_origin(direction, up)
    visible = np.linalg.norm(c2w[:3, 3]) * math.tan(math.radians(fov_y_deg / 2))
    factor = radius * math.tan(math.radians(fov / 2)) / visible
    return factor * last @ theirs @ true.T


@given(
    name=st.sampled_from([name for name in FRAMES if name != "auto"]), azimuth=st.floats(0, 360),
    elevation=st.floats(-60, 80), radius=st.floats(1, 4), fov=st.floats(20, 70), longest=st.floats(0.3, 1),
    mesh=st.booleans(),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_presets_undo_the_conventions_of_their_authors(
    name: str, azimuth: float, elevation: float, radius: float, fov: float, longest: float, mesh: bool
) -> None:
    c2w = orbit_c2w(elevation, azimuth, radius)
    back = to_world(FRAMES[name], Condition.of(c2w, fov, longest), mesh)  # type: ignore[index]
    np.testing.assert_allclose(back[:3, :3] @ into_frame(name, c2w, fov, longest, mesh), np.eye(3), atol=1e-9)
    np.testing.assert_array_equal(back[:3, 3], 0)


def test_each_field_that_is_set_has_a_source() -> None:
    for name, frame in FRAMES.items():
        needed = {"axes"}
        needed |= {"radius", "fov_y_deg"} if frame.radius is not None else set()
        needed |= {"color"} if frame.color != "harmonics" else set()
        needed |= {"tilted"} if frame.tilted else set()
        needed |= {"size"} if frame.size == "box" else set()
        assert needed <= frame.sources.keys(), name
        assert (frame.radius is None) == (frame.fov_y_deg is None) == (frame.size != "camera"), name
        assert not frame.registers or frame.unknown, f"{name}: why does it need a registration?"


def test_a_frame_without_a_camera_keeps_the_unit() -> None:
    assert Frame(((1, 0, 0), (0, 1, 0), (0, 0, 1)), "camera", {}).scale(1.5, 49.1, 1.0) == 1.0


def written(path: Path, x: Tensor, linear: Array, sigmoid: bool) -> None:
    """A `.ply` of Gaussians [N,14] after a linear map, written as those systems write it: float32, without normals."""
    array = x.double().numpy()
    factor = abs(np.linalg.det(linear)) ** (1 / 3)
    turn = linear / factor
    rotation = Rotation.from_quat(array[:, [8, 9, 10, 7]]).as_matrix()
    # A mirrored ellipsoid has mirrored axes; another sign of the third axis makes them a rotation again.
    axes = turn @ rotation @ np.diag([1.0, 1.0, np.sign(np.linalg.det(turn))])
    quaternion = Rotation.from_matrix(axes).as_quat()[:, [3, 0, 1, 2]]
    rgb = np.clip(array[:, 11:14], 1e-4, 1 - 1e-4)
    color = np.log(rgb / (1 - rgb)) if sigmoid else (array[:, 11:14] - 0.5) / 0.28209479177387814
    opacity = np.log(array[:, 3:4] / (1 - array[:, 3:4]))
    table = np.concatenate(
        [array[:, :3] @ linear.T, color, opacity, np.log(factor * array[:, 4:7]), quaternion], axis=1
    )
    names = ["x", "y", "z", *(f"f_dc_{i}" for i in range(3)), "opacity"]
    names += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(x)}\n"
    lines = "".join(f"property float {name}\n" for name in names) + "end_header\n"
    path.write_bytes((head + lines).encode() + table.astype("<f4").tobytes())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def own_psnr(made: World) -> dict[str, float]:
    """PSNR of our splats by object, measured as the stage `metrics` does."""
    given = Given.of(made.results, "micro")
    measure, values = Measure(given.folder.config.metrics.metrics), {}
    camera = given.trained.config.camera
    for name, x in made.splats.items():
        truth = given.truth(name)
        frame = truth.scene.c2w[0].double() @ torch.linalg.inv(torch.from_numpy(truth.item.c2w[0]))
        seen = transformed_rigidly(x, frame.numpy())
        images = seen.T.reshape(14, -1)
        side = math.ceil(math.sqrt(images.shape[1] / 6))
        padded = torch.zeros(14, 6 * side * side)
        padded[7] = 1
        padded[:, : images.shape[1]] = images
        splats = padded.unflatten(1, (6, side, side)).transpose(0, 1).contiguous()
        psnr = measure.views(render_pair(given.trained.config, truth.scene, splats, list(camera.test_ids)))["psnr"]
        values[name] = float(np.mean([x for x in psnr if x is not None]))
    return values


def transformed_rigidly(x: Tensor, matrix: Array) -> Tensor:
    """Gaussians [N,14] after a rigid map [4,4], by scipy."""
    array = x.double().numpy().copy()
    array[:, :3] = array[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    turned_axes = Rotation.from_matrix(matrix[:3, :3]) * Rotation.from_quat(array[:, [8, 9, 10, 7]])
    array[:, 7:11] = turned_axes.as_quat()[:, [3, 0, 1, 2]]
    return torch.from_numpy(array).float()


def put(made: World, folder: Path, name: str, write: Callable[[Path, Tensor, Array], None]) -> Path:
    """Our splats in a system's frame, one file an object."""
    folder.mkdir()
    given = Given.of(made.results, "micro")
    for object_id, x in made.splats.items():
        item = given.truth(object_id).item
        i = int(object_id.removeprefix("object").partition("-")[0])
        corners = np.array([[i, 0, 0], [0, 1, 0], [0, 0, 1.0]])
        middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
        longest = np.ptp(corners, axis=0).max() * 0.5 / np.linalg.norm(corners - middle, axis=1).max()
        write(folder / f"{object_id}.ply", x, into_frame(name, item.c2w[0], item.fov_y_deg, longest, False))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FRAMES if name != "auto"])
def test_our_own_splats_in_each_frame_give_our_own_figures(
    made: World, own_psnr: dict[str, float], tmp_path: Path, name: str
) -> None:
    folder = put(made, tmp_path / "out", name, lambda path, x, linear: written(path, x, linear, name == "grm"))
    options = PeerOptions(outputs=str(folder), frame=name, registered=False)  # type: ignore[arg-type]
    record = evaluate(made.results, f"as-{name}", options, "micro")
    assert record["problems"] == {}
    measured = read_peer(made.results / "peers" / f"as-{name}").measured
    values = {k: v for split in ("test", "train") for k, v in measured.object_values("psnr", split, "peer").items()}
    assert values.keys() == own_psnr.keys()
    for object_id, value in values.items():
        assert value == pytest.approx(own_psnr[object_id], abs=0.02), object_id


@pytest.mark.parametrize(("ending", "tolerance"), [(".spz", 0.1), (".splat", 0.1)])
def test_other_formats_give_them_up_to_their_own_rounding(
    made: World, own_psnr: dict[str, float], tmp_path: Path, ending: str, tolerance: float
) -> None:
    """.spz keeps colors to 1/140 of their range, .splat rotations to 1/128: see their modules."""
    for object_id, x in made.splats.items():
        files.write(tmp_path / f"{object_id}{ending}", x)
    evaluate(made.results, f"by{ending}", PeerOptions(outputs=str(tmp_path), frame="z1g"), "micro")
    measured = read_peer(made.results / "peers" / f"by{ending}").measured
    for object_id, value in measured.object_values("psnr", "train", "peer").items():
        assert value == pytest.approx(own_psnr[object_id], abs=tolerance)


@pytest.mark.slow
def test_auto_finds_scale_turn_and_offset(made: World, own_psnr: dict[str, float], tmp_path: Path) -> None:
    turn, scale, offset = 140.0, 7.3, np.array([3.0, -2.0, 5.0])
    for object_id, x in made.splats.items():
        moved = transformed_rigidly(x, rigid(turn))
        moved[:, :3] = scale * moved[:, :3] + torch.from_numpy(offset).float()
        moved[:, 4:7] *= scale
        files.write(tmp_path / f"{object_id}.ply", moved)
    record = evaluate(made.results, "moved", PeerOptions(outputs=str(tmp_path), frame="auto"), "micro")
    assert record["problems"] == {}
    assert record["registered"] is True
    measured = read_peer(made.results / "peers" / "moved")
    assert measured.label == "peer: moved (registered)"
    for found in record["registrations"].values():
        # The splats are noisy, so that another place can fit the silhouettes slightly better than the true one.
        assert found["scale"] == pytest.approx(1 / scale, rel=0.04)
        assert (found["turn_deg"] + turn + 180) % 360 - 180 == pytest.approx(0, abs=2)
        assert found["iou"] > 0.95 > found["iou_before"]
        back = found["scale"] * Rotation.from_euler("y", found["turn_deg"], degrees=True).as_matrix() @ offset
        np.testing.assert_allclose(back + found["offset"], 0, atol=0.03)
    for object_id, value in measured.measured.object_values("psnr", "train", "peer").items():
        assert value > own_psnr[object_id] - 0.3


def rigid(turn_deg: float) -> Array:
    """Matrix [4,4] of a turn about the upright axis."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("y", turn_deg, degrees=True).as_matrix()
    return matrix
