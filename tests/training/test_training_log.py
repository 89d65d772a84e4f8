"""TensorBoard event files of stage 1, and the weights that training keeps."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.builders import OBJECTS, Toy, ball_splats, fill, plan, stage_path, toy_options
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from z1g.core.files import read_jsonl
from z1g.geometry.mosaic import tile
from z1g.objectives.validation import ObjectPrediction, attribute_errors, histograms
from z1g.plan.folder import StageFolder
from z1g.render.images import attributes
from z1g.stages import autodecoder
from z1g.training.loop import Trainer

ATTRIBUTES = ("position", "opacity", "scale", "rotation", "rgb")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micro stage 1 with encoder codes."""
    planned = plan(tmp_path_factory.mktemp("log"), autodecoder={"codes": {"kind": "encoder"}})
    fill(planned)
    folder = stage_path(planned, "autodecoder")
    autodecoder.run(StageFolder.open(folder), threads=1)
    return folder


@pytest.fixture(scope="module")
def events(trained: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(trained / "tb"), size_guidance={"images": 0, "histograms": 0})
    accumulator.Reload()
    return accumulator


def test_scalars(events: EventAccumulator, trained: Path) -> None:
    names = {f"train/{name}" for name in ("loss", "rgb", "alpha", "splat", "gradient_norm", "lr")}
    names |= {f"validation/{name}" for name in ("validation_psnr", "held_out_psnr")}
    names |= {f"validation/error/{name}" for name in ATTRIBUTES}
    assert names <= set(events.Tags()["scalars"])
    rows = read_jsonl(trained / "history.jsonl")
    assert [(point.step, pytest.approx(point.value)) for point in events.Scalars("train/loss")] == [
        (row["step"], row["loss"]) for row in rows
    ]
    (point,) = events.Scalars("validation/held_out_psnr")
    assert point.value == pytest.approx(rows[-1]["held_out_psnr"])
    assert 0 < point.value < 40


def test_histograms(events: EventAccumulator) -> None:
    labels = ("position", "log_opacity", "log_scale", "rotation", "rgb")
    assert {f"{label}/{what}" for label in labels for what in ("predicted", "true")} == set(events.Tags()["histograms"])
    (scales,) = events.Histograms("log_scale/true")
    # The synthetic splats have scales between 0.02 and 0.07.
    assert np.log(0.02) <= scales.histogram_value.min
    assert scales.histogram_value.max <= np.log(0.0701)


def test_images(events: EventAccumulator) -> None:
    views = {name for name in events.Tags()["images"] if name.startswith("views/")}
    assert views == {f"views/{name}" for name in OBJECTS[1:4]}
    assert {f"splats/{name}" for name in ATTRIBUTES} == set(events.Tags()["images"]) - views
    for name in ATTRIBUTES:
        (event,) = events.Images(f"splats/{name}")
        image = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB")) / 255
        # Truth above prediction, three objects with mosaics of 24 x 16 side by side.
        assert image.shape == (48, 48, 3)
        for column, object_id in enumerate(OBJECTS[1:4]):
            truth = attributes(ball_splats(object_id, 8))[name].permute(1, 2, 0).numpy()
            np.testing.assert_allclose(image[:24, 16 * column : 16 * column + 16], truth, atol=1 / 254)


def test_attribute_images() -> None:
    splats = torch.zeros(6, 14, 2, 2)
    splats[:, 0], splats[:, 3], splats[:, 4:7] = 0.35, 0.25, torch.e**-6.0
    splats[:, 7], splats[:, 8], splats[:, 11:14] = -0.6, 0.8, 0.125
    splats[2, 11] = 1.0
    images = {name: image[:, 0, 0].tolist() for name, image in attributes(splats).items()}
    assert images["position"] == pytest.approx([0.75, 0.5, 0.5])
    assert images["opacity"] == pytest.approx([0.25] * 3)
    assert images["scale"] == pytest.approx([0.5] * 3)
    assert images["rotation"] == pytest.approx([0.1, 0.5, 0.5])
    assert images["rgb"] == pytest.approx([0.125] * 3)
    expected = tile(splats[None, :, 11:14])[0]
    torch.testing.assert_close(attributes(splats)["rgb"], expected)


def test_errors_are_of_visible_gaussians() -> None:
    truth = ball_splats(OBJECTS[0], 4)
    truth[:, 3] = 1.0
    truth[0, 3, 0, 0] = 0.0
    predicted = truth.clone()
    predicted[:, :3] += 0.1
    predicted[:, 4:7] *= torch.e**0.5
    predicted[:, 7:11] *= -1
    predicted[0, :3, 0, 0] = 99.0
    image = torch.rand(2, 3, 8, 8)
    prediction = ObjectPrediction("x", image, image + 0.01, predicted, truth)
    errors = attribute_errors([prediction])
    assert errors["error/position"] == pytest.approx(0.1, abs=1e-5)
    assert errors["error/scale"] == pytest.approx(0.5, abs=1e-5)
    assert errors["error/rotation"] == pytest.approx(0, abs=1e-6)
    assert errors["error/rgb"] == 0
    assert prediction.psnr() == pytest.approx(40, abs=1e-3)
    assert histograms([prediction])["position/true"].numel() == 3 * (6 * 16 - 1)


# The kept weights


class Judged(Toy):
    """Validations return given figures and store the validated weights."""

    def __init__(self, quality: dict[int, float]) -> None:
        super().__init__()
        self.quality, self.seen = quality, {}  # type: ignore[var-annotated]
        self.step = 0

    def validate(self) -> dict[str, float]:
        self.step += 2
        self.seen[self.step] = {name: p.detach().clone() for name, p in self.named_parameters()}
        return {"validation_psnr": self.quality[self.step]}


QUALITY = {2: 20.0, 4: 25.0, 6: 22.0, 8: 24.0, 10: 25.0, 12: 21.0}


def judged(folder: Path, stop_at: int | None = None, start: int = 0, **changes: Any) -> Judged:
    toy = Judged(QUALITY)
    toy.step = start
    options = toy_options(validate_every=2, checkpoint_every=3, **changes)
    trainer = Trainer(toy, toy.data(options), options, folder)
    if stop_at is not None:
        real = trainer._step

        def step(at: int, batch: Any) -> Any:
            if at == stop_at:
                raise KeyboardInterrupt
            return real(at, batch)

        trainer._step = step  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    else:
        trainer.run()
    return toy


def weights(toy: Toy) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in toy.named_parameters()}


@pytest.mark.parametrize("ema", [None, 0.8])
def test_best_weights_are_kept(ema: float | None, tmp_path: Path) -> None:
    """The first of equally good weights; with an average, the validated average."""
    best, last = judged(tmp_path / "best", keep="best", ema=ema), judged(tmp_path / "last", ema=ema)
    torch.testing.assert_close(weights(best), best.seen[4], atol=0, rtol=0)
    torch.testing.assert_close(weights(last), last.seen[12], atol=0, rtol=0)
    assert [file.name for file in (tmp_path / "best" / "checkpoints").glob("best-*")] == ["best-00000004.pt"]
    assert not list((tmp_path / "last" / "checkpoints").glob("best-*"))
    again = judged(tmp_path / "best", keep="best", ema=ema)
    torch.testing.assert_close(weights(again), best.seen[4], atol=0, rtol=0)
    assert not again.seen


@pytest.mark.parametrize("stop_at", [4, 5, 7])
def test_best_weights_after_a_kill(stop_at: int, tmp_path: Path) -> None:
    """Between the best validation (step 4) and the next checkpoint (step 6), and after that."""
    judged(tmp_path, stop_at, keep="best")
    last_checkpoint = stop_at // 3 * 3
    resumed = judged(tmp_path, start=last_checkpoint // 2 * 2, keep="best")
    whole = judged(tmp_path / "whole", keep="best")
    torch.testing.assert_close(weights(resumed), weights(whole), atol=0, rtol=0)
    assert [file.name for file in (tmp_path / "checkpoints").glob("best-*")] == ["best-00000004.pt"]
