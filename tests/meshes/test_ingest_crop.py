"""Only the part of an image that the object can cover is rendered, without changing a single bit."""

import json
import subprocess

import numpy as np
import pytest
from support.meshes import CAMERA, axes
from support.paths import ROOT, TESTS

from z1g.geometry.camera import INPUT_VIEWS, to_blender
from z1g.meshes.executable import SCRIPT

pytestmark = pytest.mark.blender
DRIVER = TESTS / "support" / "blender_crop.py"
SUN = {"strength": 2.0, "elevation_deg": 40.0, "azimuth_deg": 35.0}
SETTINGS = {
    "resolution": 43,  # divides inexactly in single precision
    "samples": 2,
    "engine": "cycles",
    "device": "cpu",
    "threads": 1,
    "fov_y_deg": 49.1,
    "lighting": {"strength": 0.5, "panorama": None, "suns": [SUN]},
    "depth_views": list(INPUT_VIEWS),
    "normals": True,
    "memory_mb": 4000,
    "cores": [],
}
PLAIN, REACHING_OUT = ("axes.obj", "chair2.obj"), ("hair.blend", "curve.blend", "displaced.blend")


@pytest.fixture(scope="module")
def drawn(blender_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """For every file the images as ingest renders them and rendered in full."""
    folder = tmp_path_factory.mktemp("crop")
    (folder / "settings.json").write_text(json.dumps(SETTINGS))
    (folder / "cameras.json").write_text(json.dumps(to_blender(CAMERA.poses(3)).tolist()))
    meshes = [str(axes(folder)), str(ROOT / "workflow/objects/chair2/chair2.obj")]
    words = [str(DRIVER) if word == str(SCRIPT) else word for word in blender_command]
    split = [] if len(blender_command) == 2 else ["--"]
    call = [*words, *split, str(SCRIPT.parent), str(folder), *meshes]
    done = subprocess.run(call, timeout=200, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return {file.name.removesuffix(".npz"): dict(np.load(file)) for file in folder.glob("*.npz")}


@pytest.mark.parametrize("name", [*PLAIN, *REACHING_OUT])
def test_cropping_leaves_out_nothing_visible(drawn: dict[str, dict[str, np.ndarray]], name: str) -> None:
    for part in ("rgba", "depth", "normals"):
        cropped, whole = drawn[name][part]
        np.testing.assert_array_equal(cropped, whole, err_msg=part)
        assert whole.any()


@pytest.mark.parametrize("name", PLAIN)
def test_pixels_around_the_object_are_not_rendered(drawn: dict[str, dict[str, np.ndarray]], name: str) -> None:
    assert drawn[name]["share"] < 0.7


@pytest.mark.parametrize("name", ["hair.blend", "displaced.blend"])
def test_the_whole_image_is_rendered_if_vertices_do_not_bound_the_object(
    drawn: dict[str, dict[str, np.ndarray]], name: str
) -> None:
    assert drawn[name]["share"] == 1
