"""`from z1g import ImageToSplats, Splats, render`, and the page of examples."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from support import trained_models
from support.builders import experiment
from support.gaussians import covariance, gaussians
from support.paths import ROOT
from support.photographs import disc, saved

import z1g
from z1g import ImageToSplats, Splats, render
from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.core.recorded import sha256
from z1g.core.sealed import read_sealed, write_sealed
from z1g.inference.models import NETWORKS_DIGEST
from z1g.inference.photographs import Framing
from z1g.inference.several import View
from z1g.networks.weights import packaged
from z1g.render import Reference

EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGE = ROOT / "docs/python.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    return trained_models.write(experiment(root), root / "base")


@pytest.fixture(scope="module")
def model(folder: Path) -> ImageToSplats:
    return ImageToSplats.from_pretrained(str(folder))


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, z1g; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert {'ImageToSplats', 'Splats', 'render'} <= set(dir(z1g)) and not hasattr(z1g, 'nothing')\n"
        "from z1g import render; assert callable(render) and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_the_room_render_is_the_function_too() -> None:
    from z1g.render import Cpu

    assert z1g.render is render
    assert callable(render)
    assert render.Cpu is Cpu


@pytest.mark.slow
def test_the_examples_of_the_page_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path / "shipped/base")
    monkeypatch.setattr(packaged, "MODELS", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, disc(), "photo.png")
    examples = EXAMPLE.findall(PAGE.read_text())
    assert len(examples) > 10
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)
    assert Image.open("front.png").size == (64, 64)
    assert names["cutout"].mode == "RGBA"  # type: ignore[attr-defined]
    assert names["splatter_images"].shape[:3] == (2, 6, 14)  # type: ignore[attr-defined]
    assert names["refined"].shape[:3] == (1, 6, 14)  # type: ignore[attr-defined]
    assert len(Splats.load("pair.ply")) == 2 * len(Splats.load("photo.ply"))
    shown = capsys.readouterr().out
    assert "2/2" in shown
    assert 'unknown extension ".gif"' in shown


@pytest.mark.slow
def test_the_splats_are_those_of_the_command(folder: Path, model: ImageToSplats, tmp_path: Path) -> None:
    photograph = saved(tmp_path, disc(), "a.png")
    words = ["--steps", "3", "--guidance", "2.5", "--seed", "4", "--zoom", "1.3", "--shift", "0.1", "-0.2"]
    out = tmp_path / "out"
    assert main(["infer", str(photograph), "--model", str(folder), "--out", str(out), "--size", "32", *words]) == 0
    sampled = model.sampling(steps=3, guidance=2.5)
    splats = sampled.reconstruct(photograph, seed=4, framing=Framing((0.1, -0.2), 1.3))
    splats.save(tmp_path / "b.ply")
    assert (out / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    assert not torch.equal(splats.tensor, sampled.reconstruct(photograph, seed=4).tensor)
    assert (model.options.guidance, sampled.options.guidance) == (4.0, 2.5), "the model keeps its own options"


@pytest.mark.slow
def test_an_image_in_memory_has_the_seed_of_its_content(model: ImageToSplats, tmp_path: Path) -> None:
    image, other = disc(), disc(radius=12)
    first, again, second = (model.reconstruct(x).tensor for x in (image, image.copy(), other))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    fields = model.reconstruct(Image.new("CMYK", (32, 32), (0, 200, 200, 0)), background="keep")
    assert len(fields) == len(first)


def gray(low: float, high: float, kind: str) -> Image.Image:
    """A ramp with a step, of gray values of a kind of numpy."""
    values = np.linspace(low, high, 48 * 40).reshape(48, 40)
    values[20:, :10] = high
    if kind == ">u2":
        return Image.frombytes("I;16B", (40, 48), values.astype(kind).tobytes())
    return Image.fromarray(values.astype(kind))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("floats.tiff", gray(0, 1, "float32")),
        ("bytes.tiff", gray(0, 255, "float32")),
        ("wide.tiff", gray(0, 65535, "int32")),
        ("narrow.png", gray(0, 65535, "uint16")),
        ("big_endian.tiff", gray(0, 65535, ">u2")),
        ("inks.tiff", gray(0, 255, "uint8").convert("CMYK")),
        ("turned.png", gray(0, 255, "uint8")),
    ],
)
def test_an_image_in_memory_is_the_one_of_its_file(
    model: ImageToSplats, tmp_path: Path, name: str, image: Image.Image
) -> None:
    """Whatever its gray values mean, and however the camera was held."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6 if name == "turned.png" else 1
    image.save(tmp_path / name, exif=exif)
    short = model.sampling(steps=1)
    of_file, of_image = (
        short.reconstruct(source, seed=1, background="keep", framing=Framing((0.1, 0.2)))
        for source in (tmp_path / name, Image.open(tmp_path / name))
    )
    assert torch.equal(of_file.tensor, of_image.tensor)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "kind"), [("I;16", "<u2"), ("I;16L", "<u2"), ("I;16B", ">u2"), ("I;16N", "=u2")])
def test_gray_of_16_bits_is_the_same_whatever_the_order_of_its_bytes(
    model: ImageToSplats, tmp_path: Path, mode: str, kind: str
) -> None:
    """Pillow writes and converts some of these modes wrongly or not at all; a file of numpy's values is the measure."""
    ramp = gray(0, 65534, "uint16")
    values = np.asarray(ramp).copy()
    values[:3] = 65535
    file = saved(tmp_path, Image.fromarray(values), "a.png", transparency=65535)
    image = Image.frombytes(mode, ramp.size, values.astype(kind).tobytes())
    image.info["transparency"] = 65535
    short = model.sampling(steps=1)
    of_file, of_image = (short.reconstruct(source, seed=1, background="keep") for source in (file, image))
    assert torch.equal(of_file.tensor, of_image.tensor)


def test_an_image_whose_file_is_damaged_is_named(model: ImageToSplats, tmp_path: Path) -> None:
    """Pillow reads the pixels of a file that is open when they are needed."""
    file = saved(tmp_path, Image.effect_noise((200, 200), 80), "half.jpg")
    file.write_bytes(file.read_bytes()[:3000])
    for source in (file, Image.open(file)):
        with pytest.raises(UserError, match=r"half\.jpg is damaged: .*truncated"):
            model.reconstruct(source)


def test_what_is_no_photograph_is_said(model: ImageToSplats) -> None:
    for source in (np.zeros((20, 20, 3), np.uint8), torch.zeros(3, 20, 20), None, b"a.png"):
        with pytest.raises(TypeError, match=r"a photograph is a file, .*, not (ndarray|Tensor|NoneType|bytes); "):
            model.reconstruct(source)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no pixels: it is 0x5"):
        model.reconstruct(Image.new("RGB", (0, 5)))
    with pytest.raises(ValueError, match="background is remove or keep, not 'Keep'"):
        model.reconstruct(disc(), background="Keep")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"condition_size": 0}, r"0: Input should be greater than or equal to 16"),
        ({"condition_size": 10**9}, r"0: Input should be less than or equal to 8192"),
        ({"infer": {"steps": 0}}, r"steps: Input should be greater than or equal to 1"),
        ({"infer": {"of_another_version": 1}}, r"of_another_version: Extra inputs are not permitted"),
    ],
)
def test_an_option_of_a_model_that_cannot_be_used_is_named(
    folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    file = tmp_path / "model" / packaged.FILE
    write_sealed(file, {**read_sealed(file, packaged.FILE), **change}, packaged.FILE)
    with pytest.raises(UserError, match=rf"model\.json cannot be used: {message}; write the model again$"):
        ImageToSplats.from_pretrained(str(tmp_path / "model"))


def test_a_missing_section_of_the_networks_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    file = tmp_path / "model" / packaged.NETWORKS / packaged.METHOD_FILE
    values = read_sealed(file, packaged.METHOD_FILE)
    del values["camera"]
    write_sealed(file, values, packaged.METHOD_FILE)
    described = tmp_path / "model" / "model.json"
    values = read_sealed(described, "model.json") | {NETWORKS_DIGEST: sha256(file)}
    write_sealed(described, values, "model.json")
    with pytest.raises(UserError, match=r"stage1\.json cannot be used: it has no 'camera'; was the folder written"):
        ImageToSplats.from_pretrained(str(tmp_path / "model"))


def test_steps_are_counted_and_can_end_the_sampling(model: ImageToSplats) -> None:
    seen: list[tuple[int, int]] = []
    model.sampling(steps=3).reconstruct(disc(), on_step=lambda *step: seen.append(step))
    assert seen == [(1, 3), (2, 3), (3, 3)]

    def stop(done: int, steps: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        model.reconstruct(disc(), on_step=stop)


def test_a_regression_is_one_step(model: ImageToSplats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.predict, "objective", "regression")
    seen: list[tuple[int, int]] = []
    model.reconstruct(disc(), on_step=lambda *step: seen.append(step))
    assert seen == [(1, 1)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"steps": 0}, "steps 0: Input should be greater than or equal to 1"),
        ({"guidance": 0.5}, "guidance 0.5: Input should be greater than or equal to 1"),
    ],
)
def test_options_out_of_range_are_named(model: ImageToSplats, words: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        model.sampling(**words)  # type: ignore[arg-type]


def test_a_model_may_be_a_path_and_has_a_name(folder: Path) -> None:
    assert ImageToSplats.from_pretrained(folder).shape == ImageToSplats.from_pretrained(str(folder)).shape
    for name in ("", " "):
        with pytest.raises(UserError, match=r"an empty name is neither a folder with model\.json nor"):
            ImageToSplats.from_pretrained(name)
    for name in ("base", str(folder), "s3://bucket/model"):
        with pytest.raises(UserError, match="only models of the hub have revisions; they are named USER/NAME"):
            ImageToSplats.from_pretrained(name, revision="main")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, 0], r"floats \[B,3,H,W\] in 0..1, not \[2, "),
        (lambda x: x.permute(0, 2, 3, 1), r"floats \[B,3,H,W\] in 0..1, not \[2, "),
        (lambda x: (x * 255).byte(), "not .* of torch.uint8"),
        (lambda x: x * 255, "have values in 0..1, not up to 127"),
        (lambda x: x * np.nan, "have values in 0..1, not up to nan"),
        (lambda x: x[:1], "1 condition images need as many seeds, not 2"),
    ],
)
def test_what_is_no_condition_image_is_said(model: ImageToSplats, change: Any, message: str) -> None:
    size = model.model.condition.size  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=message):
        model.codes(change(torch.full((2, 3, size, size), 127 / 255)), [0, 1])


def test_condition_images_of_double_precision_are_those_of_single(model: ImageToSplats) -> None:
    size = model.model.condition.size  # type: ignore[union-attr]
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(images, [0])[0], model(images.double(), [0])[0])


def test_arguments_without_effect_or_sense_end_before_the_sampling(model: ImageToSplats, tmp_path: Path) -> None:
    def never(done: int, steps: int) -> None:
        raise AssertionError("sampled")

    for words, message in (({"seed": -1}, "seed -1 must not be negative"),):
        with pytest.raises(ValueError, match=message):
            model.reconstruct(disc(), on_step=never, **words)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"none\.png cannot be read"):
        model.reconstruct(disc(), more=[View(tmp_path / "none.png", 90)], on_step=never)


@pytest.mark.parametrize("shift", [(), (0.1,), (0.1, 0.1, 0.1)])
def test_a_shift_is_two_numbers(shift: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="two numbers, right and down"):
        Framing(shift)  # type: ignore[arg-type]


@pytest.mark.parametrize(("shift", "zoom"), [((0.0, 1.5), 1.0), ((float("nan"), 0.0), 1.0), ((0.0, 0.0), 9.0)])
def test_a_framing_out_of_range_is_refused(shift: tuple[float, float], zoom: float) -> None:
    with pytest.raises(UserError, match="shift must be from -1 to 1"):
        Framing(shift, zoom)


# Splats


@pytest.mark.parametrize("ending", [".ply", ".splat", ".spz"])
def test_a_file_comes_back(tmp_path: Path, ending: str) -> None:
    x = gaussians(60)
    x[:, 3] = 0.2 + 0.8 * x[:, 3]
    Splats(x).save(tmp_path / f"a{ending}")
    back = Splats.load(str(tmp_path / f"a{ending}"))
    assert len(back) == 60
    # Formats that drop precision may sort, too; the mean needs no order.
    torch.testing.assert_close(back.position.mean(0), x[:, :3].mean(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(back.rgb.mean(0), x[:, 11:].mean(0), atol=5e-3, rtol=0)


def test_parts_are_the_inverse_of_from_parts() -> None:
    splats = Splats(gaussians(20))
    assert torch.equal(Splats.from_parts(**splats.parts()).tensor, splats.tensor)
    assert {name: part.shape[1] for name, part in splats.parts().items()} == {
        "position": 3, "opacity": 1, "scale": 3, "rotation": 4, "rgb": 3,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"\[N,14\], not \[3, 7\]"):
        Splats(torch.zeros(3, 7))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.zeros((3, 14)), "ndarray float64"),
        ([[0.0] * 14], "list"),
        (torch.zeros(3, 14, dtype=torch.int64), "Tensor torch.int64"),
        (torch.zeros(3, 14, dtype=torch.bool), "Tensor torch.bool"),
        (torch.zeros(3, 14, dtype=torch.complex64), "Tensor torch.complex64"),
    ],
)
def test_what_is_no_tensor_of_floats_is_named(values: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=rf"a tensor of floats \[N,14\], not {kind}; torch\.as_tensor"):
        Splats(values)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_transforms_that_are_not_finite_are_refused(value: float) -> None:
    shifted, stretch = np.eye(4), np.diag([1.0, 1.0, value])
    shifted[0, 3] = value
    with pytest.raises(ValueError, match="not finite"):
        Splats(gaussians(3)).moved(shifted)
    with pytest.raises(ValueError, match="invertible"):
        Splats(gaussians(3)).mapped(stretch)


def test_any_change_of_the_unit_of_length_is_invertible() -> None:
    x = gaussians(5).double()
    tiny = Splats(x).mapped(1e-6 * np.eye(3))
    torch.testing.assert_close(tiny.position, 1e-6 * x[:, :3], rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="invertible"):
        Splats(x).mapped(1e6 * np.array([[1.0, 0, 0], [0, 1, 1], [0, 1, 1]]))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_transforms_move_points_and_covariances(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(draw.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = rotation, draw.normal(size=3)
    stretch = rotation @ np.diag(draw.uniform(0.4, 2, 3) * draw.choice([-1, 1], 3))
    x = gaussians(12)
    before, center = covariance(x), x[:, :3].double().numpy()
    for moved, matrix, offset in (
        (Splats(x).moved(rigid), rotation, rigid[:3, 3]),
        (Splats(x).mapped(stretch), stretch, np.zeros(3)),
    ):
        assert moved.tensor.dtype == torch.float32
        np.testing.assert_allclose(moved.position.numpy(), center @ matrix.T + offset, atol=1e-5)
        np.testing.assert_allclose(covariance(moved.tensor), matrix @ before @ matrix.T, rtol=1e-3, atol=1e-7)
        assert torch.equal(moved.rgb, Splats(x).rgb)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), r"\[4,4\], not \[3, 3\]"),
        (np.diag([2.0, 1, 1, 1]), "no rotation"),
        (np.diag([-1.0, 1, 1, 1]), "no ro"),
    ],
)
def test_what_is_not_rigid_is_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Splats(gaussians(3)).moved(matrix)
    with pytest.raises(ValueError, match="invertible"):
        Splats(gaussians(3)).mapped(np.diag([1.0, 1, 0]))


# Pictures


def dot(x: float, y: float, z: float) -> Splats:
    """One small red Gaussian."""
    row = [x, y, z, 0.99, 0.03, 0.03, 0.03, 1, 0, 0, 0, 0.9, 0.1, 0.1]
    return Splats(torch.tensor([row], dtype=torch.float32))


@given(azimuth=st.floats(-180, 180), elevation=st.floats(-80, 80), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_a_point_is_where_a_pinhole_camera_sees_it(azimuth: float, elevation: float, seed: int) -> None:
    point = np.random.default_rng(seed).uniform(-0.3, 0.3, 3)
    a, e, size = np.radians(azimuth), np.radians(elevation), 96
    eye = 1.5 * np.array([np.cos(e) * np.sin(a), np.sin(e), np.cos(e) * np.cos(a)])
    forward = -eye / 1.5
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    x, y, z = ((point - eye) @ axis for axis in (right, down, forward))
    focal = size / 2 / np.tan(np.radians(49.1) / 2)
    (picture,) = render(dot(*point), azimuth, elevation, size=size)
    ink = 1 - np.asarray(picture)[..., 1] / 255.0
    rows, columns = np.mgrid[:size, :size] + 0.5
    seen = [(ink * grid).sum() / ink.sum() for grid in (columns, rows)]
    np.testing.assert_allclose(seen, [focal * x / z + size / 2, focal * y / z + size / 2], atol=0.6)


def test_angles_go_with_each_other_and_backgrounds_show() -> None:
    splats = Splats(gaussians(40))
    both = render(splats, azimuth=[0, 90], elevation=[10, 20], size=24)
    (second,) = render(splats, azimuth=90, elevation=20, size=24)
    assert [x.size for x in both] == [(24, 24)] * 2
    assert np.array_equal(np.asarray(both[1]), np.asarray(second))
    assert len(render(splats, elevation=[0, 10, 20], size=8)) == 3
    (blue,) = render(dot(0, 0, 0), size=24, background=(0.0, 0.0, 1.0))
    assert blue.getpixel((0, 0)) == (0, 0, 255)
    (cut,) = render(dot(0, 0, 0), size=24, background=None, rasterizer=Reference())
    assert cut.mode == "RGBA"
    assert cut.getpixel((0, 0))[3] == 0  # type: ignore[index]
    red, green, blue_, alpha = cut.getpixel((12, 12))  # type: ignore[misc]
    assert alpha > 150
    np.testing.assert_allclose([red, green, blue_], [0.9 * 255, 0.1 * 255, 0.1 * 255], atol=2)
    for wrong in ({"azimuth": [0, 1], "elevation": [1, 2, 3]}, {"azimuth": []}, {"size": 0}):
        with pytest.raises(ValueError, match=r"length|size"):
            render(splats, **wrong)


def test_angles_may_be_arrays() -> None:
    splats, angles = Splats(gaussians(9)), [0.0, 120.0, 240.0]
    expected = [np.asarray(picture) for picture in render(splats, angles, size=16)]
    for array in (np.array(angles), torch.tensor(angles), np.array([0, 120, 240])):
        assert np.array_equal([np.asarray(picture) for picture in render(splats, array, size=16)], expected)
    with pytest.raises(ValueError, match="lists of one length"):
        render(splats, np.zeros((2, 2)), size=16)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("radius", value) for value in (0.0, -1.5, np.nan, np.inf)),
        *(("fov_y_deg", value) for value in (0.0, 180.0, -10.0, np.nan)),
        *(("background", value) for value in ((255, 0, 0), (1.0, 1.0), (np.nan,) * 3)),
        *((angle, value) for angle in ("azimuth", "elevation") for value in (np.nan, [0.0, np.inf])),
    ],
)
def test_cameras_that_see_nothing_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name} .* must be"):
        render(dot(0, 0, 0), **{"size": 8, name: value})
