"""Several photographs of one object: `reconstruct(..., more=[...])` and `z1g infer --with`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import trained_models
from support.builders import experiment
from support.photographs import disc, saved
from torch import Tensor

from z1g import ImageToSplats, Splats, render
from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.geometry.camera import CameraOptions, orbit_c2w
from z1g.inference import several
from z1g.inference.photographs import decode, read
from z1g.inference.several import Targets, View, ViewSearch, targets
from z1g.render import Cpu

CAMERA = CameraOptions()
ELEVATION = 15.0
SHAPE = (6, 3, 3)
"""Of codes of the decoder below."""


class Blobs:
    """A random linear decoder: codes are colors and, a little, positions of 6·4·4 fixed Gaussians in a ball."""

    def __init__(self) -> None:
        draw = np.random.default_rng(3)
        points = draw.normal(size=(96, 3))
        points *= 0.35 / np.linalg.norm(points, axis=1, keepdims=True)
        base = np.concatenate([points, np.full((96, 1), 0.9), np.full((96, 3), 0.1), np.eye(4)[[0] * 96]], axis=1)
        self.base = torch.from_numpy(base).float()
        self.mix = torch.from_numpy(draw.normal(size=(96 * 6, 54))).float() / 54**0.5

    def __call__(self, code: Tensor) -> Tensor:
        change = (code.flatten(1) @ self.mix.T).unflatten(1, (96, 6))
        position = self.base[:, :3] + 0.03 * change[..., :3]
        rest = self.base[:, 3:].expand(len(code), -1, -1)
        rows = torch.cat([position, rest, change[..., 3:].sigmoid()], dim=2)
        splats: Tensor = rows.unflatten(1, (6, 4, 4)).permute(0, 1, 4, 2, 3)
        return splats


def in_world(decoder: Blobs, code: Tensor) -> Splats:
    """The decoded splats in the world, by the inverse of the pose of input view 1 at elevation and azimuth of 30."""
    s, c = 0.5, 0.75**0.5
    outward = np.array([c * s, s, c * c])
    right = np.array([c, 0, -s])
    to_world = np.eye(4)
    to_world[:3, :3] = np.stack([right, np.cross(outward, right), outward], axis=1)
    rows = decoder(code[None])[0].permute(0, 2, 3, 1).reshape(-1, 14)
    # The view-1 frame has this camera at [0, 0, radius], so both frames have the object's center at the origin.
    return Splats(rows).moved(to_world)


def photographs(splats: Splats, azimuths: list[float], elevation: float = ELEVATION) -> list[Image.Image]:
    return render(splats, azimuths, elevation, size=several.SIDE, background=None)


def exact(splats: Splats, azimuths: list[float], given: list[float] | None = None) -> Targets:
    images = np.stack([np.asarray(image) for image in photographs(splats, azimuths)]) / 255.0
    rgba = torch.from_numpy(images).float().permute(0, 3, 1, 2)
    alpha = rgba[:, 3:]
    return Targets(rgba[:, :3] * alpha, alpha, given or azimuths, [ELEVATION] * len(azimuths))


def difference(a: Splats, b: Splats, azimuths: list[float], elevation: float = ELEVATION) -> float:
    """Root mean squared difference of pictures, 0 to 255."""
    pairs = zip(photographs(a, azimuths, elevation), photographs(b, azimuths, elevation), strict=True)
    return float(np.sqrt(np.mean([(np.asarray(x, float) - np.asarray(y, float)) ** 2 for x, y in pairs])))


@pytest.fixture(scope="module")
def decoder() -> Blobs:
    return Blobs()


@pytest.fixture
def search(decoder: Blobs, monkeypatch: pytest.MonkeyPatch) -> ViewSearch:
    monkeypatch.setattr(several, "SIDE", 32)
    # These codes are far from their starts, unlike those of a trained method.
    monkeypatch.setattr(several, "PRIOR", 1e-4)
    return ViewSearch(decoder, Cpu(), CAMERA, torch.ones(6, 1, 1))


def code(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
def test_four_views_recover_a_known_code_better_than_one(decoder: Blobs, search: ViewSearch) -> None:
    truth, start = in_world(decoder, code(1)), code(2)
    unseen = [45.0, 135.0, 225.0, 315.0]
    errors = [difference(in_world(decoder, start), truth, unseen, 35.0)]
    for azimuths in ([0.0], [0.0, 90.0, 180.0, 270.0]):
        found = search(start, exact(truth, azimuths), steps=60)
        errors.append(difference(in_world(decoder, found), truth, unseen, 35.0))
    assert errors[2] < 0.75 * errors[1]
    assert errors[1] < errors[0]


@pytest.mark.slow
def test_an_azimuth_is_counterclockwise_seen_from_above(decoder: Blobs, search: ViewSearch) -> None:
    truth, start = in_world(decoder, code(1)), code(2)
    right = search(start, exact(truth, [0, 90]), steps=100)
    wrong = search(start, exact(truth, [0, 90], [0, 270]), steps=100)
    assert difference(in_world(decoder, right), truth, [90]) < 0.6 * difference(in_world(decoder, wrong), truth, [90])


def test_what_is_found_stays_near_the_sample_if_the_prior_is_strong(
    decoder: Blobs, search: ViewSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, start = in_world(decoder, code(1)), code(2)
    free = search(start, exact(truth, [0, 180]), steps=30)
    monkeypatch.setattr(several, "PRIOR", 10.0)
    near = search(start, exact(truth, [0, 180]), steps=30)
    assert (near - start).norm() < 0.2 * (free - start).norm()


def test_the_search_ends_when_it_does_not_improve(decoder: Blobs, search: ViewSearch) -> None:
    calls = 0

    def counted(code: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return decoder(code)

    search.decode = counted
    found = search(code(1), exact(in_world(decoder, code(1)), [0, 90]), steps=100)
    assert calls < 40
    torch.testing.assert_close(found, code(1), atol=0.1, rtol=0)


def test_steps_of_the_search_are_counted_to_their_end_and_can_end_it(decoder: Blobs, search: ViewSearch) -> None:
    seen: list[tuple[int, int]] = []
    search(code(1), exact(in_world(decoder, code(2)), [0]), steps=3, on_step=lambda *step: seen.append(step))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    seen.clear()
    search(code(1), exact(in_world(decoder, code(1)), [0]), steps=100, on_step=lambda *step: seen.append(step))
    assert [done for done, _ in seen] == [*range(1, len(seen)), 100], "it settles before"
    assert len(seen) < 100

    def stop(done: int, steps: int) -> None:
        seen.append((done, steps))
        raise InterruptedError

    seen.clear()
    with pytest.raises(InterruptedError):
        search(code(1), exact(in_world(decoder, code(2)), [0]), on_step=stop)
    assert seen == [(1, several.STEPS)]


@pytest.mark.slow
def test_photographs_are_shifted_and_zoomed_to_the_renders(decoder: Blobs, search: ViewSearch) -> None:
    """The crop's scale differs from the camera's; a code cannot make its blobs larger, so colors fit with zoom only."""
    truth, start = in_world(decoder, code(1)), code(2)
    shot = [decode(_png(image), Path("a.png")) for image in photographs(truth, [0, 90])]
    wanted = targets(shot[0], [(shot[1], View("b", 90))], ELEVATION, CAMERA, "remove")
    assert not wanted.aligned
    free = search(start, wanted, steps=100)
    fixed = search(start, Targets(wanted.rgb, wanted.alpha, [0, 90], [ELEVATION] * 2), steps=100)
    errors = [difference(in_world(decoder, x), truth, [0, 90]) for x in (free, fixed)]
    assert errors[0] < 0.9 * errors[1]


def test_targets_are_the_crop_of_the_condition_and_the_poses_of_the_views(tmp_path: Path) -> None:
    first, second = (read(saved(tmp_path, disc(640, 480, 150, color))) for color in ((255, 0, 0), (0, 255, 0)))
    wanted = targets(first, [(second, View("b", 90, 5.0)), (second, View("b", -90))], None, CAMERA, "remove")
    assert wanted.rgb.shape == (3, 3, several.SIDE, several.SIDE)
    assert wanted.azimuth_deg == [0, 90, -90]
    assert wanted.elevation_deg == [15, 5, 15], "the mean of 0 to 30"
    # The disc's diameter is 94 % of the outline of the sphere of radius 0.5.
    share = 0.94 * np.tan(np.arcsin(0.5 / 1.5)) / np.tan(np.radians(49.1 / 2))
    assert float(wanted.alpha[1].mean()) == pytest.approx(np.pi / 4 * share**2, rel=0.03)
    assert float(wanted.rgb[0, 0].max()) == pytest.approx(1, abs=1e-3)
    assert float(wanted.rgb[1, 0].max()) == 0


def test_the_alpha_of_a_kept_background_is_unknown(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), (127, 127, 127))
    image.paste((255, 0, 0), (10, 5, 30, 15))
    photograph = read(saved(tmp_path, image), "keep")
    wanted = targets(photograph, [], 0, CAMERA, "keep")
    assert bool((wanted.alpha == 1).all())
    torch.testing.assert_close(wanted.rgb[0, :, 0, 0], torch.full((3,), 127 / 255), atol=1e-3, rtol=0)


def _png(image: Image.Image) -> bytes:
    from io import BytesIO

    content = BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


# Words


def test_a_view_is_spelled_after_the_last_at() -> None:
    assert View.parse("me@home.png@-90") == View(Path("me@home.png"), -90.0)
    assert View.parse("a/b.png@180,12.5") == View(Path("a/b.png"), 180.0, 12.5)
    assert View.parse("b.png@back") == View(Path("b.png"), 180.0)
    assert View.parse("b.png@right,20") == View(Path("b.png"), 270.0, 20.0)


def test_the_left_side_is_on_the_right_of_the_front() -> None:
    """A red ball on the object's left, +x for a front that faces +z, is near the camera of that side."""
    left = orbit_c2w(0, View.parse("b.png@left").azimuth_deg, CAMERA.radius)
    ball = np.array([0.4, 0, 0, 1])
    in_front = np.linalg.inv(orbit_c2w(0, View.parse("b.png@front").azimuth_deg, CAMERA.radius)) @ ball
    assert in_front[0] > 0.3, "on the right of the image"
    assert (np.linalg.inv(left) @ ball)[2] < CAMERA.radius - 0.3, "near that camera"


@pytest.mark.parametrize(
    ("rgb", "alpha", "azimuths", "elevations", "message"),
    [
        ((2, 3, 8, 8), (2, 1, 8, 8), [0], [0, 0], "with 1 and 2"),
        ((2, 3, 8, 8), (1, 1, 8, 8), [0, 90], [0, 0], r"\[1, 1, 8, 8\] with 2 and 2"),
        ((1, 3, 8, 8), (1, 1, 8, 4), [0], [0], r"\[1, 3, 8, 8\] and \[1, 1, 8, 4\]"),
        ((3, 8, 8), (1, 8, 8), [0], [0], r"not \[3, 8, 8\]"),
        ((1, 3, 8, 8), (1, 1, 8, 8), [np.nan], [0], "finite"),
        ((1, 3, 8, 8), (1, 1, 8, 8), [0], [np.inf], "finite"),
    ],
)
def test_targets_go_with_their_angles(
    rgb: tuple[int, ...], alpha: tuple[int, ...], azimuths: list[float], elevations: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Targets(torch.zeros(rgb), torch.zeros(alpha), azimuths, elevations)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("back.png", "back.png does not say from where"),
        ("back.png@", "does not say from where"),
        ("@90", "does not say from where"),
        ("back.png@1,2,3", "does not say from where"),
        ("back.png@nan", "does not say from where"),
        ("back.png@behind", "does not say from where"),
        ("back.png@180,back", "does not say from where"),
        ("back.png@400", "azimuth 400 of back.png must be from -360 to 360"),
        ("back.png@inf", "azimuth inf of back.png"),
        ("back.png@90,91", "elevation 91 of back.png must be from -90 to 90"),
        ("back.png@90,nan", "elevation nan of back.png"),
    ],
)
def test_a_view_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        View.parse(text)


# With a trained model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    return trained_models.write(experiment(root), root / "base")


@pytest.mark.slow
def test_the_command_and_python_make_the_same_splats(folder: Path, tmp_path: Path) -> None:
    first, back = saved(tmp_path, disc(), "a.png"), saved(tmp_path, disc(color=(0, 0, 250)), "b.png")
    words = ["infer", str(first), "--with", f"{back}@180", f"{back}@180,10", "--elevation", "5", "--model", str(folder)]
    out = tmp_path / "out"
    assert main([*words, "--out", str(out), "--size", "32"]) == 0
    model = ImageToSplats.from_pretrained(str(folder))
    more = [View(back, 180), View(Image.open(back), 180, 10)]
    splats = model.reconstruct(first, more=more, elevation=5)
    splats.save(tmp_path / "b.ply")
    assert (out / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    assert not torch.equal(splats.tensor, model.reconstruct(first).tensor)
    record = json.loads((out / "a.json").read_text())
    assert record["elevation"] == 5
    assert [(x["photograph"], x["azimuth"], x["elevation"]) for x in record["more"]] == [
        (str(back), 180, None), (str(back), 180, 10),
    ]  # fmt: skip
    assert record["more"][0]["sha256"] == read(back).digest


@pytest.mark.slow
def test_photographs_can_be_refined(folder: Path, tmp_path: Path) -> None:
    """One gives what Python gives; of several, each is refined by itself."""
    colors = {"a": (250, 0, 0), "b": (0, 0, 250)}
    files = [saved(tmp_path, disc(color=color), f"{name}.png") for name, color in colors.items()]
    words = ["infer", "--model", str(folder), "--size", "32", "--out"]
    for name, given in (("one", files[:1]), ("two", files)):
        assert main([*words, str(tmp_path / name), "--refine", *map(str, given)]) == 0
    assert main([*words, str(tmp_path / "plain"), str(files[0])]) == 0
    model = ImageToSplats.from_pretrained(str(folder))
    splats = model.reconstruct(files[0], refine=True)
    splats.save(tmp_path / "again.ply")
    for name in ("one", "two"):
        assert (tmp_path / name / "a.ply").read_bytes() == (tmp_path / "again.ply").read_bytes()
    assert not torch.equal(splats.tensor, model.reconstruct(files[0]).tensor)
    records = {path.parent.name + path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*/*.json")}
    refined = {name: record["refined"] for name, record in records.items() if "refined" in record}
    assert refined == {"onea": True, "twoa": True, "twob": True, "plaina": False}


@pytest.mark.slow
@pytest.mark.parametrize("words", [{"refine": True}, {"more": [View(disc(), 180)]}])
def test_steps_of_sampling_and_search_are_counted_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: dict[str, Any]
) -> None:
    monkeypatch.setattr(several, "STEPS", 4)
    monkeypatch.setattr(ViewSearch.__call__, "__defaults__", (4, None))
    model = ImageToSplats.from_pretrained(str(folder)).sampling(steps=2)
    seen: list[tuple[int, int]] = []
    model.reconstruct(disc(), on_step=lambda *step: seen.append(step), **words)
    assert seen == [(done, 6) for done in range(1, 7)]


def test_an_elevation_is_of_the_search_only(folder: Path) -> None:
    model = ImageToSplats.from_pretrained(str(folder))
    for elevation in (0, 20.0):
        with pytest.raises(UserError, match="elevation is of use only with refine=True or further photographs"):
            model.reconstruct(disc(), elevation=elevation)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png", "--with", "b.png@90"], "b.png cannot be read: No such file"),
        (["a.png", "--with", "a.png@900"], "azimuth 900 of a.png"),
        (["a.png", "--with", "text.png@90"], "text.png is not an image"),
        (["a.png", "c.png", "--with", "a.png@90"], "--with adds photographs to one object, but there are 2"),
        (["a.png", "--elevation", "10"], "--elevation is of use only with"),
        (["a.png", "--with", "a.png@90", "--elevation", "100"], "elevation 100 of the first photograph"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "c.png"):
        saved(tmp_path, disc(), name)
    (tmp_path / "text.png").write_text("nothing")
    assert main(["infer", *words, "--model", str(folder)]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.glob("splats/*"))
