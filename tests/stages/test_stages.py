"""Scenes, the fit, and the chain of stages on synthetic data: outputs, and behavior with missing objects."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.builders import BALL_RADIUS, OBJECTS, SIZES, ball, fill, forget_checksums, input_mosaic, plan, stage_path
from support.running import run_stages
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.files import read_json, read_jsonl
from z1g.data.scenes import Scene, SceneStore, as_scene
from z1g.fitting.depth import DepthStart
from z1g.gaussians import ply
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, to_opengl, view_frame
from z1g.geometry.mosaic import untile
from z1g.inference.method import ImageToSplats
from z1g.networks.weights.scratch import Scratch
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.representations import Mosaic
from z1g.stages import autodecoder, codes, fit, infer, metrics, unet

CAMERA = CameraOptions(train_views=6, validation_views=2, test_views=2)
SIZE = 24
SOURCES = {"sampled", "autodecoder", "mean_code", "nearest", "fitted"}


@pytest.fixture(scope="module")
def scene() -> Scene:
    return as_scene(ball("globe", CAMERA, 48), CAMERA.radius)


# Scenes


def test_scenes_are_in_the_view_1_frame(scene: Scene) -> None:
    home = np.eye(4)
    home[2, 3] = CAMERA.radius
    np.testing.assert_allclose(to_opengl(scene.c2w[1].double().numpy()), home, atol=1e-5)


def encoder_input(scene: Scene, size: int) -> Tensor:
    codec = Mosaic(input_size=size).new_codec(Scratch(**SIZES), CAMERA, SplatOptions(size=8))
    rgb, alpha = scene.images(list(INPUT_VIEWS))
    return codec.inputs(rgb[None], alpha[None], None)[0]


def test_input_mosaic(scene: Scene) -> None:
    views = untile(encoder_input(scene, 48)[None])[0]
    for i, view in enumerate(INPUT_VIEWS):
        rgba = scene.rgba[view].astype(np.float64) / 255
        expected = rgba[..., :3] * rgba[..., 3:] + 0.5 * (1 - rgba[..., 3:])
        np.testing.assert_allclose(views[i].permute(1, 2, 0).numpy(), expected, atol=1e-6)
    assert encoder_input(scene, 16).shape == (3, 48, 32)
    torch.testing.assert_close(encoder_input(scene, 16), input_mosaic(scene, 16))


def test_condition_background_is_gray_127(scene: Scene) -> None:
    assert scene.condition(48)[:, 0, 0].tolist() == pytest.approx([127 / 255] * 3)
    assert scene.condition(16).shape == (3, 16, 16)
    inside = scene.rgba[0, 24, 24, :3] / 255
    np.testing.assert_allclose(scene.condition(48)[:, 24, 24].numpy(), inside, atol=1e-6)


def test_store_keeps_manifest_order_and_splats(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    fill(planned, skip=(OBJECTS[1],))
    ablation = planned.ablations["micro"]
    store = SceneStore(ablation.manifest, 1.5, stage_path(planned, "ingest"), stage_path(planned, "fit"))
    assert store.ids == [OBJECTS[0], OBJECTS[2], OBJECTS[3]]
    assert store.n_missing == 1
    splats = store[OBJECTS[2]].splats
    assert splats is not None
    torch.testing.assert_close(splats, load_file(stage_path(planned, "fit") / "chunk-00001.safetensors")[OBJECTS[2]])


# The fit


def test_depth_start_is_on_the_surface(scene: Scene) -> None:
    splats = DepthStart(sink=0.0).splats(scene, [*INPUT_VIEWS], SIZE)
    covered = splats[:, 3] > 0.5
    distance = splats[:, :3].norm(dim=1)[covered]
    torch.testing.assert_close(distance, torch.full_like(distance, BALL_RADIUS), atol=0.02, rtol=0)
    assert 0.05 < covered.float().mean() < 0.5


# The chain


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The chain with optimized codes; one of five objects is missing."""
    planned = plan(
        tmp_path_factory.mktemp("chain"),
        n_objects=5,
        autodecoder={"codes": {"kind": "optimized"}, "test_steps": 8},
        infer={"train_objects": 2},
    )
    fill(planned, skip=(OBJECTS[2],))
    run_stages(planned, fit, autodecoder, codes, unet, infer, metrics)
    return planned


def test_fit_writes_splats_and_a_table(chain: Plan) -> None:
    folder = stage_path(chain, "fit")
    rows = [row for chunk in range(3) for row in read_jsonl(folder / f"chunk-{chunk:05d}.jsonl")]
    assert [row["id"] for row in rows] == [OBJECTS[0], OBJECTS[1], OBJECTS[3], OBJECTS[4]]
    assert {row["status"] for row in rows} == {"ok"}
    assert all(math.isfinite(row["psnr"]) for row in rows)
    splats = load_file(folder / "chunk-00000.safetensors")
    assert {name: tuple(s.shape) for name, s in splats.items()} == dict.fromkeys(OBJECTS[:2], (6, 14, 8, 8))
    assert Image.open(folder / "chunk-00000.png").size == (6 * 16, 2 * 16)


def splits(planned: Plan) -> dict[str, str]:
    ablation = planned.ablations["micro"]
    return dict(ablation.manifest.splits(ablation.ablation.experiment.data.split))


def test_every_object_has_a_code(chain: Plan) -> None:
    written = load_file(stage_path(chain, "codes") / "codes.safetensors")
    trained = load_file(stage_path(chain, "autodecoder") / "model" / "codes.safetensors")
    assert sorted(written) == [OBJECTS[0], OBJECTS[1], OBJECTS[3], OBJECTS[4]]
    assert sorted(trained) == [name for name in sorted(written) if splits(chain)[name] == "train"]
    for name, code in trained.items():
        torch.testing.assert_close(written[name], code, atol=0, rtol=0)
    assert all(bool(code.isfinite().all()) for code in written.values())


@pytest.mark.slow
def test_code_search_lowers_the_loss(chain: Plan) -> None:
    folder = StageFolder.open(stage_path(chain, "autodecoder"))
    scenes, ids = autodecoder.training_scenes(folder)
    codec = folder.config.load_codec(folder.path / "model")
    trained_codes = load_file(folder.path / "model" / "codes.safetensors")
    mean = torch.stack([trained_codes[name] for name in ids]).mean(dim=0)
    name = next(name for name in scenes.ids if name not in ids)
    search = codes.CodeSearch(folder.config, codec, scenes, scenes.ids, lr=0.05, steps=25)
    objective = search.objective

    def loss(code: torch.Tensor) -> float:
        batch = search._batch([name], 999, torch.device("cpu"))
        pair = objective.compare(objective.codec.decode(code[None]), batch)
        return float(codes.weighted_sum(objective.options.losses, pair)[0])

    actual = search({name: mean})[name]
    torch.testing.assert_close(search({name: mean})[name], actual, atol=0, rtol=0)
    with torch.no_grad():
        assert loss(actual) < loss(mean)
    # An object's code does not depend on the other objects of the batch.
    together = search(dict.fromkeys([*ids, name], mean))
    torch.testing.assert_close(together[name], actual, atol=1e-3, rtol=0)


def test_infer_outputs(chain: Plan) -> None:
    folder = stage_path(chain, "infer") / "chunk-00000"
    stored = load_file(folder / "splats.safetensors")
    names = sorted({key.split("/")[0] for key in stored})
    assert len(names) >= 2
    assert set(names) >= {name for name, split in splits(chain).items() if split == "test"} - {OBJECTS[2]}
    config = chain.ablations["micro"].ablation.experiment
    to_world = np.linalg.inv(view_frame(config.camera.poses(0), config.camera.radius))
    for name in names:
        splats = stored[f"{name}/splats"]
        assert splats.shape == (6, 14, 8, 8)
        assert stored[f"{name}/code"].shape == (4, 24, 16)
        gaussians = ply.read(folder / f"{name}.ply", to_world)
        torch.testing.assert_close(
            gaussians[:, :3], splats.permute(0, 2, 3, 1).reshape(-1, 14)[:, :3], atol=1e-5, rtol=0
        )
        assert Image.open(folder / f"{name}.sheet.png").size == (2 * 16, 3 * 16)
        assert Image.open(folder / f"{name}.turntable.webp").n_frames == 2


def test_infer_does_not_depend_on_its_batch(chain: Plan, tmp_path: Path) -> None:
    folder = StageFolder.open(stage_path(chain, "infer"))
    options = folder.config.infer.model_copy(update={"batch_size": 1})
    alone = replace(folder, config=folder.config.model_copy(update={"infer": options}))
    method = ImageToSplats.from_stage(folder)
    assert ImageToSplats.from_stage(alone).options.batch_size == 1
    scenes, _ = autodecoder.training_scenes(folder.upstream_folder("autodecoder"))
    images = torch.stack([scenes[name].condition(16) for name in scenes.ids[:2]])
    together, _ = method(images, [1, 2])
    separate = torch.cat([method(images[i : i + 1], [i + 1])[0] for i in (0, 1)])
    torch.testing.assert_close(together, separate, atol=1e-4, rtol=0)


def test_metrics_have_a_row_for_each_object_source_and_view(chain: Plan) -> None:
    folder = stage_path(chain, "metrics")
    rows = read_jsonl(folder / "metrics.jsonl")
    sampled = {
        key.split("/")[0] for key in load_file(stage_path(chain, "infer") / "chunk-00000" / "splats.safetensors")
    }
    keys = [(row["object"], row["source"], row["view"]) for row in rows]
    assert all(0 <= row["azimuth_deg"] <= 180 for row in rows)
    views = list(chain.ablations["micro"].ablation.experiment.camera.test_ids)
    assert sorted(keys) == sorted((name, source, view) for name in sampled for source in SOURCES for view in views)
    assert all(splits(chain)[row["object"]] == row["split"] for row in rows)
    about = read_json(folder / "metrics.json")
    scopes = {name: info["scope"] for name, info in about["metrics"].items()}
    assert scopes == {
        "psnr": "view", "ssim": "view", "alpha_iou": "view", "depth_error": "object", "chamfer": "object",
        "f_score": "object", "fd_efflite0": "set",
    }  # fmt: skip
    assert all(isinstance(row[name], float) for row in rows for name, scope in scopes.items() if scope == "view")
    objects = read_jsonl(folder / "objects.jsonl")
    assert sorted((row["object"], row["source"]) for row in objects) == sorted((n, s) for n in sampled for s in SOURCES)
    assert {(row["split"], row["source"]) for row in about["sets"]} == {(r["split"], r["source"]) for r in objects}
    assert all(row["fd_efflite0"] > 0 for row in about["sets"])
    # The synthetic objects were not rendered by Blender, so the transforms of their meshes are unknown.
    assert set(about["gaps"]["chamfer"].values()) == {"its data source has renders only, no mesh"}
    assert all(row["chamfer"] is None for row in objects)
    assert set(about["truth"]) == sampled
    images = {file.name for file in (folder / "images").iterdir()}
    assert {f"{name}.{what}.png" for name in sampled for what in (*SOURCES, "condition", "truth")} == images


def test_validation_is_logged(chain: Plan) -> None:
    rows = read_jsonl(stage_path(chain, "autodecoder") / "history.jsonl")
    assert rows[-1]["step"] == 6
    assert math.isfinite(rows[-1]["validation_psnr"])
    assert {"loss", "rgb", "alpha", "splat", "gradient_norm", "lr", "seconds"} <= set(rows[0])
    assert list((stage_path(chain, "autodecoder") / "tb").glob("events*"))


def test_codes_of_another_run(chain: Plan, tmp_path: Path) -> None:
    """Cached codes are used unchanged, including those of test objects."""
    file = stage_path(chain, "codes") / "codes.safetensors"
    cached = plan(tmp_path, n_objects=5, autodecoder={"codes": {"kind": "cache", "path": str(file)}})
    fill(cached, skip=(OBJECTS[2],))
    run_stages(cached, autodecoder, codes)
    written = load_file(stage_path(cached, "codes") / "codes.safetensors")
    torch.testing.assert_close(written, load_file(file), atol=0, rtol=0)


def test_encoder_codes_are_posterior_means(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    fill(planned)
    run_stages(planned, autodecoder, codes)
    folder = StageFolder.open(stage_path(planned, "autodecoder"))
    scenes, _ = autodecoder.training_scenes(folder)
    codec = folder.config.load_codec(folder.path / "model")
    written = load_file(stage_path(planned, "codes") / "codes.safetensors")
    for name in scenes.ids:
        expected = codec.encode(input_mosaic(scenes[name], 16)[None])[0]
        torch.testing.assert_close(written[name], expected)


def test_too_many_missing_objects_stop_training(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    fill(planned, skip=(OBJECTS[0], OBJECTS[1]))
    with pytest.raises(UserError, match=r"2 of 4 objects failed.*max_quarantined 0\.2.*jsonl"):
        run_stages(planned, autodecoder)


def test_no_training_object_is_explained(tmp_path: Path) -> None:
    planned = plan(tmp_path, data={"max_quarantined": 1.0})
    train = [name for name, split in splits(planned).items() if split == "train"]
    fill(planned, skip=tuple(train))
    with pytest.raises(UserError, match="no training object is left"):
        run_stages(planned, autodecoder)


def test_a_folder_of_another_version_is_explained(tmp_path: Path) -> None:
    folder = stage_path(plan(tmp_path), "fit")
    file = folder / "stage.json"
    record = {key: value for key, value in read_json(file).items() if key != "checksum"}
    file.write_text(json.dumps(record).replace('"views_per_step"', '"views_a_step"'))
    with pytest.raises(UserError, match="written by another version of z1g"):
        StageFolder.open(folder)


@pytest.mark.parametrize(
    ("stage", "file", "key", "source"),
    [
        ("infer", "chunk-00000/splats.safetensors", "{}/splats", "sampled"),
        ("codes", "codes.safetensors", "{}", "autodecoder"),
        ("fit", "chunk-*.safetensors", "{}", "fitted"),
    ],
)
def test_metrics_of_splats_that_are_not_finite_are_refused(
    chain: Plan, tmp_path: Path, stage: str, file: str, key: str, source: str
) -> None:
    shutil.copytree(chain.results, tmp_path / "results")
    copied = Plan([planned.ablation for planned in chain.ablations.values()], tmp_path / "results")
    name = next(name for name, split in splits(chain).items() if split == "test" and name != OBJECTS[2])
    shutil.rmtree(stage_path(copied, "metrics"))
    copied.write()
    for path in stage_path(copied, stage).glob(file):
        tensors = load_file(path)
        if key.format(name) in tensors:
            tensors[key.format(name)].view(-1)[3] = float("nan")
            save_file(tensors, path)
    forget_checksums(stage_path(copied, stage))
    folder = re.escape(str(stage_path(copied, stage)))
    with pytest.raises(
        UserError, match=rf"{folder}: {source} splats of {name}: \d+ of 384 Gaussians contain .*not finite"
    ):
        run_stages(copied, metrics)
    assert not (stage_path(copied, "metrics") / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("chunk-00000/splats.safetensors", r"/chunk-00000/splats\.safetensors is .*No such file.* make it again"),
        ("chunk-00000", r" has no samples of \S+: a chunk of it is lost; start `snakemake` again"),
    ],
)
def test_lost_samples_are_named_with_what_to_do(chain: Plan, tmp_path: Path, lost: str, message: str) -> None:
    shutil.copytree(chain.results, tmp_path / "results")
    copied = Plan([planned.ablation for planned in chain.ablations.values()], tmp_path / "results")
    shutil.rmtree(stage_path(copied, "metrics"))
    copied.write()
    infer_folder = stage_path(copied, "infer")
    path = infer_folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=re.escape(str(infer_folder)) + message):
        run_stages(copied, metrics)


def test_samples_that_are_not_finite_are_refused(chain: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(chain.results, tmp_path / "results")
    copied = Plan([planned.ablation for planned in chain.ablations.values()], tmp_path / "results")
    shutil.rmtree(stage_path(copied, "infer") / "chunk-00000")
    decode = ImageToSplats.decode

    def broken(self: ImageToSplats, written: torch.Tensor) -> torch.Tensor:
        splats = decode(self, written)
        splats[0, 2, 1, 3, 3] = float("nan")
        return splats

    monkeypatch.setattr(ImageToSplats, "decode", broken)
    with pytest.raises(
        UserError, match=r"splats of object\d-\w+: 1 of 384 Gaussians contain .*not finite \(position\)"
    ):
        run_stages(copied, infer)
    assert not list(stage_path(copied, "infer").glob("chunk-*"))
