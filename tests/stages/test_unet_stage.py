"""Training options of stage 2 and sources of codes in inference, on synthetic objects; cached tensor shards."""

import importlib.machinery
import logging
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models import attention_processor
from safetensors.torch import load_file
from scipy.stats import norm
from support.builders import SIZES, fill, input_mosaic, plan, stage_path
from support.diffusion import normal
from support.published_weights import write_published
from torch import Tensor

from z1g.bench import guidance
from z1g.config.sections import RenderedCodes, UNetOptions
from z1g.core.errors import UserError
from z1g.core.files import read_jsonl
from z1g.core.seeding import torch_generator
from z1g.data.bank import SceneBank, StoredViews
from z1g.data.manifest import int_hash
from z1g.data.tensor_shards import remembered
from z1g.gaussians.channels import to_gaussians
from z1g.geometry.camera import Cameras
from z1g.losses import Comparison
from z1g.losses.rendering import AlphaLoss, RgbLoss
from z1g.losses.splat import SplatLoss
from z1g.networks import attention_kernels
from z1g.networks.denoiser import Condition, Denoiser
from z1g.networks.diffusion import NoiseSchedule
from z1g.networks.timesteps.logit_normal import LogitNormal
from z1g.networks.timesteps.uniform import Uniform
from z1g.networks.weights.scratch import Scratch
from z1g.objectives.diffusion import DiffusionData, DiffusionObjective
from z1g.objectives.rendered import RenderedTruth, Rendering
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.render.reference import Reference
from z1g.sampling.inferred.cache import TrueCodes
from z1g.sampling.inferred.diffusion import SampledCodes
from z1g.sampling.inferred.encoder import EncodedInputs
from z1g.sampling.inferred.one_step import OneStepCodes
from z1g.sampling.inferred.probe import NoisedCodes
from z1g.sampling.inferred.refined import RefinedCodes
from z1g.stages import autodecoder, codes, infer, unet
from z1g.stages.autodecoder import training_scenes
from z1g.training.data import Draw

# Timesteps


def test_uniform_timesteps_are_equally_likely() -> None:
    drawn = Uniform().draw((torch.arange(1000) + 0.5) / 1000, 1000)
    assert drawn.tolist() == list(range(1000))


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.5, 1.4)])
def test_logit_normal_timesteps_have_their_distribution(mean: float, deviation: float) -> None:
    drawn = LogitNormal(mean=mean, deviation=deviation).draw((torch.arange(20_000) + 0.5) / 20_000, 1000)
    for share in (0.1, 0.3, 0.5, 0.9):
        expected = norm.cdf((torch.logit(torch.tensor(share)).item() - mean) / deviation)
        assert (drawn < 1000 * share).float().mean().item() == pytest.approx(expected, abs=1e-3)


def test_adapters_need_weights_to_adapt(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has random weights"):
        plan(tmp_path, unet={"finetune": {"kind": "lora"}})


@pytest.mark.slow
def test_initial_weights_have_a_seed_of_their_own(tmp_path: Path) -> None:
    """A training that hardly moves ends where it began. Stage 1 is the same for both seeds."""
    still = {"steps": 1, "optimizer": {"lr": 1e-12, "weight_decay": 0.0}, "schedule": {"warmup_steps": 0}}
    planned = plan(tmp_path, model={"init_seed": 3}, unet={"init_seed": 5, "train": still})
    other = plan(tmp_path, model={"init_seed": 3}, unet={"init_seed": 6, "train": still})
    assert stage_path(planned, "codes") == stage_path(other, "codes")
    assert stage_path(planned, "unet") != stage_path(other, "unet")
    fill(planned)
    for stage in (autodecoder, codes, unet):
        stage.run(StageFolder.open(stage_path(planned, stage.__name__.split(".")[-1])), threads=1)
    weights = load_file(stage_path(planned, "unet") / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    drawn = Scratch(**SIZES, init_seed=5).denoiser().unet.state_dict()
    assert weights.keys() == drawn.keys()
    for name, value in weights.items():
        torch.testing.assert_close(value, drawn[name], atol=1e-9, rtol=0)


def test_timesteps_stay_in_range() -> None:
    drawn = LogitNormal(deviation=50.0).draw(torch.tensor([0.0, 1e-9, 0.5, 1 - 2**-24]), 1000)
    assert drawn.tolist() == [0, 0, 500, 999]


# Networks in bf16, kernels of attention


def prediction(denoiser: Denoiser) -> Tensor:
    condition = Condition(normal(2, 4, 4, 4, seed=4), normal(2, 16, seed=5))
    output: Tensor = denoiser(
        normal(2, 4, 6, 4, seed=2), torch.tensor([100, 800]), condition, normal(2, 4, 4, 4, seed=3)
    )
    return output


def denoiser() -> Denoiser:
    network = Scratch(init_seed=1, **SIZES).denoiser()
    with torch.no_grad():
        network.unet.conv_out.weight.copy_(0.1 * normal(*network.unet.conv_out.weight.shape, seed=1))
    return network


def gradients(network: Denoiser) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.unet.parameters() if p.grad is not None])


def test_bf16_weights_learn_in_float32() -> None:
    exact, half = denoiser(), denoiser()
    half.whole_bf16 = True
    expected = prediction(exact)
    expected.square().mean().backward()
    inner: list[torch.dtype] = []
    hook = half.unet.mid_block.resnets[0].norm1.register_forward_hook(lambda _, inputs, out: inner.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        actual = prediction(half)
    hook.remove()
    actual.square().mean().backward()
    assert inner == [torch.bfloat16] * 2, "norms too, in both passes"
    assert actual.dtype == torch.float32
    scale = expected.abs().max()
    assert 0 < (actual - expected).abs().max() < 0.05 * scale
    assert all(p.dtype == torch.float32 and p.grad is not None for p in half.unet.parameters())
    similarity = torch.nn.functional.cosine_similarity(gradients(half), gradients(exact), dim=0)
    assert similarity > 0.995


def test_without_autocast_nothing_is_rounded() -> None:
    half = denoiser()
    half.whole_bf16 = True
    torch.testing.assert_close(prediction(half), prediction(denoiser()), atol=0, rtol=0)


@pytest.mark.parametrize("kernels", ["flash", "cudnn"])
def test_kernels_change_rounding_only(kernels: str) -> None:
    chosen = denoiser()
    chosen.attention = kernels
    torch.testing.assert_close(prediction(chosen), prediction(denoiser()), atol=1e-5, rtol=0)


@dataclass
class Xformers:
    """A fake of the functions of xformers that diffusers uses, in float64: heads [B·H,N,C], no bias."""

    ops: "Xformers" = field(init=False)
    calls: int = 0

    def __post_init__(self) -> None:
        self.ops = self

    def memory_efficient_attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_bias: None, op: None, scale: float
    ) -> Tensor:
        self.calls += 1
        logits = scale * query.double() @ key.double().transpose(1, 2)
        return (logits.softmax(dim=2) @ value.double()).to(query.dtype)


@pytest.fixture
def xformers(monkeypatch: pytest.MonkeyPatch) -> Xformers:
    fake = Xformers()
    monkeypatch.setattr(attention_processor, "xformers", fake)
    monkeypatch.setitem(sys.modules, "xformers", types.ModuleType("xformers"))
    sys.modules["xformers"].__spec__ = importlib.machinery.ModuleSpec("xformers", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(attention_kernels, "probe_xformers", lambda device: None)
    return fake


@pytest.mark.parametrize("recompute", [False, True])
def test_attention_by_xformers(xformers: Xformers, recompute: bool) -> None:
    exact, chosen = denoiser(), denoiser()
    chosen.attention = "xformers"
    if recompute:
        chosen.unet.enable_gradient_checkpointing()
    expected, actual = prediction(exact), prediction(chosen)
    assert xformers.calls == 2 * len(chosen.unet.attn_processors), "in both passes"
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    for output in (expected, actual):
        output.square().mean().backward()
    torch.testing.assert_close(gradients(chosen), gradients(exact), atol=1e-5, rtol=1e-3)
    chosen.attention, before = "auto", xformers.calls
    prediction(chosen)
    assert xformers.calls == before, "chosen for one forward pass only"


def test_xformers_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel for another version of torch or CUDA installs, imports, and fails at the first call."""

    def none(*_: Tensor) -> Tensor:
        raise NotImplementedError("No operator found for `memory_efficient_attention_forward` with inputs: …")

    ops = types.ModuleType("xformers.ops")
    monkeypatch.setattr(ops, "memory_efficient_attention", none, raising=False)
    monkeypatch.setitem(sys.modules, "xformers", types.ModuleType("xformers"))
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    attention_kernels.probe_xformers.cache_clear()
    with pytest.raises(UserError, match=r"xformers has no kernels for torch .* with CUDA"):
        attention_kernels.probe_xformers("cpu")


@pytest.mark.slow
def test_xformers_where_it_cannot_work(chain: Plan, xformers: Xformers, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = StageFolder.open(stage_path(chain, "unet"))
    options = folder.config.unet.model_copy(update={"attention": "xformers"})
    changed = replace(folder, config=folder.config.model_copy(update={"unet": options}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a GPU"):
        unet.run(changed, threads=1)
    monkeypatch.delitem(sys.modules, "xformers")
    chosen = denoiser()
    chosen.attention = "xformers"
    with pytest.raises(UserError, match="not installed"):
        prediction(chosen)


# Training by renders


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The chain up to stage `infer`, with low-rank adapters and losses on renders."""
    root = tmp_path_factory.mktemp("modes")
    write_published(root / "weights")
    planned = plan(
        root,
        n_objects=4,
        model={"kind": "zero123plus", "pretrained": str(root / "weights")},
        unet={
            "finetune": {"kind": "lora", "rank": 2},
            "timesteps": {"kind": "logit_normal"},
            "losses": {"latent": {"weighting": "min_snr"}},
            "rendered": {"views": 2, "below": 700},
        },
        infer={"train_objects": 2},
    )
    fill(planned)
    for stage in (autodecoder, codes, unet):
        stage.run(StageFolder.open(stage_path(planned, stage.__name__.split(".")[-1])), threads=1)
    infer.run(StageFolder.open(stage_path(planned, "infer")), chunk=0, threads=1)
    return planned


def rendering(chain: Plan, below: int) -> tuple[Rendering, dict[str, Tensor]]:
    folder = StageFolder.open(stage_path(chain, "autodecoder"))
    scenes, ids = autodecoder.training_scenes(folder)
    truth = RenderedTruth(folder.config, StoredViews(scenes, ids), 2)
    codec = folder.config.load_codec(folder.path / "model")
    options = RenderedCodes(below=below, losses={"rgb": RgbLoss(weight=2.0), "alpha": AlphaLoss(weight=0.5)})
    losses = Rendering(options, folder.config, codec, torch.tensor(0.1), torch.tensor(0.5), truth)
    samples = [truth(Draw(i % len(ids), 0, (7, 0, i))) for i in range(3)]
    return losses, losses.prepare({name: torch.stack([sample[name] for sample in samples]) for name in samples[0]})


def test_a_bank_gives_the_same_views(chain: Plan) -> None:
    """The premultiplied images and cameras of the drawn views, from a bank or from disk."""
    folder = StageFolder.open(stage_path(chain, "autodecoder"))
    scenes, ids = autodecoder.training_scenes(folder)
    read, expected = rendering(chain, below=1000)
    bank = SceneBank.load(scenes, ids, torch.device("cpu"))
    truth = RenderedTruth(folder.config, None, 2)
    banked = Rendering(read.options, folder.config, read.codec, read.mean, read.deviation, truth, bank)
    draws = [Draw(i % len(ids), 0, (7, 0, i)) for i in range(3)]
    samples = [{**truth(draw), "object_index": torch.tensor(draw.object_index)} for draw in draws]
    batch = banked.prepare({name: torch.stack([sample[name] for sample in samples]) for name in samples[0]})
    for name, value in expected.items():
        assert torch.equal(batch[name], value), name
    views = samples[1]["views"].tolist()
    assert len(set(views) & set(folder.config.camera.train_ids)) == 2
    rgb, alpha = scenes[ids[draws[1].object_index]].images(views)
    torch.testing.assert_close(batch["rgb"][1], rgb)
    torch.testing.assert_close(batch["alpha"][1], alpha)


def test_losses_on_renders_by_hand(chain: Plan) -> None:
    render_losses, batch = rendering(chain, below=500)
    predicted, timestep = normal(3, 4, 6, 4, seed=3).requires_grad_(), torch.tensor([10, 600, 499])
    total, terms = render_losses.losses(predicted, timestep, batch)
    rgb, alpha = 0.0, 0.0
    for i in (0, 2):
        splats = render_losses.codec.decode(predicted[i : i + 1] * 0.5 + 0.1)
        cameras = Cameras(batch["c2w"][i : i + 1], render_losses.config.camera.fov_y_deg, 16, 16)
        drawn, coverage = render_losses.config.render.render(to_gaussians(splats), cameras), batch["alpha"][i : i + 1]
        ground = batch["background"][i]
        image = drawn.rgb + (1 - drawn.alpha) * ground
        truth = batch["rgb"][i : i + 1] + (1 - coverage) * ground
        rgb, alpha = rgb + (image - truth).square().mean() / 3, alpha + (drawn.alpha - coverage).square().mean() / 3
    torch.testing.assert_close(total, 2 * rgb + 0.5 * alpha)
    torch.testing.assert_close(terms, {"rgb": rgb, "alpha": alpha})
    total.backward()
    assert predicted.grad is not None
    reached = predicted.grad.flatten(1).abs().amax(dim=1)
    assert reached[1] == 0, "this sample is too noisy to be rendered"
    assert (reached[[0, 2]] > 0).all()
    assert not any(p.requires_grad for p in render_losses.codec.parameters())


def test_splats_of_a_plain_decoder_are_compared_with_enlarged_fits(tmp_path: Path) -> None:
    planned = plan(tmp_path, representation={"decoder": {"path": {"kind": "plain"}}})
    fill(planned)
    folder = StageFolder.open(stage_path(planned, "autodecoder"))
    scenes, ids = autodecoder.training_scenes(folder)
    truth, codec = RenderedTruth(folder.config, StoredViews(scenes, ids), 1), folder.config.new_codec()
    options = RenderedCodes(below=1000, losses={"splat": SplatLoss()})
    render_losses = Rendering(options, folder.config, codec, torch.tensor(0.0), torch.tensor(1.0), truth)
    batch = render_losses.prepare({name: value[None] for name, value in truth(Draw(0, 0, (7, 0, 0))).items()})
    code = normal(1, 4, 24, 16, seed=3)
    total, _ = render_losses.losses(code, torch.tensor([3]), batch)
    fitted = batch["splats"].repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    expected = SplatLoss().compute(Comparison(splats=codec.decode(code), splats_true=fitted))
    torch.testing.assert_close(total, expected)


def test_a_batch_without_rendered_samples_has_the_same_terms(chain: Plan) -> None:
    render_losses, batch = rendering(chain, below=5)
    predicted = normal(3, 4, 6, 4, seed=3).requires_grad_()
    total, terms = render_losses.losses(predicted, torch.tensor([5, 600, 999]), batch)
    assert float(total.detach()) == 0
    assert {name: float(value) for name, value in terms.items()} == {"rgb": 0, "alpha": 0}
    total.backward()


def test_renders_add_to_the_loss(chain: Plan) -> None:
    """The losses sum up, and gradients reach the UNet through the decoder."""
    render_losses, batch = rendering(chain, below=1000)
    data = DiffusionData(
        normal(3, 4, 6, 4, seed=1), normal(3, 4, 4, 4, seed=2), torch.zeros(1, 4, 4, 4), normal(3, 16, seed=3)
    )
    options = UNetOptions.model_validate({"losses": {"latent": {"kind": "latent", "weight": 1e-30}}})
    objective = DiffusionObjective(options, denoiser(), data, render_losses)
    own = {"code": data.codes, "latent": data.latents, "embedding": data.embeddings}
    keys = torch.tensor([[7, 0, i] for i in range(3)])
    losses = objective({**batch, **own, "key": keys})  # `batch` is prepared
    torch.testing.assert_close(losses["loss"], 2 * losses["rgb"] + 0.5 * losses["alpha"])
    losses["loss"].backward()
    assert objective.denoiser.unet.conv_in.weight.grad.abs().max() > 0


# The stage


def test_adapters_are_saved_and_merged(chain: Plan) -> None:
    folder = stage_path(chain, "unet") / "pipeline"
    state = StableDiffusionPipeline.lora_state_dict(folder / "lora", local_files_only=True)[0]
    assert state
    before = chain.ablations["micro"].ablation.experiment.model.denoiser().unet.state_dict()
    after = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert set(before) == set(after)
    assert changed
    assert all(name.endswith((".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight")) for name in changed)
    rows = read_jsonl(stage_path(chain, "unet") / "history.jsonl")
    assert {"latent", "rgb", "alpha"} <= set(rows[-1])
    # A micro chain holds objects out.
    assert {"trained_loss", "held_out_loss"} <= set(rows[-1])


def test_frozen_encoders_encode_each_image_once(chain: Plan, caplog: pytest.LogCaptureFixture) -> None:
    folder = StageFolder.open(stage_path(chain, "unet"))
    shard = folder.path / "conditions" / "shard-00000.safetensors"
    assert set(load_file(shard)) == {"latents", "embeddings"}
    trained = folder.upstream_folder("autodecoder")
    scenes, ids = autodecoder.training_scenes(trained)
    codec = trained.config.load_codec(trained.path / "model")
    network = folder.config.model.denoiser().requires_grad_(False)
    before = shard.stat().st_mtime_ns
    gathered = unet.gather(folder, codec, network, scenes, ids, torch.zeros(len(ids), 4, 6, 4))
    assert shard.stat().st_mtime_ns == before, "read, not computed again"
    image = scenes[ids[1]].condition(16)[None]
    with torch.no_grad():
        expected = network.condition(codec.condition_latent(image), image)
    assert gathered.embeddings is not None
    torch.testing.assert_close(gathered.embeddings[1], expected.embedding[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(gathered.latents[1], expected.latent[0], atol=1e-5, rtol=0)
    with caplog.at_level(logging.WARNING, "z1g"):
        again = unet.gather(folder, codec, network.requires_grad_(True), scenes, ids, torch.zeros(len(ids), 4, 6, 4))
    assert "frozen image encoder" in caplog.text
    assert again.embeddings is None
    assert again.images is not None
    torch.testing.assert_close(again.images[1], image[0], atol=0, rtol=0)


def test_encoded_codes_do_not_depend_on_the_batch(chain: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = StageFolder.open(stage_path(chain, "autodecoder"))
    scenes, _ = autodecoder.training_scenes(trained)
    codec = trained.config.load_codec(trained.path / "model")
    monkeypatch.setattr(codes, "BATCH", 3)
    actual = codes.encoded(codec, scenes)
    assert list(actual) == scenes.ids
    assert len(actual) % 3, "the last batch is smaller"
    for name in scenes.ids:
        with torch.no_grad():
            alone = codec.encode(input_mosaic(scenes[name], 16)[None])[0]
        torch.testing.assert_close(actual[name], alone, atol=1e-5, rtol=0)
    distance = torch.cdist(*[torch.stack(list(actual.values())).flatten(1)] * 2)
    assert float(distance[~torch.eye(len(actual), dtype=torch.bool)].min()) > 1e-3, "no two objects share a code"


# Codes of inference


def inferred(chain: Plan, tmp_path: Path, kind: Any) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    folder = StageFolder.open(stage_path(chain, "infer"))
    options = folder.config.infer.model_copy(update={"codes": kind})
    # A folder next to the real one, so that upstream stages are found.
    elsewhere = folder.path.parent / tmp_path.name
    changed = replace(folder, path=elsewhere, config=folder.config.model_copy(update={"infer": options}))
    infer.run(changed, chunk=0, threads=1)
    out = elsewhere / "chunk-00000"
    stored = load_file(out / "splats.safetensors")
    by_name = {name.removesuffix("/code"): value for name, value in stored.items() if name.endswith("/code")}
    return by_name, read_jsonl(out / "objects.jsonl")


@pytest.mark.slow
def test_codes_come_from_the_configured_source(chain: Plan, tmp_path: Path) -> None:
    true = load_file(stage_path(chain, "codes") / "codes.safetensors")
    cached, rows = inferred(chain, tmp_path / "cache", TrueCodes())
    assert {row["object"] for row in rows} == set(cached)
    assert {row["codes"] for row in rows} == {"cache"}
    encoded, _ = inferred(chain, tmp_path / "encoder", EncodedInputs())
    probed, _ = inferred(chain, tmp_path / "probe", NoisedCodes(coefficient=0.25))
    for name, code in cached.items():
        torch.testing.assert_close(code, true[name], atol=0, rtol=0)
        # This chain's codes are the encoder's means.
        torch.testing.assert_close(encoded[name], true[name], atol=1e-4, rtol=0)
        noise = torch.randn(code.shape, generator=torch_generator(0, int_hash(name)))
        torch.testing.assert_close(probed[name], code + 0.25 * noise, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_one_step_codes(chain: Plan, tmp_path: Path) -> None:
    """Close to the true code with almost no noise, far from it with noise only."""
    true = load_file(stage_path(chain, "codes") / "codes.safetensors")
    error = {}
    for timestep in (0, 999):
        actual, _ = inferred(chain, tmp_path / f"step{timestep}", OneStepCodes(timestep=timestep))
        error[timestep] = max(float((actual[name] - true[name]).abs().max() / true[name].std()) for name in actual)
    noise = 5 * float(NoiseSchedule().sigma[0])
    assert error[0] < noise < error[999]


def front_errors(chain: Plan, codes: dict[str, Tensor]) -> list[float]:
    """Squared errors of color and half of alpha's, of 128² pixels from the camera of each condition image, on gray."""
    trained = StageFolder.open(stage_path(chain, "autodecoder"))
    codec, (scenes, _) = trained.config.load_codec(trained.path / "model").eval(), training_scenes(trained)
    errors = []
    for name, code in sorted(codes.items()):
        scene = scenes[name]
        with torch.no_grad():
            gaussians = to_gaussians(codec.decode(code[None])).double()
            output = Reference().render(gaussians, scene.cameras([0], 128))
        rgba = torch.from_numpy(scene.rgba[[0]]).permute(0, 3, 1, 2).double() / 255
        premultiplied = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)
        true = torch.nn.functional.interpolate(premultiplied, (128, 128), mode="bilinear")[0]
        color = output.over(127 / 255)[0, 0] - (true[:3] + 127 / 255 * (1 - true[3:]))
        errors.append(float(color.square().mean() + 0.5 * (output.alpha[0, 0] - true[3:]).square().mean()))
    return errors


@pytest.mark.slow
def test_refined_codes_look_more_like_the_condition(chain: Plan, tmp_path: Path) -> None:
    sampled, _ = inferred(chain, tmp_path / "sampled", SampledCodes())
    refined, rows = inferred(chain, tmp_path / "refined", RefinedCodes(steps=8))
    assert {row["codes"] for row in rows} == {"refined"}
    before, after = front_errors(chain, sampled), front_errors(chain, refined)
    assert all(b < a for a, b in zip(before, after, strict=True)), (before, after)


def test_seeds_are_recorded(chain: Plan) -> None:
    rows = read_jsonl(stage_path(chain, "infer") / "chunk-00000" / "objects.jsonl")
    assert len({row["object_seed"] for row in rows}) == len(rows) >= 3
    assert {(row["seed"], row["codes"]) for row in rows} == {(0, "diffusion")}


def test_table_of_steps_and_guidance(chain: Plan) -> None:
    run = chain.results / "ablations" / "micro"
    figures = guidance.measure(run, [1, 2], [1.0, 3.0], None, 1, 2)
    names = [row["name"] for row in figures["rows"]]
    settings = [f"{steps} steps, guidance {guide}" for steps in (1, 2) for guide in (1, 3)]
    assert names == ["nearest", "mean_code", "autodecoder", *settings]
    assert all({"psnr", "ssim", "alpha_iou"} <= set(row) for row in figures["rows"])
    sampled = [row["psnr"] for row in figures["rows"][3:]]
    assert len(set(sampled)) == len(sampled), "each setting is another sample"
    with pytest.raises(UserError, match="no plan"):
        guidance.measure(run.parent, [1], [1.0], None, 1, 2)


# Shards


def test_shards_are_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("z1g.data.tensor_shards.SHARD", 2)
    computed: list[str] = []

    def make(names: Sequence[str]) -> dict[str, Tensor]:
        computed.extend(names)
        numbers = torch.tensor([int(name) for name in names])
        return {"double": 2.0 * numbers[:, None], "label": numbers}

    folder, ids = tmp_path / "cache", [str(i) for i in range(5)]
    first = remembered(folder, {"size": 1}, ids, make)
    assert first["double"].flatten().tolist() == [0, 2, 4, 6, 8]
    assert first["label"].tolist() == [0, 1, 2, 3, 4]
    assert sorted(file.name for file in folder.iterdir()) == [
        "key.json",
        *(f"shard-0000{i}.safetensors" for i in range(3)),
    ]
    again = remembered(folder, {"size": 1}, ids, make)
    torch.testing.assert_close(again, first)
    assert len(computed) == 5
    (folder / "shard-00001.safetensors").write_bytes(b"cut short")
    (folder / "shard-00002.safetensors").unlink()
    computed.clear()
    torch.testing.assert_close(remembered(folder, {"size": 1}, ids, make), first)
    assert computed == ["2", "3", "4"], "complete shards of a killed run are kept"
    computed.clear()
    with caplog.at_level(logging.WARNING, "z1g"):
        remembered(folder, {"size": 2}, ids[:3], make)
    assert "another ids, size" in caplog.text
    assert computed == ["0", "1", "2"]
    assert not (folder / "shard-00002.safetensors").exists()
