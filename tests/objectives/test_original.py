"""`configs/original.yaml` reproduces the original: forward pass and losses by formulas, and each quirk separately."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support import original_oracle as oracle
from support.builders import SIZES, fill, plan, stage_path
from support.paths import CONFIGS
from support.vgg import vgg16_features
from torch import Tensor, nn

from z1g.codes.book import CodeBook
from z1g.config.resolve import Ablation, resolve
from z1g.config.tree import Experiment
from z1g.config.yaml_file import YamlFile, read_yaml
from z1g.core.seeding import keyed_normal, keyed_uniform
from z1g.losses import Comparison
from z1g.losses.lpips import LpipsLoss, StLpipsLoss
from z1g.losses.splat import SplatLoss
from z1g.networks import perceptual
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.representations.mosaic.codec import MosaicCodec
from z1g.stages import autodecoder
from z1g.training.data import Batch, StepData

SIZE, INPUT = 6, 16
SMALL: dict[str, Any] = {
    "data": {"paths": ["synthetic"], "chunk_size": 2, "split": {"test_fraction": 0.25}},
    "camera": {"free": {"kind": "random_sphere"}, "train_views": 4, "validation_views": 1, "test_views": 2},
    # The original's conventions on a CPU.
    "render": {"kind": "reference", "near": 0.2, "alpha_cap": 0.99, "normalize_rotation": False},
    "splat": {"size": SIZE},
    "model": {"kind": "scratch", **SIZES},
    "representation": {"input_size": INPUT},
    "autodecoder": {
        "views": 2, "train": {"precision": "fp32"}, "losses": {"perceptual": {"resolution": 64}},
    },
}  # fmt: skip


def original(**changes: Any) -> Experiment:
    """original.yaml with small networks and images."""
    files = [read_yaml(CONFIGS / "original.yaml"), YamlFile(Path("small"), SMALL), YamlFile(Path("changes"), changes)]
    return resolve(files)


def build(root: Path, **changes: Any) -> tuple[AutodecoderObjective, MosaicCodec, StageFolder]:
    """The objective of stage 1 of original.yaml on synthetic objects, as the stage builds it."""
    meshes = plan(root).ablations["micro"].ablation.experiment.data
    config = original(**{**changes, "data": {"paths": list(meshes.paths), **changes.get("data", {})}})  # type: ignore[attr-defined]
    planned = Plan([Ablation("micro", "", "original", {}, config)], root / "results")
    planned.write()
    fill(planned)
    folder = StageFolder.open(stage_path(planned, "autodecoder"))
    scenes, ids = autodecoder.training_scenes(folder)
    codec = folder.config.new_codec()
    options = folder.config.autodecoder
    book = options.codes.book(ids, codec.code_shape)
    denoiser = folder.config.model.denoiser() if options.mix_diffusion.interval else None
    return AutodecoderObjective(folder.config, codec, book, scenes, ids, denoiser), codec, folder


def first_batch(objective: AutodecoderObjective, n: int = 2) -> Batch:
    data = StepData(objective.sample, len(objective.ids), n, 42)
    samples = [data[i] for i in range(n)]
    return objective.prepare({name: torch.stack([sample[name] for sample in samples]) for name in samples[0]})


@pytest.mark.slow
def test_forward_pass_and_losses_are_the_originals(tmp_path: Path, trunk: Path) -> None:
    losses = {"losses": {"perceptual": {"trunk": str(trunk)}}, "perceptual_dropout": False}
    objective, codec, folder = build(tmp_path, autodecoder=losses)
    scenes, _ = autodecoder.training_scenes(folder)
    batch = first_batch(objective)
    with torch.no_grad():
        codec.decoder.geometry_out.weight.mul_(3)
        code = objective.book.lookup(batch["object_index"], lambda how: objective.encode(batch, how))
        splats = objective.codec.decode(code)
        terms = {
            name: loss.compute(objective.compare(splats, batch)) for name, loss in objective.options.losses.items()
        }
        total = objective(batch)["loss"]
    vae = copy.deepcopy(codec.vae).double().requires_grad_(False)
    others = copy.deepcopy(codec.decoder.geometry_out).double().requires_grad_(False)
    expected = {"rgb": 0.0, "alpha": 0.0, "perceptual": 0.0, "splat": 0.0}
    for row, index in enumerate(batch["object_index"].tolist()):
        scene = scenes[objective.ids[index]]
        rgba = torch.from_numpy(scene.rgba).double().permute(0, 3, 1, 2) / 255
        on_gray = [rgba[v, :3] * rgba[v, 3:] + 0.5 * (1 - rgba[v, 3:]) for v in range(len(rgba))]
        noise = keyed_normal(torch.tensor([[index, 2]]), tuple(code.shape[1:]))[0].double()
        code_true = oracle.encode(vae, oracle.mosaic(on_gray[1:7]), noise)
        torch.testing.assert_close(code[row].double(), code_true, atol=1e-5, rtol=1e-4)
        predicted = oracle.views_of(oracle.activate(oracle.decode(vae, others, code_true, SIZE), -3.0))
        torch.testing.assert_close(splats[row].double(), torch.stack(predicted), atol=2e-5, rtol=1e-3)
        background = batch["background"][row].double()
        drawn, target, drawn_alpha, true_alpha = [], [], [], []
        for c2w in batch["c2w"][row]:
            view = next(v for v in range(len(rgba)) if torch.equal(scene.c2w[v], c2w))
            assert view >= 7, "inputs are not among the loss views"
            color, alpha = oracle.render(predicted, c2w.double(), 49.1, 16)
            drawn.append(color + (1 - alpha) * background)
            drawn_alpha.append(alpha)
            # Once on gray when loading, and again in the loss.
            target.append(on_gray[view] * rgba[view, 3:] + (1 - rgba[view, 3:]) * background)
            true_alpha.append(rgba[view, 3:])
        pair = [torch.stack(images) for images in (drawn, target, drawn_alpha, true_alpha)]
        expected["rgb"] += float((pair[0] - pair[1]).square().mean()) / 2
        expected["alpha"] += float((pair[2] - pair[3]).square().mean()) / 2
        expected["perceptual"] += float(lpips_by_hand(trunk, pair[0], pair[1])) / 2
        expected["splat"] += float(oracle.splat_loss(predicted, scene.splats.double())) / 2
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(expected, rel=2e-4)
    # Weights 1/1/1: alpha and color are equally weighted.
    assert float(total) == pytest.approx(sum(expected.values()), rel=2e-4)
    assert min(expected.values()) > 1e-3


def lpips_by_hand(trunk: Path, a: Tensor, b: Tensor) -> Tensor:
    """LPIPS-VGG (Zhang et al. 2018) of images [V,3,H,W] in 0..1, resized to 64."""
    import lpips

    layers = vgg16_features().double()
    stored = torch.load(trunk, weights_only=True)
    layers.load_state_dict({name.removeprefix("features."): value for name, value in stored.items()})
    heads = torch.load(Path(lpips.__file__).parent / "weights/v0.1/vgg.pth", map_location="cpu", weights_only=True)
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
    x, y = (
        (nn.functional.interpolate(p, (64, 64), mode="bilinear", antialias=True) - mean) / deviation for p in (a, b)
    )
    total, head = torch.zeros(len(a), dtype=torch.float64), 0
    with torch.no_grad():
        for i, layer in enumerate(layers[:30]):
            x, y = layer(x), layer(y)
            if i in (3, 8, 15, 22, 29):
                unit = [p / (p.square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for p in (x, y)]
                weight = heads[f"lin{head}.model.1.weight"].double()
                total += ((unit[0] - unit[1]).square() * weight).sum(dim=1).mean(dim=(1, 2))
                head += 1
    return total.mean()


# Each quirk is an option, and each option has its effect


QUIRKS: dict[str, Any] = {
    "data.split.train_on_test": True,
    "fit.rotation_norm": "splats",
    "fit.below_minimum": "drop",
    "fit.stop_above": 22.0,
    "fit.keep": "last",
    "representation.decoder.rotation_norm": "rows",
    "representation.decoder.head": "random",
    "autodecoder.codes.reset_optimizer": True,
    "autodecoder.mix_diffusion.unit": "passes",
    "autodecoder.perceptual_dropout": True,
    "autodecoder.composite_twice": True,
    "autodecoder.validation_background": 0.5,
    "autodecoder.losses.splat.sign_invariant_rotation": False,
    "unet.condition_dropout": 0.0,
    "infer.sampler.kind": "ddpm",
    "infer.sampler.clip_sample": True,
}


def at(config: Experiment, path: str) -> Any:
    value: Any = config.model_dump()
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


@pytest.mark.slow
def test_the_originals_quirks_are_in_original_yaml_only() -> None:
    theirs, corrected = resolve([read_yaml(CONFIGS / "original.yaml")]), Experiment()
    for path, value in QUIRKS.items():
        assert at(theirs, path) == value, path
        if path != "infer.sampler.kind":
            assert at(corrected, path) != value, path
        for scale in ("scratch", "small", "full"):
            ours = resolve([read_yaml(CONFIGS / f"{scale}.yaml")])
            assert path == "infer.sampler.kind" or at(ours, path) != value, (scale, path)


def test_test_objects_are_trained_on(tmp_path: Path) -> None:
    both, _, folder = build(tmp_path / "both")
    splits = folder.manifest().splits(folder.config.data.split)
    assert set(splits.values()) == {"train", "test"}
    assert both.ids == list(splits)
    apart, _, _ = build(tmp_path / "apart", data={"split": {"train_on_test": False}})
    assert apart.ids == [name for name, split in splits.items() if split == "train"]


def test_targets_are_composited_twice_or_once(tmp_path: Path) -> None:
    objective, _, _ = build(tmp_path)
    rgb = torch.rand(1, 1, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    alpha = torch.tensor([[0.0, 0.25], [0.5, 1.0]]).view(1, 1, 1, 2, 2)
    batch = {"rgb": rgb * alpha, "alpha": alpha}
    background = torch.full((1, 1, 3, 1, 1), 0.9)
    twice = ((rgb * alpha + 0.5 * (1 - alpha)) * alpha) + 0.9 * (1 - alpha)
    torch.testing.assert_close(objective._target(batch, background), twice)
    objective.options = objective.options.model_copy(update={"composite_twice": False})
    torch.testing.assert_close(objective._target(batch, background), rgb * alpha + 0.9 * (1 - alpha))


@pytest.mark.parametrize("gray", [0.5, 1.0])
def test_validation_uses_the_configured_background(tmp_path: Path, gray: float) -> None:
    objective, _, folder = build(tmp_path, autodecoder={"validation_background": gray})
    objective.eval()
    with torch.no_grad():
        prediction = next(objective._predictions(objective.watched))
    scene = autodecoder.training_scenes(folder)[0][prediction.name]
    empty = torch.from_numpy(scene.rgba[list(objective.config.camera.validation_ids), :, :, 3] == 0)
    assert empty.any()
    assert set(prediction.rgb_true.movedim(1, -1)[empty].flatten().tolist()) == {gray}


@pytest.mark.parametrize("random", [True, False])
def test_training_backgrounds(tmp_path: Path, random: bool) -> None:
    objective, _, _ = build(tmp_path, autodecoder={"random_background": random})
    colors = first_batch(objective, 3)["background"].flatten()
    if random:
        assert len(set(colors.tolist())) == 9
        assert colors.min() >= 0
        assert colors.max() <= 1
    else:
        assert set(colors.tolist()) == {0.5}


@pytest.mark.slow
def test_dropout_of_the_perceptual_network_is_active_only_if_requested(trunk: Path) -> None:
    a, b = (torch.rand(1, 1, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    for loss in (LpipsLoss(trunk=str(trunk), resolution=64), StLpipsLoss(resolution=64)):
        inactive, active = (Comparison(rgb=a, rgb_true=b, perceptual_dropout=on) for on in (False, True))
        quiet = loss.compute(inactive)
        values = []
        for number in (1, 1, 2):
            torch.manual_seed(number)
            values.append(float(loss.compute(active)))
        assert values[0] == values[1] != values[2]
        assert float(quiet) not in values
        torch.testing.assert_close(loss.compute(inactive), quiet, atol=0, rtol=0)
    assert not any(module.training for module in perceptual.lpips(str(trunk))._network[0].modules())


def test_dropout_is_active_in_training_only(tmp_path: Path) -> None:
    objective, _, _ = build(tmp_path)
    batch = first_batch(objective)
    splats = torch.rand(2, 6, 14, SIZE, SIZE)
    assert objective.train().compare(splats, batch).perceptual_dropout
    assert not objective.eval().compare(splats, batch).perceptual_dropout
    objective.options = objective.options.model_copy(update={"perceptual_dropout": False})
    assert not objective.train().compare(splats, batch).perceptual_dropout


# Schedules of terms and of mixed diffusion


@pytest.mark.parametrize(
    ("every", "warmup", "passes"),
    [
        (1, 0, range(8)),
        (None, 0, ()),
        (None, 3, range(3)),
        (3, 0, (0, 3, 6)),
        (3, 2, (0, 1, 3, 6)),
        (5, 4, (0, 1, 2, 3, 5)),
        (1, 501, range(8)),
    ],
)
def test_splat_loss_is_active_in_the_passes_of_its_schedule(every: int | None, warmup: int, passes: Any) -> None:
    loss = SplatLoss(every=every, warmup_passes=warmup)
    assert [i for i in range(8) if loss.is_active(torch.tensor([i]))] == list(passes)


def test_objects_of_one_batch_may_be_in_different_passes() -> None:
    generator = torch.Generator().manual_seed(1)
    p, t = (torch.rand(2, 6, 14, 4, 4, generator=generator) for _ in range(2))
    loss = SplatLoss(every=2)
    alone = loss.compute(Comparison(splats=p[:1], splats_true=t[:1]))
    both = loss.compute(Comparison(splats=p, splats_true=t, epoch=torch.tensor([4, 5])))
    torch.testing.assert_close(both, alone / 2)


def mixed(objective: AutodecoderObjective, batch: Batch) -> tuple[Tensor, Tensor]:
    code = torch.randn(len(batch["key"]), 4, 24, 16, generator=torch.Generator().manual_seed(5))
    return code, objective._mixed(batch, code)


def mixing(root: Path, **mix: Any) -> AutodecoderObjective:
    objective, _, _ = build(
        root, unet={"condition_size": 16}, autodecoder={"mix_diffusion": mix, "codes": {"kind": "encoder"}}
    )
    assert objective.denoiser is not None
    with torch.no_grad():
        objective.denoiser.unet.conv_out.weight.normal_(generator=torch.Generator().manual_seed(1))
    return objective.train()


def changed_rows(objective: AutodecoderObjective, batch: Batch) -> list[bool]:
    code, after = mixed(objective, batch)
    return (code != after).flatten(1).any(dim=1).tolist()


def test_whole_passes_are_mixed_starting_with_the_first(tmp_path: Path) -> None:
    objective = mixing(tmp_path, interval=3)
    assert objective.options.mix_diffusion.unit == "passes"
    batch = {**first_batch(objective, 8), "epoch": torch.arange(8)}
    assert changed_rows(objective, batch) == [i in (0, 3, 6) for i in range(8)]
    assert changed_rows(objective.eval(), batch) == [False] * 8


def test_samples_are_mixed_at_random(tmp_path: Path) -> None:
    objective = mixing(tmp_path, interval=3, unit="samples")
    batch = first_batch(objective, 60)
    rows = changed_rows(objective, batch)
    assert 10 <= sum(rows) <= 32
    assert rows == changed_rows(objective, batch), "keyed by the sample"
    later = {**batch, "epoch": batch["epoch"] + 1}
    assert rows == changed_rows(objective, later), "independent of the pass"


def test_a_mixed_row_is_its_own_prediction_in_any_batch(tmp_path: Path) -> None:
    """A v-prediction at the sample's timestep, noise and condition; the original failed for batches larger than one."""
    objective = mixing(tmp_path, interval=2)
    batch = {**first_batch(objective, 4), "epoch": torch.tensor([0, 1, 2, 3])}
    code, together = mixed(objective, batch)
    denoiser = objective.denoiser
    assert denoiser is not None
    beta = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
    cumulative = (1 - beta).cumprod(0)
    for row in range(4):
        if row % 2:
            torch.testing.assert_close(together[row], code[row], atol=0, rtol=0)
            continue
        key = batch["key"][row].tolist()
        t = int(keyed_uniform(torch.tensor([[*key, 3]]))[0].double() * 1000)
        a, s = cumulative[t].sqrt().float(), (1 - cumulative[t]).sqrt().float()
        image = batch["condition"][row : row + 1]
        latent = objective.codec.condition_latent(image)
        noise = keyed_normal(torch.tensor([[*key, 4]]), (4, 24, 16))
        latent_noise = keyed_normal(torch.tensor([[*key, 5]]), tuple(latent.shape[1:]))
        noisy = a * code[row : row + 1] + s * noise
        with torch.no_grad():
            v = denoiser(noisy, torch.tensor([t]), denoiser.condition(latent, image), latent_noise)
        torch.testing.assert_close(together[row : row + 1], a * noisy - s * v, atol=1e-4, rtol=1e-4)


def test_plain_splats_are_compared_with_enlarged_fits(tmp_path: Path) -> None:
    path = {"decoder": {"path": {"kind": "plain"}}}
    objective, _, _ = build(tmp_path, representation=path)
    batch = first_batch(objective)
    with torch.no_grad():
        pair = objective.compare(objective.codec.decode(torch.zeros(2, 4, 24, 16)), batch)
    assert pair.splats_true is not None
    nearest = torch.arange(INPUT) * SIZE // INPUT
    torch.testing.assert_close(pair.splats_true, batch["splats"][..., nearest, :][..., nearest], atol=0, rtol=0)
    assert isinstance(objective.book, CodeBook)
