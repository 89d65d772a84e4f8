"""The joint representation: its widened VAE, features and activations, whose tokens meet, its noise, and the chain."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from support.builders import experiment, stage_path
from support.diffusion import normal
from support.finished import finish
from support.photographs import disc, saved
from support.published_weights import write_published
from support.running import interrupted
from torch import Tensor

from z1g.cli.main import main
from z1g.config.resolve import Ablation
from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.core.files import read_json, read_jsonl, write_json
from z1g.gaussians import files as splat_files
from z1g.gaussians.channels import CHANNELS, SplatOptions
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, view_frame
from z1g.inference.method import ImageToSplats
from z1g.networks.denoiser import Condition
from z1g.networks.finetune.lora import Lora
from z1g.networks.graphs import Replayed
from z1g.networks.multiview.attention import install
from z1g.networks.regression import regress
from z1g.networks.weights.scratch import Scratch
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.representations import folder as method_folder
from z1g.representations import packed
from z1g.representations.codec import Trained as TrainedMethod
from z1g.representations.joint.codec import JointCodec
from z1g.representations.joint.denoiser import JointDenoiser, places
from z1g.sampling.options import InferOptions
from z1g.sampling.sample import sample_codes
from z1g.sampling.samplers import KINDS, Sampler
from z1g.stages import autodecoder, unet

RGB = CHANNELS["rgb"]
GEOMETRY = slice(0, RGB.start)


def config(**changes: Any) -> Experiment:
    representation = {"kind": "joint", **changes.pop("representation", {})}
    return experiment(Path("unused"), representation=representation, **changes)


def splats(n: int = 1, size: int = 8, seed: int = 5) -> Tensor:
    """Activated splatter images [n,6,14,S,S] near their pixels' rays, all of them drawn."""
    draws = np.random.default_rng(seed)
    images = draws.uniform(0.3, 0.9, (n, 6, 14, size, size))
    images[:, :, :3] = draws.uniform(-0.3, 0.3, (n, 6, 3, size, size))
    images[:, :, 4:7] = np.exp(draws.uniform(-4, -2.5, (n, 6, 3, size, size)))
    images[:, :, 7:11] = draws.normal(size=(n, 6, 4, size, size)) + np.array([2, 0, 0, 0])[:, None, None]
    images[:, :, 7:11] /= np.linalg.norm(images[:, :, 7:11], axis=2, keepdims=True)
    return torch.from_numpy(images).float()


# The widened VAE


def stock_and_joint(head: str, published: Path | None = None) -> tuple[AutoencoderKL, JointCodec]:
    model: dict[str, Any] = {} if published is None else {"kind": "zero123plus", "pretrained": str(published)}
    codes = {"codes": {"kind": "encoder", "train": True}}
    own = config(representation={"head": head}, model=model, autodecoder=codes)
    codec = own.new_codec()
    assert isinstance(codec, JointCodec)
    return own.model.autoencoder(), codec


@pytest.mark.parametrize("head", ["repeated", "zero"])
@torch.no_grad()
def test_before_training_the_color_is_what_the_stock_vae_makes_of_it(head: str) -> None:
    stock, codec = stock_and_joint(head)
    color = 2 * torch.rand(2, 6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) - 1
    images = torch.zeros(2, 6, 14, 8, 8)
    images[:, :, RGB] = color
    mean, deviation = codec.posterior(images)
    expected = stock.encode(color.flatten(0, 1)).latent_dist
    torch.testing.assert_close(mean.flatten(0, 1), expected.mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(deviation.flatten(0, 1), expected.std, atol=1e-5, rtol=0)
    latent = normal(2, 6, 4, 4, 4, seed=2)
    decoded = stock.decode(latent.flatten(0, 1)).sample.unflatten(0, (2, 6))
    torch.testing.assert_close(codec.decoder.raw(latent)[:, :, RGB], decoded, atol=1e-5, rtol=0)


@torch.no_grad()
def test_geometry_begins_with_the_weights_of_colors() -> None:
    stock, codec = stock_and_joint("repeated")
    first, last = codec.vae.encoder.conv_in.weight, codec.vae.decoder.conv_out.weight
    for channel in range(RGB.start):
        assert torch.equal(first[:, channel], stock.encoder.conv_in.weight[:, channel % 3])
        assert torch.equal(last[channel], stock.decoder.conv_out.weight[channel % 3])
    others = {name for name in stock.state_dict() if name.split(".")[1] not in ("conv_in", "conv_out")}
    assert all(torch.equal(stock.state_dict()[name], codec.vae.state_dict()[name]) for name in others)


@torch.no_grad()
def test_without_weights_for_geometry_gaussians_start_on_their_rays() -> None:
    _, codec = stock_and_joint("zero")
    start = codec.decode(normal(2, 6, 4, 4, 4, seed=2))
    options, size = CameraOptions(), 8
    focal = size / 2 / math.tan(math.radians(options.fov_y_deg) / 2)
    c2w = (view_frame(options.poses(0), options.radius) @ options.poses(0))[list(INPUT_VIEWS)]
    ray = np.array([(3 + 0.5 - size / 2) / focal, (1 + 0.5 - size / 2) / focal, 1.0])
    anchor = (c2w[:, :3, 3] + options.radius * c2w[:, :3, :3] @ ray).clip(-1, 1)
    for i in range(2):
        np.testing.assert_allclose(start[i, :, :3, 1, 3], anchor, atol=1e-5)
    np.testing.assert_allclose(start[:, :, 3], 1 / (1 + math.exp(3.2)), atol=1e-6)
    np.testing.assert_allclose(start[:, :, 4:7], 0.5 * options.radius / focal, rtol=1e-5)
    assert (start[:, :, 7] == 1).all()
    assert (start[:, :, 8:11] == 0).all()


@torch.no_grad()
def test_the_decoder_undoes_the_features() -> None:
    """Raw channels that equal the features of opaque splats give their positions, scales and rotations."""
    codec, true = config().new_codec(), splats()
    assert isinstance(codec, JointCodec)
    true[:, :, 3] = 1
    given = codec.decoder.activate(codec.inputs(torch.empty(0), torch.empty(0), true))
    torch.testing.assert_close(given[:, :, :3], true[:, :, :3], atol=1e-5, rtol=0)
    torch.testing.assert_close(given[:, :, 4:7], true[:, :, 4:7], atol=0, rtol=1e-4)
    same = (given[:, :, 7:11] * true[:, :, 7:11]).sum(dim=2).abs()
    torch.testing.assert_close(same, torch.ones_like(same), atol=1e-5, rtol=0)
    logits = torch.atanh(2 * given[:, :, RGB].double() - 1)
    torch.testing.assert_close(logits, 2 * true[:, :, RGB].double() - 1, atol=1e-4, rtol=0)


def test_a_view_has_a_latent_of_its_own() -> None:
    codec = config().new_codec()
    inputs = codec.inputs(torch.empty(0), torch.empty(0), splats(2)).requires_grad_()
    code = codec.encode(inputs)
    assert code.shape == (2, *codec.code_shape) == (2, 6, 4, 4, 4)
    code[1, 4].sum().backward()
    assert inputs.grad is not None
    seen = inputs.grad.flatten(2).abs().amax(dim=2) > 0
    assert seen.nonzero().tolist() == [[1, 4]]
    with pytest.raises(UserError, match="an object has none"):
        codec.inputs(torch.empty(0), torch.empty(0), None)


@torch.no_grad()
def test_a_condition_is_a_view_without_geometry() -> None:
    codec = config().new_codec()
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    features = torch.zeros(2, 1, 14, 8, 8)
    features[:, 0, RGB] = 2 * images - 1
    torch.testing.assert_close(codec.condition_latent(images), codec.encode(features)[:, 0])
    flat = torch.full((1, 3, 32, 32), 0.25)
    torch.testing.assert_close(codec.condition_latent(flat), codec.condition_latent(flat[..., :8, :8]))
    torch.testing.assert_close(codec.zero_latent(32, torch.device("cpu")), codec.encode(0 * features)[:1, 0])


def published_codec(folder: Path, **representation: Any) -> tuple[Experiment, JointCodec, AutoencoderKL]:
    """A codec that starts from published weights, whose encoder stage 1 has changed, and the published VAE."""
    write_published(folder)
    model = {"kind": "zero123plus", "pretrained": str(folder)}
    codes = {"codes": {"kind": "encoder", "train": True}}
    own = config(representation=representation, model=model, autodecoder=codes, splat={"size": 32})
    codec = own.new_codec()
    assert isinstance(codec, JointCodec)
    with torch.no_grad():
        for i, parameter in enumerate(codec.encoder.parameters()):
            parameter += 0.1 * normal(*parameter.shape, seed=i)
    return own, codec, AutoencoderKL.from_pretrained(folder / "vae")


@torch.no_grad()
def test_published_weights_encode_conditions_as_before_stage_1(tmp_path: Path) -> None:
    """As DiffSplat does; the splats' encoder has never seen a view without geometry."""
    own, codec, vae = published_codec(tmp_path / "weights")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    expected = vae.encode(2 * images - 1).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(codec.condition_latent(images), expected)
    assert not codec.zero_latent(32, torch.device("cpu")).any()
    assert not any(p.requires_grad for name, p in codec.named_parameters() if name.startswith("stock"))
    for explicit in ("trained", "stock"):
        other = config(representation={"condition": explicit}, splat={"size": 8}).new_codec()
        assert isinstance(other, JointCodec)
        assert (other.stock is None) == (explicit == "trained")
    codec.save(tmp_path / "model")
    loaded = own.load_codec(tmp_path / "model")
    torch.testing.assert_close(loaded.condition_latent(images), expected)
    inputs = codec.inputs(torch.empty(0), torch.empty(0), splats(1, 32))
    torch.testing.assert_close(loaded.encode(inputs), codec.encode(inputs))


def test_a_folder_says_what_encodes_its_conditions(tmp_path: Path) -> None:
    """It is named if it is missing; folders of versions before this choice have none and need none."""
    own, codec, _ = published_codec(tmp_path / "weights")
    statistics = {
        "mean": torch.zeros(4, 1, 1),
        "deviation": torch.ones(4, 1, 1),
        "zero_latent": torch.zeros(1, 4, 4, 4),
    }
    folder, images = tmp_path / "pipeline", torch.full((1, 3, 32, 32), 0.2)
    folder.mkdir()
    own.representation.save(folder, TrainedMethod(codec, own.new_denoiser(), statistics), own.camera, own.splat)
    assert read_json(folder / "stage1.json")["representation"]["condition"] == "stock"
    packed.pack(folder, tmp_path / "packed")
    for place, tolerance in ((folder, 1e-5), (tmp_path / "packed", 0.1)):
        representation, camera, splat = method_folder.read(place)
        loaded = representation.load(place, camera, splat, torch.device("cpu"))
        given, expected = loaded.codec.condition_latent(images), codec.condition_latent(images)
        assert (given - expected).norm() <= tolerance * expected.norm()
    method_folder.write(folder, representation, camera, SplatOptions(size=4096))
    with pytest.raises(UserError, match=r"stage1\.json cannot be used: its sizes are those of codes 4x\d+x\d+, and"):
        representation.load(folder, camera, SplatOptions(size=4096), torch.device("cpu"))
    shutil.rmtree(folder / "condition_vae")
    with pytest.raises(UserError, match="condition_vae"):
        representation.load_codec(folder, camera, splat)
    before = representation.model_copy(update={"condition": "model"})
    old = before.load_codec(folder, camera, splat)
    features = torch.zeros(1, 1, 14, 32, 32)
    features[:, 0, RGB] = 2 * images - 1
    torch.testing.assert_close(old.condition_latent(images), codec.encode(features)[:, 0])


def test_all_of_the_vae_learns() -> None:
    codec = config().new_codec()
    codec.decode(codec.encode(codec.inputs(torch.empty(0), torch.empty(0), splats()))).square().mean().backward()
    variance = codec.vae.quant_conv.weight.grad[4:]
    assert not variance.any(), "the code is the mean"
    for name, parameter in codec.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


# The denoiser


def denoiser(seed: int = 0, **changes: Any) -> JointDenoiser:
    """A denoiser without layers that are zero."""
    network = config(**changes).new_denoiser()
    assert isinstance(network, JointDenoiser)
    with torch.no_grad():
        for i, layer in enumerate((network.unet.conv_in, network.unet.conv_out)):
            layer.weight.copy_(0.2 * normal(*layer.weight.shape, seed=seed + i))
    return network.eval()


def inputs_of(n: int = 2) -> tuple[Tensor, Tensor, Condition, Tensor]:
    latent = normal(n, 4, 4, 4, seed=12)
    condition = Condition(latent, normal(n, 16, seed=13))
    return normal(n, 6, 4, 4, 4, seed=11), torch.tensor([700, 20, 3][:n]), condition, torch.zeros_like(latent)


def test_all_views_of_an_object_see_each_other_and_the_condition_and_no_other_object() -> None:
    network, (noisy, timestep, condition, noise) = denoiser(), inputs_of()
    noisy.requires_grad_()
    condition.latent.requires_grad_()
    network(noisy, timestep, condition, noise)[1, 2, :, 0, 0].sum().backward()
    assert noisy.grad is not None
    assert condition.latent.grad is not None
    seen = noisy.grad.flatten(2).abs().amax(dim=2) > 0
    assert seen.tolist() == [[False] * 6, [True] * 6]
    assert (condition.latent.grad.flatten(1).abs().amax(dim=1) > 0).tolist() == [False, True]


@torch.no_grad()
def test_views_are_told_apart_by_their_rays() -> None:
    """Exchanged latents give exchanged predictions only if the rays are exchanged, too."""
    network, (noisy, timestep, condition, noise) = denoiser(), inputs_of()
    order = [3, 1, 2, 0, 5, 4]
    expected = network(noisy, timestep, condition, noise)[:, order]
    assert not torch.allclose(network(noisy[:, order], timestep, condition, noise), expected, atol=1e-3)
    network.places.copy_(network.places[[*order, 6]])
    torch.testing.assert_close(network(noisy[:, order], timestep, condition, noise), expected, atol=1e-5, rtol=0)


def test_places_are_plucker_rays_of_the_latents_pixels() -> None:
    options, side = CameraOptions(layout="v1.2", fov_y_deg=40.0, radius=1.8), 4
    given = places(options, side).double().numpy()
    assert given.shape == (7, 7, side, side)
    focal = side / 2 / math.tan(math.radians(20))
    poses = options.poses(3)
    c2w = view_frame(poses, 1.8) @ poses
    for view, row, column in ((0, 0, 0), (3, 1, 2), (5, 3, 3)):
        direction = c2w[1 + view, :3, :3] @ [(column - 1.5) / focal, (row - 1.5) / focal, 1.0]
        direction /= np.linalg.norm(direction)
        expected = [*np.cross(c2w[1 + view, :3, 3], direction), *direction, 0.0]
        np.testing.assert_allclose(given[view, :, row, column], expected, atol=1e-6)
    assert not given[6, :6].any()
    assert (given[6, 6] == 1).all()


@torch.no_grad()
def test_the_condition_has_no_noise_and_its_own_timestep() -> None:
    network, (noisy, timestep, condition, noise) = denoiser(), inputs_of()
    seen: list[tuple[Tensor, Tensor]] = []
    network.unet.register_forward_pre_hook(lambda _, args: seen.append((args[0], args[1])))
    network(noisy, timestep, condition, noise + 5)
    sample, steps = seen[0][0].unflatten(0, (2, 7)), seen[0][1].unflatten(0, (2, 7))
    assert steps.tolist() == [[700] * 6 + [0], [20] * 6 + [0]]
    assert torch.equal(sample[:, :6, :4], noisy)
    assert torch.equal(sample[:, 6, :4], condition.latent)


@torch.no_grad()
def test_new_channels_change_nothing_before_training(tmp_path: Path) -> None:
    """Of published weights: with views that do not meet, the UNet is the published one."""
    write_published(tmp_path / "weights")
    model = {"kind": "zero123plus", "pretrained": str(tmp_path / "weights")}
    own = config(model=model, autodecoder={"codes": {"kind": "encoder", "train": True}}, splat={"size": 32})
    network, published = own.new_denoiser(), own.model.denoiser().unet
    assert isinstance(network, JointDenoiser)
    install(network.unet, 1)
    install(published, 1)
    noisy, timestep, condition, noise = inputs_of()
    tokens = network.tokens(condition.embedding)
    actual = network(noisy, timestep, condition, noise)
    for i in range(2):
        rows = published(noisy[i], timestep[i], tokens[i].expand(6, -1, -1)).sample
        torch.testing.assert_close(actual[i], rows, atol=1e-5, rtol=0)


def test_every_weight_that_is_trained_gets_a_gradient() -> None:
    """Data-parallel training waits for each of them."""
    network, (noisy, timestep, condition, noise) = denoiser().train(), inputs_of()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    network(noisy, timestep, network.condition(condition.latent, images), noise).square().mean().backward()
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert {"prompt", "unet.conv_in.weight"} < set(trained)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


@torch.no_grad()
def test_bf16_weights_change_rounding_only() -> None:
    network, (noisy, timestep, condition, noise) = denoiser(), inputs_of()
    codec = config().new_codec()
    inputs = codec.inputs(torch.empty(0), torch.empty(0), splats(2))
    expected = [network(noisy, timestep, condition, noise), codec.encode(inputs), codec.decode(noisy)]
    network.whole_bf16 = True
    codec.use_bf16_weights(True)
    seen: list[torch.dtype] = []
    for layer in (network.unet.mid_block, codec.vae.encoder.mid_block, codec.vae.decoder.mid_block):
        layer.register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        actual = [network(noisy, timestep, condition, noise), codec.encode(inputs), codec.decode(noisy)]
    assert seen == [torch.bfloat16] * 3
    for rounded, exact in zip(actual, expected, strict=True):
        assert rounded.dtype == torch.float32
        assert 0 < (rounded - exact).norm() < 0.05 * exact.norm()


def test_adapters_leave_the_new_channels_to_training(tmp_path: Path) -> None:
    write_published(tmp_path / "weights")
    model = {"kind": "zero123plus", "pretrained": str(tmp_path / "weights")}
    own = config(model=model, autodecoder={"codes": {"kind": "encoder", "train": True}}, splat={"size": 32})
    network = own.new_denoiser()
    Lora(rank=2).prepare(network)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if "lora" not in name} == {"unet.conv_in.weight", "unet.conv_in.bias"}


# The noise


def test_nothing_is_left_at_the_last_timestep() -> None:
    schedule = denoiser().schedule
    assert schedule.snr(torch.tensor([999])).item() == 0
    code, noise = normal(1, 6, 4, 4, 4), normal(1, 6, 4, 4, 4, seed=1)
    assert torch.equal(schedule.add_noise(code, noise, torch.tensor([999])), noise)
    assert schedule.snr(torch.tensor([0])).item() > 100
    usual = denoiser(representation={"zero_terminal_snr": False}).schedule
    assert 0 < usual.snr(torch.tensor([999])).item() < 0.01


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_samplers_start_where_nothing_is_left(kind: type[Sampler], monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that knows the code, by its exact v, leads there from the last timestep, whose input is pure noise."""
    network, (_, _, condition, _) = denoiser(), inputs_of()
    x0, schedule, seen = normal(2, 6, 4, 4, 4, seed=8), network.schedule, list[tuple[int, Tensor]]()

    def exact(noisy: Tensor, timestep: Tensor, *_: Any) -> Tensor:
        seen.append((int(timestep[0]), noisy))
        alpha, sigma = schedule.at(timestep, noisy)
        return schedule.velocity(x0, (noisy - alpha * x0) / sigma, timestep)

    monkeypatch.setattr(network, "forward", exact)
    options = InferOptions(sampler=kind(), steps=12, guidance=1)
    codes = sample_codes(network, condition, torch.zeros(1, 4, 4, 4), (6, 4, 4, 4), options, [1, 2])
    torch.testing.assert_close(codes, x0, atol=5e-3, rtol=0)
    first, noisy = seen[0]
    assert first == 999
    assert float(noisy.std()) == pytest.approx(1, abs=0.1)


@torch.no_grad()
def test_by_regression_the_code_is_minus_v() -> None:
    """At a timestep without signal x0 = -v, and the condition is as it is."""
    network, (noisy, _, condition, noise) = denoiser(), inputs_of()
    velocity = network(torch.zeros_like(noisy), torch.tensor([999, 999]), condition, noise)
    assert torch.equal(regress(network, network.schedule, condition, (6, 4, 4, 4)), -velocity)


def test_graphs_and_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    network, (_, _, condition, _) = denoiser(), inputs_of()
    options, zero = InferOptions(steps=3, guidance=2.0), torch.zeros(1, 4, 4, 4)
    expected = sample_codes(network, condition, zero, (6, 4, 4, 4), options, [1, 2])
    replayed = sample_codes(Replayed(network), condition, zero, (6, 4, 4, 4), options, [1, 2])
    assert torch.equal(expected, replayed)
    alone = Condition(condition.latent[1:], condition.embedding[1:])
    torch.testing.assert_close(
        sample_codes(network, alone, zero, (6, 4, 4, 4), options, [2]), expected[1:], atol=1e-4, rtol=0
    )


# The configuration


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"splat": {"size": 9}}, r"splat\.size 9 must be a multiple of 2"),
        ({"unet": {"variants": {}}}, r"unet\.variants: the encoder sees splats"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**changes)


def test_a_published_encoder_has_to_learn(tmp_path: Path) -> None:
    model = {"kind": "zero123plus", "pretrained": "owner/name"}
    with pytest.raises(ValueError, match=r"set autodecoder\.codes\.train to true"):
        config(model=model, autodecoder={"codes": {"kind": "encoder"}})
    assert config(model=model, autodecoder={"codes": {"kind": "encoder", "train": True}})


def test_weights_that_predict_noise_are_refused(tmp_path: Path) -> None:
    """At a timestep without signal, predicted noise says nothing of the code."""
    write_published(tmp_path / "weights")
    file = tmp_path / "weights" / "scheduler" / "scheduler_config.json"
    write_json(file, {**read_json(file), "prediction_type": "epsilon"})
    model = {"kind": "zero123plus", "pretrained": str(tmp_path / "weights")}
    own = config(model=model, autodecoder={"codes": {"kind": "encoder", "train": True}})
    with pytest.raises(UserError, match=r"predicts epsilon.*v_prediction"):
        own.model.check()


def test_models_without_a_prompt_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scratch, "has_prompt", property(lambda _: False))
    with pytest.raises(ValueError, match="kind 'joint' needs a UNet that predicts v"):
        config()


# The chain


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    representation = {"kind": "joint"}
    return finish(tmp_path_factory.mktemp("joint"), representation=representation, unet={"rendered": {"views": 1}})


@pytest.mark.slow
def test_codes_and_samples(finished: Plan) -> None:
    codes = load_file(stage_path(finished, "codes") / "codes.safetensors")
    assert {tuple(code.shape) for code in codes.values()} == {(6, 4, 4, 4)}
    rows = read_jsonl(stage_path(finished, "metrics") / "metrics.jsonl")
    assert {row["source"] for row in rows} == {"sampled", "autodecoder", "mean_code", "nearest", "fitted"}
    assert all(row["psnr"] is not None for row in rows)
    stage1 = [row["loss"] for row in read_jsonl(stage_path(finished, "autodecoder") / "history.jsonl") if "loss" in row]
    assert stage1[-1] < stage1[0]


@pytest.mark.slow
def test_both_stages_resume(finished: Plan, tmp_path: Path) -> None:
    """Stopped after four of six steps, they end as the whole ones did."""
    results = tmp_path / "results"
    shutil.copytree(finished.results, results)
    for stage, module, output in (("autodecoder", autodecoder, "model"), ("unet", unet, "pipeline")):
        whole = stage_path(finished, stage)
        part = results / stage / whole.name
        for path in part.iterdir():
            if path.name not in ("stage.json", "manifest.jsonl"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with interrupted(after=4):
            module.run(StageFolder.open(part), threads=1)
        assert not (part / output).exists()
        module.run(StageFolder.open(part), threads=1)
        for file in sorted((whole / output).rglob("*.safetensors")):
            torch.testing.assert_close(load_file(part / file.relative_to(whole)), load_file(file), atol=0, rtol=0)


@pytest.mark.slow
def test_the_noise_is_stage_2_s_own(finished: Plan, tmp_path: Path) -> None:
    shutil.copytree(finished.results.parent / "meshes", tmp_path / "meshes")
    trees = {
        name: experiment(tmp_path / "meshes", representation={"kind": "joint", "zero_terminal_snr": zero})
        for name, zero in (("with", True), ("without", False))
    }
    both = Plan([Ablation(name, "", "micro", {}, tree) for name, tree in trees.items()], tmp_path / "results")
    first, second = (both.ablations[name].stages for name in trees)
    assert first["codes"].id == second["codes"].id
    assert first["unet"].id != second["unet"].id


@pytest.mark.slow
def test_a_folder_needs_no_other_files(finished: Plan, tmp_path: Path) -> None:
    pipeline = stage_path(finished, "unet") / "pipeline"
    scheduler = read_json(pipeline / "scheduler" / "scheduler_config.json")
    assert (scheduler["prediction_type"], scheduler["rescale_betas_zero_snr"]) == ("v_prediction", True)
    assert read_json(pipeline / "vae" / "config.json")["in_channels"] == 14
    run = finished.results / "ablations" / "micro"
    photograph = str(saved(tmp_path, disc(), "a.png"))
    for weights in ("float32", "int8"):
        words = ["--weights", weights, "--out", str(tmp_path / weights)]
        assert main(["pack", str(run), *words]) == 0
    out: dict[str, Tensor] = {}
    sources = {"run": ["--run", str(run)], **{n: ["--model", str(tmp_path / n)] for n in ("float32", "int8")}}
    for name, source in sources.items():
        folder = tmp_path / f"out-{name}"
        assert main(["infer", photograph, *source, "--seed", "3", "--out", str(folder), "--size", "16"]) == 0
        out[name] = splat_files.read(folder / "a.ply")
    assert torch.equal(out["run"], out["float32"])
    assert (out["int8"] - out["run"]).norm() < 0.2 * out["run"].norm()


@pytest.mark.slow
def test_results_verify(finished: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished.results / "ablations" / "micro"
    assert "Representation `joint`, stage 2 by diffusion." in (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert main(["verify", str(run), "--sample", "1"]) == 0
    assert "micro holds" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae", "unet", "conditioning"])
def test_damaged_and_missing_networks_are_named(finished: Plan, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(stage_path(finished, "unet") / "pipeline", folder)
    shutil.rmtree(folder / name)
    with pytest.raises(UserError, match=name):
        ImageToSplats.from_folder(folder, InferOptions(steps=1))


@pytest.mark.slow
def test_training_starts_from_a_trained_model(finished: Plan, tmp_path: Path) -> None:
    run = finished.results / "ablations" / "micro"
    assert main(["pack", str(run), "--weights", "float32", "--out", str(tmp_path / "model")]) == 0
    own = Experiment.model_validate({
        **experiment(Path("unused"), representation={"kind": "joint", "condition": "trained"}).model_dump(mode="json"),
        "model": {"kind": "trained", "pretrained": str(tmp_path / "model")},
    })  # fmt: skip
    trained = ImageToSplats.from_folder(stage_path(finished, "unet") / "pipeline", InferOptions(steps=1))
    codec, network = own.new_codec(), own.new_denoiser()
    assert not codec.encoder_is_trained
    with torch.no_grad():
        code = normal(1, 6, 4, 4, 4)
        torch.testing.assert_close(codec.decode(code), trained.codec.decode(code))
        noisy, timestep, condition, noise = inputs_of(1)
        expected = trained.denoiser(noisy, timestep, condition, noise)
        torch.testing.assert_close(network(noisy, timestep, condition, noise), expected, atol=1e-6, rtol=0)
    assert network.code_statistics is not None
    given, mean = network.code_statistics[0].flatten(), trained.statistics["mean"].flatten()
    torch.testing.assert_close(given, mean)


def test_a_vae_of_another_representation_is_refused() -> None:
    own = config()
    with pytest.raises(UserError, match="trained with another representation"):
        JointCodec(own.model.autoencoder(), own.camera, own.splat)
