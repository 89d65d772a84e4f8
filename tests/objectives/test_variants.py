"""Stage 2's variants: splats under known maps, rendered from the input cameras, and sampled with their frequency."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation
from support.builders import fill, plan, stage_path
from torch import Tensor

from z1g.config.sections import Variants
from z1g.config.tree import Experiment
from z1g.core.files import read_json
from z1g.data.condition_form import ConditionForm
from z1g.data.conditions import condition_image
from z1g.gaussians.affine import transformed
from z1g.gaussians.channels import CHANNELS, to_gaussians
from z1g.geometry.camera import CameraOptions, Cameras, orbit_c2w, view_frame
from z1g.geometry.mosaic import tile
from z1g.objectives.augmentation import symmetries
from z1g.objectives.diffusion import DiffusionData, DiffusionSamples, VariantData
from z1g.objectives.variants import VariantImages, changed, changes, unfitted
from z1g.plan.folder import StageFolder
from z1g.render.reference import Reference
from z1g.stages import autodecoder, codes, unet
from z1g.training.data import Draw

FORM = ConditionForm(16)
SIDE, SPLATS = 32, 4
PLAIN = Variants(count=2, stretch=0, turn_deg=0, mirror=False, recolored=0)


def config(**changes: Any) -> Experiment:
    values = {
        "representation": {"kind": "mosaic", "input_size": 16},
        "splat": {"size": SPLATS},
        "model": {"kind": "scratch"},
        **changes,
    }
    values.setdefault("camera", {"condition_elevation_deg": (10, 10)})
    return Experiment.model_validate({**values, "render": {"kind": "reference"}})


def splats(seed: int = 3) -> Tensor:
    """An asymmetric object [6,14,S,S] with some solid Gaussians."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(6, 14, SPLATS, SPLATS, generator=draw)
    images[:, CHANNELS["position"]] = (images[:, CHANNELS["position"]] - 0.45) * 0.5
    images[:, CHANNELS["scale"]] = 0.02 + 0.05 * images[:, CHANNELS["scale"]]
    rotation = torch.randn(6, 4, SPLATS, SPLATS, generator=draw)
    images[:, CHANNELS["rotation"]] = torch.nn.functional.normalize(rotation, dim=1)
    return images


def inputs_of(experiment: Experiment) -> np.ndarray:
    """Poses [6,4,4] of the inputs in the view-1 frame."""
    c2w = poses(experiment.camera)
    return view_frame(c2w, experiment.camera.radius) @ c2w[1:]


def poses(options: CameraOptions) -> np.ndarray:
    return options.poses(5)[:7]


def maker(options: Variants, experiment: Experiment) -> VariantImages:
    return VariantImages(options, experiment, poses(experiment.camera), SIDE, FORM, experiment.new_codec().inputs)


def drawn(gaussians: Tensor, c2w: np.ndarray) -> tuple[Tensor, Tensor]:
    """Premultiplied color and alpha [V,.,H,W] from poses [V,4,4] in the y-up world."""
    options = CameraOptions()
    frame = view_frame(poses(options), options.radius)
    cameras = Cameras(torch.from_numpy(frame @ c2w)[None], options.fov_y_deg, SIDE, SIDE)
    output = Reference().render(gaussians.double(), cameras)
    return output.rgb[0].float(), output.alpha[0].float()


def test_unchanged_variants_are_renders_of_the_fit() -> None:
    experiment = config()
    mosaics, conditions = maker(PLAIN, experiment)("x", splats())
    rgb, alpha = drawn(to_gaussians(splats()[None]), poses(experiment.camera))
    assert mosaics.shape == (2, 3, 48, 32)
    assert conditions.shape == (2, 3, 16, 16)
    gray = torch.nn.functional.interpolate(rgb + (1 - alpha) * 0.5, (16, 16), mode="bilinear")[1:]
    for k in range(2):
        torch.testing.assert_close(mosaics[k], tile(gray[None])[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(conditions[k], condition_image(rgb[:1], alpha[:1], 16), atol=1e-5, rtol=0)
    assert float(conditions.std()) > 0.03, "images are not empty"


def test_mirrored_variants_mirror_the_condition() -> None:
    """The condition's camera is in the mirror plane, so its image is mirrored."""
    options = PLAIN.model_copy(update={"mirror": True})
    _, conditions = maker(options, config())("x", splats())
    torch.testing.assert_close(conditions[1], conditions[0].flip(-1), atol=1e-4, rtol=0)
    assert float((conditions[1] - conditions[0]).abs().max()) > 0.05


def test_each_variant_has_its_own_condition_elevation() -> None:
    experiment = config(camera={"condition_elevation_deg": (0, 30)})
    _, conditions = maker(PLAIN, experiment)("x", splats())
    for k, change in enumerate(changes(PLAIN, experiment, "x")):
        assert 0 < change.condition_elevation_deg < 30
        rgb, alpha = drawn(to_gaussians(splats()[None]), orbit_c2w(change.condition_elevation_deg, 0, 1.5)[None])
        torch.testing.assert_close(conditions[k], condition_image(rgb, alpha, 16), atol=1e-5, rtol=0)


@given(seed=st.integers(0, 1000), stretch=st.floats(0, 1), turn=st.floats(0, 180), mirror=st.booleans())
@settings(max_examples=50, deadline=None)
def test_changes_stay_in_their_bounds(seed: int, stretch: float, turn: float, mirror: bool) -> None:
    """Singular values, rotation and handedness of every map. The same name gives the same changes."""
    options = Variants(count=4, stretch=stretch, turn_deg=turn, mirror=mirror, recolored=0.5, seed=seed)
    actual = changes(options, config(), f"object {seed}")
    assert [c.matrix.tolist() for c in actual] == [
        c.matrix.tolist() for c in changes(options, config(), f"object {seed}")
    ]
    for i, change in enumerate(actual):
        values = np.linalg.svd(change.matrix, compute_uv=False)
        assert values.max() <= 1 + stretch + 1e-9
        assert values.min() >= 1 / (1 + stretch) - 1e-9
        assert np.sign(np.linalg.det(change.matrix)) == (-1 if mirror and i % 2 else 1)
        up = change.matrix @ [0, 1, 0]
        assert max(abs(up[0]), abs(up[2])) < 1e-9, "objects stay upright"
        back = change.matrix if not (mirror and i % 2) else np.diag([-1, 1, 1]) @ change.matrix
        turned = math.degrees(math.atan2(back[0, 2], back[2, 2]))
        assert abs(turned) <= turn + 1e-6
        assert sorted(change.order) == [0, 1, 2]


def test_variants_keep_their_size_and_permute_colors() -> None:
    options = Variants(count=6, stretch=0.5, recolored=1)
    experiment, gaussians = config(), to_gaussians(splats()[None])
    variants = changes(options, experiment, "y")
    frame = view_frame(poses(experiment.camera), 1.5)[:3, :3]
    actual = changed(gaussians, variants, frame, symmetries(inputs_of(experiment))[:1])
    solid = gaussians[0, :, 3] > 0.5
    radius = torch.linalg.vector_norm(gaussians[0, solid, :3], dim=-1).max()
    for k, change in enumerate(variants):
        assert change.order != (0, 1, 2)
        torch.testing.assert_close(torch.linalg.vector_norm(actual[k, solid, :3], dim=-1).max(), radius)
        torch.testing.assert_close(actual[k, :, 11:], gaussians[0][:, [11 + i for i in change.order]])
        upright = torch.from_numpy(frame).float()
        before, after = (x[:, :3] @ upright for x in (gaussians[0], actual[k]))
        expected = before @ torch.from_numpy(change.matrix).float().T
        ratio = radius / torch.linalg.vector_norm(expected[solid], dim=-1).max()
        torch.testing.assert_close(after, ratio * expected, atol=1e-5, rtol=1e-4)


SEES_SPLATS = {"kind": "mosaic", "input_size": 16, "sees": "splats"}
RECOLORED = Variants(count=4, stretch=0, turn_deg=0, mirror=False, recolored=1)


def test_an_encoder_that_sees_splats_gets_recolored_ones() -> None:
    """Inputs are those of the object whose red, green and blue are permuted, in splats and in images."""
    experiment = config(representation=SEES_SPLATS)
    codec = experiment.new_codec()
    actual, _ = maker(RECOLORED, experiment)("x", splats())
    rgb, alpha = drawn(to_gaussians(splats()[None]), poses(experiment.camera))
    orders = [change.order for change in changes(RECOLORED, experiment, "x")]
    assert len({*orders, (0, 1, 2)}) > 2
    for inputs, order in zip(actual, orders, strict=True):
        images = splats()
        for to, source in enumerate(order):
            images[:, 11 + to] = splats()[:, 11 + source]
        expected = codec.inputs(rgb[None, 1:, list(order)], alpha[None, 1:], images[None])
        torch.testing.assert_close(inputs, expected[0], atol=1e-5, rtol=0)


def test_symmetric_variants_show_the_object_from_all_around() -> None:
    """Conditions, input images and splatter images against renders of the object moved by hand.

    In the y-up world with the condition at azimuth 0 (+z): turns by thirds, and reflections through the planes that
    contain the axis and the inputs at 30, 150 and 270 degrees.
    """
    experiment = config(representation=SEES_SPLATS, camera={"condition_elevation_deg": (10, 10)})
    options = RECOLORED.model_copy(update={"symmetries": True, "count": 6, "recolored": 0})
    inputs, conditions = maker(options, experiment)("x", splats())
    frame, c2w = view_frame(poses(experiment.camera), 1.5)[:3, :3], poses(experiment.camera)
    turns = [Rotation.from_euler("y", angle, degrees=True).as_matrix() for angle in (0, 120, 240)]
    mirrors = []
    for azimuth in (30, 150, 270):
        normal = np.array([math.cos(math.radians(azimuth)), 0, -math.sin(math.radians(azimuth))])
        mirrors.append(np.eye(3) - 2 * np.outer(normal, normal))
    codec, rest = experiment.new_codec(), list(range(6))
    for matrix in (*turns, *mirrors):
        maps = torch.from_numpy(frame @ matrix @ frame.T)[None]
        rgb, alpha = drawn(transformed(to_gaussians(splats()[None]).double(), maps), c2w)
        expected = condition_image(rgb[:1], alpha[:1], 16)
        k = next(k for k in rest if torch.allclose(conditions[k], expected, atol=1e-4))
        rest.remove(k)
        seen = unfitted(splats(), changes(options, experiment, "x", 6)[k : k + 1], symmetries(inputs_of(experiment)))
        again, _ = drawn(to_gaussians(seen), c2w)
        torch.testing.assert_close(again, rgb, atol=1e-4, rtol=0)
        torch.testing.assert_close(inputs[k], codec.inputs(rgb[None, 1:], alpha[None, 1:], seen)[0], atol=1e-4, rtol=0)
    assert rest == []


def test_symmetries_keep_gaussians_in_their_pixels() -> None:
    """Each Gaussian of a splatter image lies on the ray of its pixel, before and after."""
    c2w = torch.from_numpy(inputs_of(config())).float()
    half = math.tan(math.radians(49.1) / 2)
    steps = (torch.arange(SPLATS) + 0.5) / SPLATS * 2 - 1
    rays = torch.stack([half * steps.expand(SPLATS, -1), half * steps[:, None].expand(-1, SPLATS), torch.ones(4, 4)])
    depth = 1.2 + 0.5 * torch.rand(6, 1, SPLATS, SPLATS, generator=torch.Generator().manual_seed(0))
    images = splats()
    images[:, :3] = torch.einsum("vij,vjhw->vihw", c2w[:, :3, :3], depth * rays) + c2w[:, :3, 3, None, None]
    variants = changes(RECOLORED.model_copy(update={"symmetries": True, "count": 6}), config(), "x", 6)
    for image in unfitted(images, variants, symmetries(inputs_of(config()))):
        seen = torch.einsum("vji,vjhw->vihw", c2w[:, :3, :3], image[:, :3] - c2w[:, :3, 3, None, None])
        torch.testing.assert_close(seen / seen[:, 2:], rays.expand(6, -1, -1, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("moved", [{"stretch": 0.1}, {"turn_deg": 1.0}, {"mirror": True}])
def test_an_encoder_that_sees_splats_allows_no_other_variants(moved: dict[str, Any]) -> None:
    still = RECOLORED.model_dump()
    assert config(representation=SEES_SPLATS, unet={"variants": still}).unet.variants == RECOLORED
    with pytest.raises(ValidationError, match="set stretch and turn_deg to 0 and mirror to false"):
        config(representation=SEES_SPLATS, unet={"variants": still | moved})


@pytest.mark.slow
def test_objects_without_solid_splats_keep_their_size() -> None:
    faint = splats()
    faint[:, 3] *= 0.1
    mosaics, conditions = maker(Variants(), config())("x", faint)
    assert bool(mosaics.isfinite().all())
    assert bool(conditions.isfinite().all())


def test_the_fraction_of_samples_that_are_variants() -> None:
    n, k = 3, 4
    own = torch.arange(n, dtype=torch.float32)[:, None, None, None]
    variants = {name: 100 + torch.arange(n * k, dtype=torch.float32).view(n, k, 1) for name in ("codes", "latents")}
    data = DiffusionData(own, own, own[:1], variants=VariantData(variants, 0.7))
    samples, seen, plain = DiffusionSamples(data), set(), 0
    for i in range(1500):
        sample = samples(Draw(i % n, 0, (1, i, 0)))
        value = float(sample["code"])
        assert float(sample["latent"]) == value, "condition and code are of the same variant"
        plain += value < 100
        seen.add(value)
        assert value == i % n if value < 100 else (value - 100) // k == i % n
    assert seen == {*range(n), *range(100, 100 + n * k)}
    assert plain / 1500 == pytest.approx(0.3, abs=0.04)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> StageFolder:
    """Stage 2 of a micro chain with variants."""
    planned = plan(
        tmp_path_factory.mktemp("variants"),
        autodecoder={"codes": {"kind": "encoder"}, "augment": {"turned": 0.5, "recolored": 0.5}},
        unet={"variants": {"count": 3, "share": 0.9}},
    )
    fill(planned)
    for name, run in (("autodecoder", autodecoder.run), ("codes", codes.run), ("unet", unet.run)):
        run(StageFolder.open(stage_path(planned, name)), 1)
    return StageFolder.open(stage_path(planned, "unet"))


def test_a_stage_makes_variants_once(trained: StageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their codes are those of the encoder for their mosaics. A second start reads them."""
    upstream = trained.upstream_folder("autodecoder")
    scenes, ids = autodecoder.training_scenes(upstream)
    stored = load_file(trained.path / "variants" / "shard-00000.safetensors")
    assert stored["codes"].shape[:2] == (len(ids), 3)
    codec = upstream.config.load_codec(upstream.path / "model")
    rendered = scenes.rendered(ids[0])
    options = trained.config.unet.variants
    assert options is not None
    images = VariantImages(options, upstream.config, rendered.c2w[:7], rendered.rgba.shape[1], FORM, codec.inputs)
    fitted = scenes[ids[1]].splats
    assert fitted is not None
    inputs, conditions = images(ids[1], fitted)
    with torch.no_grad():
        torch.testing.assert_close(stored["codes"][1], codec.encode(inputs), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(stored["images"][1], conditions, atol=1e-5, rtol=0)

    def never(*_: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(VariantImages, "__call__", never)
    denoiser = trained.config.model.denoiser()
    again = unet.gather_variants(trained, options, codec, denoiser, scenes, ids)
    torch.testing.assert_close(again["codes"], stored["codes"], atol=0, rtol=0)


@pytest.mark.slow
def test_what_no_step_reads_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A UNet that is left as it is renders and encodes nothing of the objects; a step needs both."""
    made: list[str] = []
    real = VariantImages.__call__

    def watched(self: VariantImages, name: str, splats: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        made.append(name)
        return real(self, name, splats)

    monkeypatch.setattr(VariantImages, "__call__", watched)
    folders = {}
    for steps in (0, 1):
        planned = plan(
            tmp_path,
            autodecoder={"codes": {"kind": "encoder"}},
            unet={"variants": {"count": 3}, "train": {"steps": steps, "batch_size": 2}},
        )
        fill(planned)
        folders[steps] = StageFolder.open(stage_path(planned, "unet"))
    for name, run in (("autodecoder", autodecoder.run), ("codes", codes.run)):
        run(StageFolder.open(stage_path(planned, name)), 1)
    unet.run(folders[0], 1)
    assert not made
    _, ids = autodecoder.training_scenes(folders[0].upstream_folder("autodecoder"))
    assert read_json(folders[0].path / "conditions" / "key.json")["ids"] == ids[:1]
    assert len(ids) > 1
    stored = load_file(folders[0].path / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    initial = folders[0].config.initial_model.denoiser().unet.state_dict()
    for name, value in stored.items():
        torch.testing.assert_close(value, initial[name], atol=0, rtol=0)
    unet.run(folders[1], 1)
    assert sorted(made) == sorted(ids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"autodecoder": {"codes": {"kind": "optimized"}, "augment": {"turned": 0.5}}}, "augment needs"),
        ({"autodecoder": {"augment": {"turned": 0.5}, "mix_diffusion": {"interval": 2}}}, "mix_diffusion"),
        ({"autodecoder": {"codes": {"kind": "optimized"}}, "unet": {"variants": {}}}, "variants needs"),
        ({"unet": {"variants": {}, "rendered": {}}}, "variants needs"),
    ],
)
def test_unsupported_variations_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(tmp_path, **changes)
