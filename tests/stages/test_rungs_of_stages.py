"""Both trained stages at rungs of successive halving, on synthetic objects."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.builders import fill, plan, stage_path, without_seconds

from z1g.cli import main as cli
from z1g.core.files import read_json, read_jsonl
from z1g.data.manifest import int_hash
from z1g.gaussians.channels import to_gaussians
from z1g.geometry.camera import Cameras
from z1g.inference.method import ImageToSplats
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.render.reference import Reference
from z1g.sampling.options import InferOptions
from z1g.sampling.samplers.ddim import Ddim
from z1g.stages import autodecoder, codes, unet
from z1g.stages.autodecoder import training_scenes
from z1g.training.checkpoint import CheckpointFolder

pytestmark = pytest.mark.slow
STAGES = {"autodecoder": autodecoder, "unet": unet}


def prepared(root: Path, stage: str) -> Plan:
    """A plan with the inputs of a stage."""
    planned = plan(root, unet={"train": {"ema": 0.5}})
    fill(planned)
    if stage == "unet":
        autodecoder.run(StageFolder.open(stage_path(planned, "autodecoder")), threads=1)
        codes.run(StageFolder.open(stage_path(planned, "codes")), threads=1)
    return planned


def outputs(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(folder)}:{name}": value
        for file in sorted(folder.glob("*/**/*.safetensors"))
        if file.relative_to(folder).parts[0] in ("model", "pipeline")
        for name, value in load_file(file).items()
    }


@pytest.mark.parametrize("stage", ["autodecoder", "unet"])
def test_a_stage_continues_from_its_rung(tmp_path: Path, stage: str) -> None:
    """And a rung of a run that was trained before is the same, without changing what that run left."""
    straight, stopped = (stage_path(prepared(tmp_path / name, stage), stage) for name in ("straight", "stopped"))
    for rung in ("0.1", "0.5"):
        assert cli.main([stage, str(stopped), "--threads", "1", "--until", rung]) == 0
    assert read_json(stopped / "rungs/0.5.json")["step"] == 3
    assert not list(stopped.glob("history.jsonl"))
    for folder in (straight, stopped):
        STAGES[stage].run(StageFolder.open(folder), threads=1)
    assert outputs(straight)
    torch.testing.assert_close(outputs(stopped), outputs(straight), atol=0, rtol=0)
    histories = [without_seconds(read_jsonl(folder / "history.jsonl")) for folder in (straight, stopped)]
    assert histories[0] == histories[1]

    checkpoints = CheckpointFolder(straight / "checkpoints").steps()
    STAGES[stage].run(StageFolder.open(straight), threads=1, until=0.5)
    assert read_json(straight / "rungs/0.5.json") == read_json(stopped / "rungs/0.5.json")
    assert CheckpointFolder(straight / "checkpoints").steps() == checkpoints
    assert [file.name for file in (straight / "rungs").iterdir()] == ["0.5.json"]


def test_a_rung_of_stage_2_measures_samples(tmp_path: Path) -> None:
    """Against the saved pipeline, the reference rasterizer and numpy."""
    planned = prepared(tmp_path, "unet")
    folder = StageFolder.open(stage_path(planned, "unet"))
    unet.run(folder, threads=1, until=1.0)
    unet.run(folder, threads=1)
    trained = folder.upstream_folder("autodecoder")
    scenes, ids = training_scenes(trained)
    method = ImageToSplats.from_folder(
        folder.path / "pipeline", InferOptions(sampler=Ddim(), steps=10, guidance=1.0, seed=0)
    )
    config, values = trained.config, []
    views = config.camera.validation_ids
    for name in ids:
        scene = scenes[name]
        _, splats = method(scene.condition(folder.config.unet.condition_size)[None], [int_hash(name)])
        side = scene.rgba.shape[1]
        cameras = Cameras(scene.c2w[views][None], config.camera.fov_y_deg, side, side)
        output = Reference().render(to_gaussians(splats.float()), cameras)
        drawn = output.over(torch.ones(3)[:, None, None])[0].numpy().astype(np.float64)
        rgba = scene.rgba[views].astype(np.float64) / 255
        truth = np.moveaxis(rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:], -1, 1)
        errors = ((drawn - truth) ** 2).mean(axis=(1, 2, 3))
        values.append(np.mean(-10 * np.log10(errors)))
    measured = read_json(folder.path / "rungs/1.json")["figures"]["validation_psnr"]
    assert measured == pytest.approx(float(np.mean(values)), abs=0.02)


def test_a_run_that_diverges_is_recorded_at_its_rung(tmp_path: Path) -> None:
    planned = plan(tmp_path, autodecoder={"train": {"steps": 40, "optimizer": {"lr": 1e3, "clip_norm": 1e9}}})
    fill(planned)
    folder = StageFolder.open(stage_path(planned, "autodecoder"))
    autodecoder.run(folder, threads=1, until=0.9)
    assert read_json(folder.path / "rungs/0.9.json")["figures"] is None
