"""Samples of stage 1: caches on the device, in memory and none give the images of the scenes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.builders import (
    OBJECTS,
    ball,
    ball_splats,
    experiment,
    fill,
    input_mosaic,
    plan,
    stage_path,
    without_seconds,
)

from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.core.files import read_jsonl
from z1g.data import bank
from z1g.data.bank import SceneBank, StoredViews, placed
from z1g.data.condition_form import ConditionForm
from z1g.data.scenes import Scene, as_scene
from z1g.geometry.camera import INPUT_VIEWS
from z1g.objectives.samples import AutodecoderSamples, gathered, images
from z1g.plan.folder import StageFolder
from z1g.stages import autodecoder
from z1g.training.data import Draw

CPU = torch.device("cpu")


class Objects(dict[str, Scene]):
    """Scenes in memory."""

    def views(self, name: str, views: Sequence[int]) -> Scene:
        return self[name].only(views)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return experiment(tmp_path_factory.mktemp("meshes"))


@pytest.fixture(scope="module")
def scenes(config: Experiment) -> Objects:
    radius = config.camera.radius
    return Objects(
        {name: as_scene(ball(name, config.camera, 20), radius, ball_splats(name, 8)) for name in OBJECTS[:3]}
    )


@pytest.mark.parametrize("cache", ["device", "host", "none"])
@pytest.mark.parametrize("condition", [None, 24])
def test_samples_are_the_scenes_images(
    cache: Any, condition: int | None, config: Experiment, scenes: dict[str, Scene]
) -> None:
    """Every tensor of a batch against the scene's own tensors for the drawn views."""
    views, device_bank = bank.provide(cache, scenes, list(scenes), CPU)
    assert (device_bank is not None) == (cache == "device")
    samples = AutodecoderSamples(config, views)
    draws = [Draw(i, 0, (7, 3, i)) for i in (2, 0, 1, 2)]
    drawn = AutodecoderSamples(config, None)
    raw = [samples(draw) for draw in draws]
    batch = {name: torch.stack([sample[name] for sample in raw]) for name in raw[0]}
    batch["object_index"] = torch.tensor([draw.object_index for draw in draws])
    codec = experiment(Path("unused")).new_codec()
    ready = images(gathered(batch, device_bank), codec.inputs, condition and ConditionForm(condition))
    assert {"views", "rgba"}.isdisjoint(ready)
    for row, draw in enumerate(draws):
        scene = scenes[OBJECTS[draw.object_index]]
        chosen = drawn(draw)["views"].tolist()
        assert chosen[:7] == list(range(7))
        assert set(chosen[7:]) <= set(config.camera.train_ids)
        rgb, alpha = scene.images(chosen[7:])
        expected = {"rgb": rgb, "alpha": alpha, "c2w": scene.c2w[chosen[7:]], "inputs": input_mosaic(scene, 16)}
        expected["splats"] = torch.as_tensor(scene.splats)
        if condition:
            expected["condition"] = scene.condition(condition)
        for name, value in expected.items():
            torch.testing.assert_close(ready[name][row], value, atol=1e-6, rtol=0, msg=name)
    assert ("condition" in ready) == bool(condition)


def test_losses_may_see_every_view_as_in_the_original(config: Experiment, tmp_path: Path) -> None:
    every = experiment(tmp_path, autodecoder={"loss_views": "all", "views": 3})
    samples = AutodecoderSamples(every, None)
    drawn = [samples(Draw(0, 0, (1, 2, i)))["views"].tolist()[7:] for i in range(200)]
    assert all(len(set(views)) == 3 for views in drawn)
    n = 1 + 6 + every.camera.train_views + every.camera.validation_views + every.camera.test_views
    assert {view for views in drawn for view in views} == set(range(n))


def test_rendered_inputs_come_first(scenes: dict[str, Scene], tmp_path: Path) -> None:
    config = experiment(tmp_path, autodecoder={"render_inputs": True, "random_background": False})
    sample = AutodecoderSamples(config, None)(Draw(0, 0, (1, 2, 3)))
    assert sample["views"].tolist()[7:13] == list(INPUT_VIEWS)
    assert sample["background"].flatten().tolist() == [0.5] * 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["optimized", "encoder"])
def test_training_does_not_depend_on_the_cache(kind: str, tmp_path: Path) -> None:
    ended = {}
    for cache in ("device", "host", "none"):
        planned = plan(tmp_path / cache, autodecoder={"codes": {"kind": kind}, "train": {"cache": cache, "steps": 3}})
        fill(planned)
        folder = stage_path(planned, "autodecoder")
        autodecoder.run(StageFolder.open(folder), threads=1)
        files = sorted((folder / "model").rglob("*.safetensors"))
        weights = {f"{file.name}:{name}": value for file in files for name, value in load_file(file).items()}
        ended[cache] = weights, without_seconds(read_jsonl(folder / "history.jsonl"))
    for cache in ("host", "none"):
        torch.testing.assert_close(ended[cache][0], ended["device"][0], atol=0, rtol=0)
        assert ended[cache][1] == ended["device"][1]


def test_auto_uses_the_first_place_with_enough_memory(
    scenes: dict[str, Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = scenes[OBJECTS[0]]
    pages = {"SC_AVPHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(bank.os, "sysconf", pages.__getitem__)
    each = scene.rgba.nbytes + 6 * 14 * 8 * 8 * 4
    fits = int(0.5 * 1000 * 4096 / each)
    assert placed("auto", scene, fits - 1, CPU) == "host"
    assert placed("auto", scene, fits + 1, CPU) == "none"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert placed("auto", scene, fits - 1, CPU) == "none"
    assert placed("device", scene, 10**9, CPU) == "device"
    monkeypatch.setattr(bank.torch.cuda, "mem_get_info", lambda _: (10 * each, 20 * each))
    assert placed("auto", scene, 3, torch.device("cuda")) == "device"
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert placed("auto", scene, 5, torch.device("cuda")) == "host"


def test_images_of_two_sizes(config: Experiment, scenes: dict[str, Scene]) -> None:
    odd = as_scene(ball(OBJECTS[5], config.camera, 12), config.camera.radius)
    with pytest.raises(UserError, match=rf"{OBJECTS[5]} has images .*12, 12.*cache: none"):
        SceneBank.load({**scenes, OBJECTS[5]: odd}, [*scenes, OBJECTS[5]], CPU)


def test_objects_without_splats(config: Experiment) -> None:
    scene = as_scene(ball(OBJECTS[1], config.camera, 12), config.camera.radius)
    scenes = Objects({"x": scene})
    for views in (StoredViews(scenes, ["x"]), SceneBank.load(scenes, ["x"], CPU)):
        taken = views.take(0, [2, 0])
        assert set(taken) == {"rgba", "c2w"}
        np.testing.assert_array_equal(taken["rgba"].numpy(), scene.rgba[[2, 0]])
