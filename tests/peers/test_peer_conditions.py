"""`z1g conditions`: images, cameras and names; what it writes is what `z1g evaluate` takes."""

import csv
import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.peer_objects import RESOLUTION, World, world

from z1g.cli.main import main
from z1g.core.files import read_json
from z1g.gaussians import files
from z1g.peers.conditions import cut_out, on_background
from z1g.peers.evaluate import Given


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("world"), 3)


@pytest.fixture(scope="module")
def written(made: World) -> Path:
    out = made.results.parent / "conditions"
    assert main(["conditions", "--results", str(made.results), "--out", str(out), "--sizes", "20", "80"]) == 0
    return out


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_images_are_the_condition_views_on_each_background(made: World, written: Path) -> None:
    for name in made.splats:
        rgba = Given.of(made.results, "micro").truth(name).item.rgba[0]
        np.testing.assert_array_equal(pixels(written / "rgba" / f"{name}.png"), rgba)
        alpha = rgba[..., 3:] / 255.0
        for background, value in (("white", 255), ("gray", 127)):
            expected = rgba[..., :3] * alpha + (1 - alpha) * value
            seen = pixels(written / background / f"{name}.png")
            assert seen.shape == (RESOLUTION, RESOLUTION, 3)
            assert np.abs(seen - expected).max() <= 0.5 + 1e-9
        for size in (20, 80):
            assert pixels(written / f"rgba-{size}" / f"{name}.png").shape == (size, size, 4)
            assert pixels(written / f"gray-{size}" / f"{name}.png").shape == (size, size, 3)


def test_halving_an_image_keeps_light_and_coverage() -> None:
    draw = np.random.default_rng(0)
    image = np.zeros((32, 32, 4), np.uint8)
    image[8:24, 8:24] = draw.integers(0, 256, (16, 16, 4))
    alpha = image[..., 3:] / 255.0
    seen = image[..., :3] * alpha + (1 - alpha) * 255
    assert on_background(image, 1.0, 16).mean() == pytest.approx(seen.mean(), abs=1.0)
    small = cut_out(image, 16) / 255.0
    assert small[..., 3].mean() == pytest.approx(alpha.mean(), abs=0.005)
    assert cut_out(image, 32) is image


def test_transparent_pixels_do_not_bleed_into_edges() -> None:
    image = np.zeros((32, 32, 4), np.uint8)
    image[:, 15:] = [255, 0, 0, 255]  # red beside transparent black
    small = cut_out(image, 16)
    edge = small[small[..., 3] > 8]
    assert edge[:, 0].min() >= 254
    assert edge[:, 1:3].max() == 0


def test_cameras_and_names(made: World, written: Path) -> None:
    with (written / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["object"] for row in rows} == set(made.splats)
    cameras = read_json(written / "cameras.json")["objects"]
    camera = made.planned.ablations["micro"].ablation.experiment.camera
    entries = {entry.id: entry for entry in made.planned.ablations["micro"].manifest.objects}
    for row in rows:
        own = cameras[row["object"]]
        poses = camera.poses(entries[row["object"]].seed)
        np.testing.assert_allclose(own["condition"], poses[0])
        np.testing.assert_allclose(own["test"], poses[list(camera.test_ids)])
        assert own["elevation_deg"] == pytest.approx(math.degrees(math.asin(poses[0][1, 3] / camera.radius)), abs=1e-5)
        assert float(row["elevation_deg"]) == pytest.approx(own["elevation_deg"], abs=1e-3)
        assert (own["azimuth_deg"], own["distance"], own["fov_y_deg"]) == pytest.approx((0, 1.5, 49.1))
        assert row["content"] == entries[row["object"]].content
    text = (written / "README.md").read_text()
    for said in (f"{RESOLUTION} x {RESOLUTION}", "folders that end with -20", "field of view of 49.1", "--like micro"):
        assert said in text


def test_checksums_are_those_of_the_files(written: Path) -> None:
    sums = read_json(written / "checksums.json")
    files_there = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert files_there - {"checksums.json"} == sums.keys()
    for name, digest in sums.items():
        assert hashlib.sha256((written / name).read_bytes()).hexdigest() == digest


def test_the_list_is_what_evaluate_takes(made: World, written: Path, tmp_path: Path) -> None:
    for name, x in made.splats.items():
        files.write(tmp_path / f"{name}.spz", x)
    words = [
        "--outputs",
        str(tmp_path),
        "--frame",
        "z1g",
        "--objects",
        str(written / "objects.csv"),
        "--name",
        "listed",
    ]
    assert main(["evaluate", "--results", str(made.results), *words]) == 0
    assert read_json(made.results / "peers" / "listed" / "peer.json")["problems"] == {}


def test_mistakes(made: World, written: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["conditions", "--results", str(made.results), "--out"]
    assert main([*words, str(written)]) == 2
    assert "it exists; name a new folder" in capfd.readouterr().err
    assert main([*words, str(tmp_path / "new"), "--like", "nobody"]) == 2
    assert "no ablation 'nobody' was planned here; valid: " in capfd.readouterr().err
    (tmp_path / "list").write_text("nothing\n")
    assert main([*words, str(tmp_path / "new"), "--objects", str(tmp_path / "list")]) == 2
    assert "'nothing' is not an evaluated object of these results" in capfd.readouterr().err
    (tmp_path / "results").mkdir()
    assert main(["conditions", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "new")]) == 2
    assert "has no planned ablation" in capfd.readouterr().err
    assert not (tmp_path / "new").exists()
