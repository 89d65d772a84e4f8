"""Attribute images through all stages at micro size, with training in two phases, and as a model that travels."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.builders import fill, plan, stage_path, without_seconds
from support.ddp_cases import fork_ranks, stages_on_cpu
from support.finished import finish
from support.photographs import disc, saved
from support.running import interrupted, run_stages
from torch import Tensor

from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.core.files import read_json, read_jsonl
from z1g.gaussians import files as splat_files
from z1g.geometry.camera import INPUT_VIEWS
from z1g.inference.method import ImageToSplats
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.representations.attributes.mappings import Mappings
from z1g.sampling.options import InferOptions
from z1g.sampling.samplers import KINDS
from z1g.stages import autodecoder, codes, infer, metrics, unet
from z1g.training.loop import one_precision_each

VIEWS = len(INPUT_VIEWS)
PHASES: dict[str, Any] = {
    "kind": "attributes",
    "denoiser": {"alone_share": 0.5, "prediction": "epsilon", "betas": "scaled_linear"},
}
"""The published form, with training in two phases."""
LOSS: dict[str, Any] = {"losses": {"latent": {"weighting": "min_snr"}}}


def planned(root: Path, representation: dict[str, Any] | None = None, **changes: Any) -> Plan:
    made = plan(root, representation=representation or PHASES, **{"unet": LOSS, **changes})
    fill(made)
    return made


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """All stages after the fit."""
    made = planned(tmp_path_factory.mktemp("chain"))
    run_stages(made, autodecoder, codes, unet, infer, metrics)
    return made


def test_codes_are_latents_of_the_fits(chain: Plan) -> None:
    stored = load_file(stage_path(chain, "codes") / "codes.safetensors")
    assert {tuple(code.shape) for code in stored.values()} == {(5 * VIEWS, 4, 4, 4)}
    folder = StageFolder.open(stage_path(chain, "autodecoder"))
    codec = folder.config.load_codec(folder.path / "model")
    for file in stage_path(chain, "fit").glob("*.safetensors"):
        for name, splats in load_file(file).items():
            images = Mappings().images(splats[None])
            latents = codec.vae.encode(images.flatten(0, 2)).latent_dist.mode() * codec.vae.config.scaling_factor
            torch.testing.assert_close(stored[name], latents, atol=1e-5, rtol=0)


def test_stage_1_trains_by_errors_of_images_and_renders(chain: Plan) -> None:
    rows = [row for row in read_jsonl(stage_path(chain, "autodecoder") / "history.jsonl") if "loss" in row]
    names = [f"l1_{name}" for name in Mappings().names]
    for row in rows:
        assert all(row[name] > 0 for name in names)
        assert row["loss"] > sum(row[name] for name in names)
        assert {"rgb", "alpha"} <= row.keys()


def test_every_source_is_measured(chain: Plan) -> None:
    rows = read_jsonl(stage_path(chain, "metrics") / "metrics.jsonl")
    assert {row["source"] for row in rows} == {"sampled", "autodecoder", "mean_code", "nearest", "fitted"}
    assert all(row["psnr"] is not None for row in rows)


@pytest.mark.parametrize("sampler", KINDS)
def test_all_samplers_sample(chain: Plan, sampler: Any) -> None:
    folder = stage_path(chain, "unet") / "pipeline"
    options = InferOptions(sampler=sampler(), steps=3, guidance=2.0)
    method = ImageToSplats.from_folder(folder, options)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    sampled, splats = method(images, [3, 4])
    assert sampled.shape == (2, 5 * VIEWS, 4, 4, 4)
    assert splats.shape == (2, VIEWS, 14, 8, 8)
    assert splats.isfinite().all()
    alone, _ = method(images[1:], [4])
    torch.testing.assert_close(alone[0], sampled[1], atol=1e-2, rtol=1e-3)


# Training


def tensors(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.rglob("*.safetensors"))
    assert files
    return {f"{file.relative_to(folder)}:{name}": v for file in files for name, v in load_file(file).items()}


def history(folder: Path) -> list[dict[str, Any]]:
    return without_seconds(read_jsonl(folder / "history.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 2, 4])
def test_training_resumes_in_its_phase(tmp_path: Path, after: int) -> None:
    """In the first phase, at the switch, and in the second phase; bit for bit."""
    folders = []
    for name in ("whole", "part"):
        made = planned(tmp_path / name, unet={**LOSS, "train": {"checkpoint_every": 1, "ema": 0.8}})
        run_stages(made, autodecoder, codes)
        folders.append(stage_path(made, "unet"))
    with interrupted(after=after):
        unet.run(StageFolder.open(folders[1]), threads=1)
    for folder in folders:
        unet.run(StageFolder.open(folder), threads=1)
    torch.testing.assert_close(*(tensors(folder / "pipeline") for folder in folders), atol=0, rtol=0)
    assert history(folders[0]) == history(folders[1])


@pytest.mark.slow
def test_two_ranks_train_the_weights_of_one(tmp_path: Path) -> None:
    """Through both phases, whose passes reach different weights."""
    folders = []
    for name in ("one", "two"):
        made = planned(tmp_path / name)
        run_stages(made, autodecoder, codes)
        folders.append(stage_path(made, "unet"))
    unet.run(StageFolder.open(folders[0]), threads=1)
    fork_ranks(2, stages_on_cpu, str(folders[1]))
    torch.testing.assert_close(*(tensors(folder / "pipeline") for folder in folders), atol=2e-5, rtol=0)


def unet_after(root: Path, alone_steps: int, steps: int = 3) -> dict[str, Tensor]:
    """Weights of the UNet after training with phases of these lengths."""
    denoiser = {"alone_share": alone_steps / steps, "timestep_jitter": 0}
    train = {"steps": steps, "schedule": {"kind": "constant"}, "optimizer": {"weight_decay": 0.0}}
    made = planned(root, {"kind": "attributes", "denoiser": denoiser}, unet={**LOSS, "train": train})
    run_stages(made, autodecoder, codes, unet)
    return load_file(stage_path(made, "unet") / "pipeline/unet/diffusion_pytorch_model.safetensors")


@pytest.mark.slow
def test_alone_attributes_do_not_train_the_attention_across_them(tmp_path: Path) -> None:
    weights = {alone: unet_after(tmp_path / str(alone), alone) for alone in (0, 2, 3)}
    zero = [name for name in weights[3] if "attn_attributes.to_out.0" in name]
    assert zero
    assert all(weights[3][name].abs().sum() == 0 for name in zero), "all steps were of the first phase"
    assert any(weights[2][name].abs().sum() > 0 for name in zero), "one step was of the second phase"
    others = [name for name in weights[3] if "attn1.to_q" in name]
    assert any(not torch.equal(weights[0][name], weights[3][name]) for name in others)


def test_options_of_stage_2_leave_stage_1(tmp_path: Path) -> None:
    """Ablations of the denoiser share the decoder and the codes."""
    variants = [{}, {"rotary": False}, {"prediction": "epsilon", "betas": "scaled_linear"}, {"alone_share": 0.6}]
    plans = [plan(tmp_path, representation={"kind": "attributes", "denoiser": denoiser}) for denoiser in variants]
    for stage, different in (("autodecoder", 1), ("codes", 1), ("unet", 4), ("infer", 4)):
        assert len({stage_path(made, stage) for made in plans}) == different, stage
    other = plan(tmp_path, representation={"kind": "attributes", "mappings": {"scale": "linear"}})
    assert stage_path(other, "autodecoder") != stage_path(plans[0], "autodecoder")
    assert stage_path(other, "fit") == stage_path(plans[0], "fit")


def test_mixed_diffusion_has_the_whole_denoiser(tmp_path: Path) -> None:
    """Stage 1 then depends on it."""
    mixed = {"mix_diffusion": {"interval": 1}}
    plans = [
        plan(tmp_path, autodecoder=mixed, representation={"kind": "attributes", "denoiser": {"rotary": rotary}})
        for rotary in (False, True)
    ]
    assert len({stage_path(made, "autodecoder") for made in plans}) == 2
    fill(plans[0])
    run_stages(plans[0], autodecoder, codes, unet)
    assert all(row["loss"] > 0 for row in history(stage_path(plans[0], "autodecoder")) if "loss" in row)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("representation", "other"),
    [
        ({"encoding": "sheet", "denoiser": {"cross_attribute": False, "prediction": "v"}}, {}),
        ({"mappings": {"rotation": "none", "opacity": "linear"}}, {"finetune": {"kind": "full"}}),
        ({"l1": 0.0, "denoiser": {"timestep_jitter": 0}}, {"rendered": {"views": 1}, "train": {"micro_batch": 1}}),
        ({"denoiser": {"cascade": ["position", "opacity"]}}, {"train": {"ema": 0.9}}),
        ({}, {"objective": "regression", "losses": {"latent": {"weighting": "x0"}}}),
    ],
)
def test_other_options_run_through(tmp_path: Path, representation: dict[str, Any], other: dict[str, Any]) -> None:
    made = planned(tmp_path, {"kind": "attributes", **representation}, unet={**LOSS, **other})
    run_stages(made, autodecoder, codes, unet, infer)
    for file in stage_path(made, "infer").rglob("splats.safetensors"):
        assert all(value.isfinite().all() for value in load_file(file).values())


@pytest.mark.slow
def test_training_in_bf16_is_nearly_the_same(tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        made = planned(tmp_path / precision, unet={**LOSS, "train": {"precision": precision}})
        run_stages(made, autodecoder, codes)
        # A process has one precision otherwise.
        one_precision_each()
        unet.run(StageFolder.open(stage_path(made, "unet")), threads=1)
        one_precision_each()
        losses.append([row["loss"] for row in history(stage_path(made, "unet"))])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_renders_need_whole_codes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="alone_share"):
        plan(tmp_path, representation=PHASES, unet={"rendered": {"views": 1}})


# Clipping


def test_clipped_gaussians_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "z1g")
    made = planned(tmp_path, {"kind": "attributes", "mappings": {"scale_logs": [-10, -3]}})
    run_stages(made, autodecoder)
    folder = StageFolder.open(stage_path(made, "autodecoder"))
    scenes, ids = autodecoder.training_scenes(folder)
    splats = torch.stack([image for name in ids if (image := scenes.splats(name)) is not None])
    drawn = splats[:, :, 3] > 1 / 255
    outside = (splats[:, :, 4:7].double().log() > -3).any(dim=2) & drawn
    stored = read_json(folder.path / "model/clipping.json")
    assert stored["objects"] == len(ids)
    assert stored["counts"]["drawn"] == int(drawn.sum())
    assert stored["counts"]["scale"] == int(outside.sum()) > 0
    assert stored["counts"]["position"] == 0
    assert f"scale {100 * int(outside.sum()) / int(drawn.sum()):.2g} %" in caplog.text


# A model that travels


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    finish(root, representation=PHASES, unet=LOSS, metrics={"metrics": {"fd_efflite0": None, "chamfer": None}})
    return root / "results/ablations/micro"


@pytest.mark.slow
def test_a_run_is_packed_and_gives_its_splats(run: Path, tmp_path: Path) -> None:
    photograph = str(saved(tmp_path, disc(), "a.png"))
    for weights in ("int8", "float32"):
        assert main(["pack", str(run), "--weights", weights, "--out", str(tmp_path / weights)]) == 0
    for name, words in {
        "run": ["--run", str(run)],
        "float32": ["--model", str(tmp_path / "float32")],
        "int8": ["--model", str(tmp_path / "int8")],
    }.items():
        out = tmp_path / "out" / name
        assert main(["infer", photograph, *words, "--out", str(out), "--size", "32"]) == 0
    whole, exact, rounded = (splat_files.read(tmp_path / f"out/{name}/a.ply") for name in ("run", "float32", "int8"))
    assert torch.equal(whole, exact)
    assert (exact - rounded).norm() < 0.2 * exact.norm()
    model = json.loads((tmp_path / "float32/pipeline/stage1.json").read_text())
    assert model["representation"]["denoiser"]["alone_share"] == 0.5


@pytest.mark.slow
def test_card_and_verification(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = (run / "MODEL_CARD.md").read_text()
    assert "Of the Gaussians of 2 training objects that are drawn" in card
    assert main(["verify", str(run), "--sample", "1"]) == 0
    assert "micro holds" in capsys.readouterr().out


@pytest.mark.slow
def test_a_packed_model_is_finetuned(run: Path, tmp_path: Path) -> None:
    """It brings its representation, with the form of its denoiser."""
    model = tmp_path / "model"
    assert main(["pack", str(run), "--weights", "float32", "--out", str(model)]) == 0
    start: dict[str, Any] = {"model": {"kind": "trained", "pretrained": str(model)}}
    made = plan(tmp_path, **start, representation=PHASES, splat={"size": 8}, unet={**LOSS, "normalize_codes": False})
    fill(made)
    config = made.ablations["micro"].ablation.experiment
    before = load_file(model / "pipeline/unet/diffusion_pytorch_model.safetensors")
    torch.testing.assert_close(config.new_denoiser().unet.state_dict(), before)
    run_stages(made, autodecoder, codes, unet, infer)
    after = load_file(stage_path(made, "unet") / "pipeline/unet/diffusion_pytorch_model.safetensors")
    assert after.keys() == before.keys()
    assert any(not torch.equal(after[name], before[name]) for name in after)


def test_a_damaged_model_is_named(chain: Plan, tmp_path: Path) -> None:
    made = planned(tmp_path)
    run_stages(made, autodecoder, codes, unet)
    file = stage_path(made, "unet") / "pipeline/unet/diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"diffusion_pytorch_model\.safetensors is damaged"):
        ImageToSplats.from_folder(file.parent.parent, InferOptions(steps=1))
