"""Meshes of other systems are drawn where their frame puts them; unusable ones are refused with a reason."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.peer_objects import ARMS, World, world

from z1g.config.peers import PeerOptions
from z1g.geometry.camera import CameraOptions
from z1g.peers.evaluate import evaluate
from z1g.report.peers import read_peer

FACES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
SIZE = CameraOptions().radius * np.tan(np.radians(CameraOptions().fov_y_deg / 2))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("world"), 2)


def boxes() -> np.ndarray:
    """Corners [8·boxes,3] of the boxes that the true splats lie on."""
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    return np.concatenate([np.array(center) + signs * np.array(half) for center, half in ARMS])


def write_obj(path: Path, corners: np.ndarray, turned: bool = False) -> None:
    """The boxes as an .obj; `turned`: with the order of each face's corners reversed."""
    lines = [f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in corners]
    for first in range(0, len(corners), 8):
        for face in FACES:
            order = face[::-1] if turned else face
            lines.append("f " + " ".join(str(first + i + 1) for i in order))
    path.write_text("\n".join(lines) + "\n")


def figures(made: World, folder: Path, frame: str) -> dict[str, dict[str, float]]:
    record = evaluate(made.results, frame, PeerOptions(outputs=str(folder), frame=frame), "micro")  # type: ignore[arg-type]
    assert record["problems"] == {}
    assert set(record["kinds"].values()) == {"mesh"}
    measured = read_peer(made.results / "peers" / frame).measured
    names = ("alpha_iou", "depth_error")
    return {name: measured.object_values(name, "train", "peer") for name in names}


def test_boxes_cover_what_splats_on_them_cover_in_every_frame(made: World, tmp_path: Path) -> None:
    corners = boxes()
    z_up_front_x = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    z_up_front_x = Rotation.from_euler("z", 90, degrees=True).as_matrix() @ z_up_front_x
    theirs = {
        "z1g": (corners, False),
        "triposr": (corners @ z_up_front_x.T * 1.9 * np.tan(np.radians(20)) / SIZE, False),
        # run.py negates z, which mirrors, and reverses the faces.
        "instantmesh": (corners @ z_up_front_x.T * [1, 1, -1] * 4 * np.tan(np.radians(15)) / SIZE, True),
    }
    found = {}
    for frame, (moved, turned) in theirs.items():
        (tmp_path / frame).mkdir()
        for name in made.splats:
            write_obj(tmp_path / frame / f"{name}.obj", moved, turned)
        found[frame] = figures(made, tmp_path / frame, frame)
    for name, value in found["z1g"]["alpha_iou"].items():
        assert value > 0.7  # Gaussians reach beyond the boxes that they lie on
        assert found["z1g"]["depth_error"][name] < 0.06
        for other in ("triposr", "instantmesh"):
            assert found[other]["alpha_iou"][name] == pytest.approx(value, abs=0.005)
            assert found[other]["depth_error"][name] == pytest.approx(found["z1g"]["depth_error"][name], abs=1e-4)


def test_unusable_meshes_are_listed_with_reasons(made: World, tmp_path: Path) -> None:
    first, second = made.splats
    write_obj(tmp_path / f"{first}.obj", boxes())
    for content, why in (
        ("v 0 0 0\nv 1 0 0\nv 0 nan 0\nf 1 2 3\n", "not finite numbers"),
        ("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "none of the mesh's faces has an area"),
        ("v 0 0 0\n", "no faces"),
        ("mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "material file missing: gone.mtl"),
        ("", "the file is empty"),
    ):
        (tmp_path / f"{second}.obj").write_text(content)
        record = evaluate(made.results, "bad", PeerOptions(outputs=str(tmp_path), frame="z1g"), "micro")
        assert why in record["problems"][second], content
        assert list(record["truth"]) == [first]


def test_a_ply_is_what_its_elements_say(made: World, tmp_path: Path) -> None:
    first, second = made.splats
    write_obj(tmp_path / f"{first}.obj", boxes())
    (tmp_path / f"{second}.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
        "end_header\n0 0 0\n"
    )
    record = evaluate(made.results, "points", PeerOptions(outputs=str(tmp_path), frame="z1g"), "micro")
    assert record["problems"][second] == "it has neither Gaussians (no property opacity) nor faces"
