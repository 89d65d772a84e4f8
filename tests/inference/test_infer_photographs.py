"""`z1g infer photo.png --run …` with a trained micro model and real files."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from support.builders import ball_splats, fill, forget_checksums, plan, stage_path
from support.photographs import disc, saved

from z1g.cli.main import main
from z1g.gaussians import files as splat_files
from z1g.gaussians.channels import to_gaussians
from z1g.inference.batch import names, publish
from z1g.inference.method import ImageToSplats
from z1g.inference.models import infer_folder
from z1g.inference.photographs import condition, read
from z1g.plan.folder import StageFolder
from z1g.stages import autodecoder, codes, unet
from z1g.surface.build import MeshOptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("micro")
    planned = plan(root)
    fill(planned)
    for stage in (autodecoder, codes, unet):
        stage.run(StageFolder.open(stage_path(planned, stage.__name__.split(".")[-1])), threads=1)
    return root / "results"


@pytest.fixture(autouse=True)
def without_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splats are those of float32 on every CPU."""
    monkeypatch.setattr("z1g.inference.method.has_bf16_matrices", lambda: False)


def infer(results: Path, out: Path, *words: str) -> int:
    return main(["infer", *words, "--run", str(results / "ablations/micro"), "--out", str(out), "--size", "32"])


def test_a_photograph_becomes_splats_images_and_a_record(results: Path, tmp_path: Path) -> None:
    photograph = saved(tmp_path, disc(), "my chair.png")
    assert infer(results, tmp_path / "out", str(photograph)) == 0
    out = tmp_path / "out"
    record = json.loads((out / "my_chair.json").read_text())
    expected = [
        "my_chair.condition.png",
        "my_chair.json",
        "my_chair.ply",
        "my_chair.sheet.png",
        "my_chair.turntable.mp4",
    ]
    assert sorted(file.name for file in out.iterdir()) == expected
    assert sorted([*record["outputs"].values(), "my_chair.json"]) == expected
    assert record["stages"].keys() == {"ingest", "fit", "autodecoder", "codes", "unet", "infer"}
    assert record["seed"] == read(photograph).seed
    assert record["command"][0] == "z1g"
    assert Image.open(out / "my_chair.sheet.png").size == (64, 96)
    assert len(splat_files.read(out / "my_chair.ply")) == 6 * 8 * 8


def test_splats_are_the_generator_s_in_the_world(results: Path, tmp_path: Path) -> None:
    """The same codes computed directly. The photograph is taken from +z of the world."""
    photograph = saved(tmp_path, disc(), "a.png")
    assert infer(results, tmp_path, str(photograph), "--seed", "7") == 0
    stage = infer_folder(results / "ablations/micro")
    config = stage.upstream_folder("autodecoder").config
    _, splats = ImageToSplats.from_stage(stage)(condition(read(photograph), config.camera, 16)[None], [7])
    gaussians = to_gaussians(splats)[0]
    actual = splat_files.read(tmp_path / "a.ply")
    torch.testing.assert_close(actual[:, 3:7], gaussians[:, 3:7], atol=1e-4, rtol=1e-3)
    # Input view 1 has its camera at [0,0,r] in the view-1 frame, and at azimuth and elevation 30 degrees in the world.
    r = config.camera.radius
    eye = r * np.array([np.cos(np.pi / 6) * 0.5, 0.5, np.cos(np.pi / 6) ** 2])
    expected = np.linalg.norm(gaussians[:, :3].numpy() - [0, 0, r], axis=1)
    np.testing.assert_allclose(np.linalg.norm(actual[:, :3].numpy() - eye, axis=1), expected, atol=1e-4)


def test_the_turntable_video(results: Path, tmp_path: Path) -> None:
    import imageio_ffmpeg

    assert infer(results, tmp_path, str(saved(tmp_path, disc(), "a.png"))) == 0
    frames = imageio_ffmpeg.read_frames(str(tmp_path / "a.turntable.mp4"))
    metadata = next(frames)
    images = list(frames)
    assert metadata["size"] == (32, 32)
    assert len(images) == 48


def test_without_ffmpeg_the_turntable_is_a_webp(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("z1g.inference.batch.video_extension", lambda: ".webp")
    assert infer(results, tmp_path, str(saved(tmp_path, disc(), "a.png"))) == 0
    with Image.open(tmp_path / "a.turntable.webp") as film:
        assert (film.n_frames, film.size) == (48, (32, 32))


def test_one_bad_photograph_does_not_stop_the_others(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        saved(folder, disc(radius=10 + i), f"{i}.png")
    (folder / "1.png").write_text("nothing")
    saved(folder, Image.new("RGBA", (20, 20)), "clear.png")
    assert infer(results, tmp_path / "out", str(folder)) == 2
    errors = capsys.readouterr().err
    assert "2 of 4 photographs could not be used" in errors
    assert "1.png is not an image" in errors
    assert "clear.png: nothing is visible" in errors
    assert {file.name for file in (tmp_path / "out").glob("*.json")} == {"0.json", "2.json"}


def test_a_full_disk_is_said_with_the_file_that_was_asked_for(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not with the hidden folder of unfinished files; nothing is left of these."""
    monkeypatch.setattr("z1g.inference.batch.save_png", lambda pixels, file: Path("/dev/full").write_bytes(b"x"))
    out = tmp_path / "out"
    assert infer(results, out, str(saved(tmp_path, disc(), "a.png"))) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        f"z1g infer: error: {out}/a.condition.png: the disk is full; make room and run the same command again"
    )
    assert list(out.iterdir()) == []


def test_a_crop_of_nothing_stops_no_other(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Only of the ring, whose middle is empty, does a small crop show nothing."""
    caplog.set_level(logging.ERROR)
    ring = Image.new("RGBA", (64, 64))
    ImageDraw.Draw(ring).ellipse((4, 4, 60, 60), outline="red", width=4)
    files = [saved(tmp_path, image, name) for image, name in ((disc(), "a.png"), (ring, "b.png"), (disc(), "c.png"))]
    out = tmp_path / "out"
    assert infer(results, out, *map(str, files), "--zoom", "4") == 2
    errors = capsys.readouterr().err
    assert f"1 of 3 photographs could not be used:\n  {files[1]}: the crop shows nothing of the photograph" in errors
    assert {file.name for file in out.glob("*.json")} == {"a.json", "c.json"}
    assert infer(results, tmp_path / "none", str(files[1]), "--zoom", "4") == 2


@pytest.mark.slow
def test_the_same_photograph_gives_the_same_splats_beside_others(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        saved(folder, disc(radius=10 + i), f"{i}.png")
    assert infer(results, tmp_path / "all", str(folder)) == 0
    assert infer(results, tmp_path / "one", str(folder / "2.png")) == 0
    torch.testing.assert_close(
        splat_files.read(tmp_path / "all/2.ply"), splat_files.read(tmp_path / "one/2.ply"), atol=1e-5, rtol=1e-4
    )


def test_a_mesh_if_asked(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of an untrained model is not an object, so the splats of a ball replace it."""
    monkeypatch.setattr(ImageToSplats, "__call__", lambda self, images, seeds, **_: (None, ball_splats("a", 8)[None]))
    coarse = MeshOptions(views=12, view_size=64, resolution=32, faces=1000, texture=64)
    monkeypatch.setattr("z1g.inference.batch.MeshOptions", lambda: coarse)
    assert infer(results, tmp_path, str(saved(tmp_path, disc(), "a.png")), "--mesh") == 0
    mesh = trimesh.load(tmp_path / "a.glb", force="mesh")
    assert 100 < len(mesh.faces) <= 1000
    assert json.loads((tmp_path / "a.json").read_text())["outputs"]["mesh"] == "a.glb"


def test_splats_without_a_mesh_are_written_and_said(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of three photographs, one is a ball, one is too transparent for a surface, and one cannot be used."""
    faint = ball_splats("a", 8)
    faint[:, 3] = 0.01
    outputs = torch.stack([ball_splats("a", 8), faint])
    monkeypatch.setattr(ImageToSplats, "__call__", lambda self, images, seeds, **_: (None, outputs[: len(images)]))
    coarse = MeshOptions(views=12, view_size=64, resolution=32, faces=1000, texture=64)
    monkeypatch.setattr("z1g.inference.batch.MeshOptions", lambda: coarse)
    files = [str(saved(tmp_path, disc(radius=10 + i), f"{name}.png")) for i, name in enumerate("abc")]
    Path(files[2]).write_text("nothing")
    assert infer(results, tmp_path / "out", *files, "--mesh") == 2
    *_, first, unusable, second, reason = capsys.readouterr().err.splitlines()
    assert first == "z1g infer: error: 1 of 3 photographs could not be used:"
    assert "c.png is not an image" in unusable
    assert second == "1 of 3 photographs got splats, but no mesh:"
    assert reason.startswith("  b: no mesh: ")
    assert {file.name for file in (tmp_path / "out").glob("*.glb")} == {"a.glb"}
    assert whole(tmp_path / "out", "a")
    assert whole(tmp_path / "out", "b"), "complete without a mesh"
    assert len(splat_files.read(tmp_path / "out/b.ply")) == 6 * 8 * 8


def test_the_stage_verb_is_as_before(results: Path) -> None:
    folder = next((results / "infer").iterdir())
    assert main(["infer", str(folder), "--chunk", "0", "--gpus", "0"]) == 0
    assert list(folder.glob("chunk-00000/*.ply"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png", "--run", ".", "--chunk", "1"], "give photographs and --model or --run"),
        (["a.png", "--model", "m", "--chunk", "1"], "give photographs and --model or --run"),
        (["a.png", "--model", "m"], "m is neither a folder with model.json nor a model of the package"),
        (["a", "b", "--chunk", "1"], "one stage folder"),
        (["nowhere", "--chunk", "1"], "not a folder"),
        (["a.png", "--run", "."], "neither results/ablations"),
        (["a.png", "--run", ".", "--size", "3"], "--size must be from 16"),
    ],
)
def test_mistakes_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, disc())
    assert main(["infer", *words]) == 2
    assert message in capsys.readouterr().err


def test_an_untrained_run_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(tmp_path)
    assert infer(tmp_path / "results", tmp_path / "out", str(saved(tmp_path, disc()))) == 2
    assert "is not trained yet" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".ply", ".glb"])
def test_splats_of_others_are_not_replaced(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    photograph, out = saved(tmp_path, disc()), tmp_path / "out"
    out.mkdir()
    mine = out / f"a{ending}"
    mine.write_bytes(b"mine")
    assert infer(results, out, str(photograph)) == 2
    assert f"{mine} is not from z1g infer and would be replaced; give another folder" in capsys.readouterr().err
    assert mine.read_bytes() == b"mine"
    assert [file.name for file in out.iterdir()] == [mine.name]
    mine.unlink()
    assert infer(results, out, str(photograph)) == infer(results, out, str(photograph)) == 0


# Two runs, one folder


class Killed(BaseException):
    """Stands for a signal that ends the process; nothing but `finally` handles it."""


def whole(out: Path, name: str) -> bool:
    """Whether a record and the files that it lists agree."""
    record = json.loads((out / f"{name}.json").read_text())
    assert record["files"].keys() == set(record["outputs"].values())
    return all(
        (out / file).is_file() and hashlib.sha256((out / file).read_bytes()).hexdigest() == known["sha256"]
        for file, known in record["files"].items()
    )


def test_the_record_has_digests_of_the_files(results: Path, tmp_path: Path) -> None:
    assert infer(results, tmp_path / "out", str(saved(tmp_path, disc()))) == 0
    assert whole(tmp_path / "out", "a")
    (tmp_path / "out/a.ply").write_bytes(b"other")
    assert not whole(tmp_path / "out", "a")


@pytest.mark.parametrize("at", range(10))
def test_a_killed_rerun_leaves_no_mixture(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Killed at each removal or move in turn: all files are of the first run, or all are of the second."""
    photograph, out = str(saved(tmp_path, disc())), tmp_path / "out"
    assert infer(results, out, photograph, "--seed", "1") == 0
    (out / "a.glb").write_bytes(b"first")
    record = json.loads((out / "a.json").read_text())
    (out / "a.json").write_text(json.dumps({**record, "outputs": {**record["outputs"], "mesh": "a.glb"}}))
    first = {file.name: file.read_bytes() for file in out.iterdir()}
    assert infer(results, tmp_path / "second", photograph, "--seed", "2") == 0
    second = {file.name: file.read_bytes() for file in (tmp_path / "second").iterdir()}
    assert first["a.ply"] != second["a.ply"]
    calls = 0

    def counted(change: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any, **options: Any) -> None:
            nonlocal calls
            calls += 1
            if calls > at:
                raise Killed
            change(*arguments, **options)

        return call

    def killed(*arguments: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", counted(Path.unlink))
            patch.setattr("z1g.inference.batch.os.replace", counted(os.replace))
            publish(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("z1g.inference.batch.publish", killed)
        with pytest.raises(Killed):
            infer(results, out, photograph, "--seed", "2")
    left = {file.name: file.read_bytes() for file in out.iterdir()}
    of_first = {name for name in left if left[name] == first.get(name) != second.get(name)}
    of_second = {name for name in left if left[name] == second.get(name) != first.get(name)}
    assert not of_first or not of_second, (of_first, of_second)
    assert not of_second or "a.json" not in left
    assert infer(results, out, photograph, "--seed", "2") == 0
    assert whole(out, "a")
    assert not (out / "a.glb").exists()


def test_a_second_process_is_refused_and_what_a_killed_one_left_is_removed(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph, out = str(saved(tmp_path, disc())), tmp_path / "out"
    code = (
        "import sys, time; from pathlib import Path; from z1g.core.locks import exclusive_folder\n"
        "with exclusive_folder(Path(sys.argv[1])) as work:\n"
        "    (work / 'half').write_text('half')\n"
        "    print('held', flush=True); time.sleep(600)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        assert infer(results, out, photograph) == 2
        error = capsys.readouterr().err
        assert f"{out} is being written by" in error
        assert f"process {holder.pid}" in error
        assert not list(out.glob("a.*"))
    finally:
        holder.kill()
        holder.wait()
    assert infer(results, out, photograph) == 0
    assert whole(out, "a")
    assert not list(out.glob(".*"))


# Models that are broken


def test_weights_that_are_not_finite_are_named(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(results, tmp_path / "results")
    (file,) = (tmp_path / "results").glob("unet/*/pipeline/heads.safetensors")
    heads = load_file(file)
    heads["geometry_out.weight"].view(-1)[0] = float("nan")
    save_file(heads, file)
    forget_checksums(file.parents[1])
    assert infer(tmp_path / "results", tmp_path / "out", str(saved(tmp_path, disc()))) == 2
    error = capsys.readouterr().err
    assert f"{file}: 1 of" in error
    assert "geometry_out.weight" in error
    assert not list((tmp_path / "out").glob("a.*"))


def test_splats_that_are_not_finite_are_refused(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By finite weights, as of a network that overflows: one photograph of two."""
    broken = ball_splats("a", 8)
    broken[0, 4, 0, 0] = float("inf")
    outputs = torch.stack([broken, ball_splats("b", 8)])
    monkeypatch.setattr(ImageToSplats, "__call__", lambda self, images, seeds, **_: (None, outputs[: len(images)]))
    names_in = [str(saved(tmp_path, disc(radius=10 + i), f"{name}.png")) for i, name in enumerate("ab")]
    assert infer(results, tmp_path / "out", *names_in) == 2
    error = capsys.readouterr().err
    assert "splats of a: 1 of 384 Gaussians contain numbers that are not finite (scale)" in error
    assert sorted(file.name.split(".")[0] for file in (tmp_path / "out").iterdir()) == ["b"] * 5


def test_names_are_unique_words() -> None:
    files = [Path("a/x y.png"), Path("b/x y.jpg"), Path("x_y.webp"), Path("é.png")]
    assert names(files) == ["x_y", "x_y-2", "x_y-3", "_"]


def test_names_are_unique_on_disks_without_case() -> None:
    """As those of macOS and Windows, on which `Name.ply` replaces `name.ply`."""
    unique = names([Path("Name.png"), Path("name.png"), Path("NAME.jpg"), Path("name-2.png")])
    assert unique[:3] == ["Name", "name-2", "NAME-3"]
    assert len({name.lower() for name in unique}) == 4
