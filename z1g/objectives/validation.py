"""Validation of stage 1 during training: views of a few objects, attribute errors, images and histograms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from z1g.data.bank import Scenes, StoredViews
from z1g.gaussians.channels import MIN_ALPHA, split
from z1g.losses import Comparison
from z1g.objectives.samples import AutodecoderSamples
from z1g.render.images import attributes
from z1g.training.data import Batch

if TYPE_CHECKING:
    from z1g.config.tree import Experiment

MAX_OBJECTS = 16
IMAGED = 4
AT_ONCE = 4
HISTOGRAM_VALUES = 50_000
LOGARITHMIC = ("opacity", "scale")
"""Attributes whose errors and histograms use natural logarithms."""

Predict = Callable[[Batch], Comparison]
"""Computes splats and renders of a batch, with the ground truth."""


@dataclass(frozen=True)
class ObjectPrediction:
    """Prediction and ground truth of one object, without the batch dimension: rgb [V,3,H,W], splats [6,14,S,S]."""

    name: str
    rgb: Tensor
    rgb_true: Tensor
    splats: Tensor
    splats_true: Tensor | None

    def psnr(self) -> float:
        """Mean over the views, dB."""
        errors = (self.rgb - self.rgb_true).square().mean(dim=(1, 2, 3)).clamp(min=1e-10)
        return float((-10 * errors.log10()).mean())


class ValidationObjects:
    """The first objects of a list, in the validation views and on the validation background of the configuration."""

    def __init__(self, config: Experiment, scenes: Scenes, ids: Sequence[str]) -> None:
        self.names = list(ids[:MAX_OBJECTS])
        self.samples = AutodecoderSamples(config, StoredViews(scenes, self.names))
        self.views = config.camera.validation_ids
        self.background = [config.autodecoder.validation_background] * 3

    def predictions(
        self, predict: Predict, device: torch.device, limit: int = MAX_OBJECTS
    ) -> Iterator[ObjectPrediction]:
        """Predictions of up to `limit` objects, in batches; `object_index` of a batch indexes the given ids."""
        names = self.names[:limit]
        for first in range(0, len(names), AT_ONCE):
            rows = range(first, min(first + AT_ONCE, len(names)))
            samples = [self.samples.of(i, self.views, self.background) for i in rows]
            batch = {name: torch.stack([sample[name] for sample in samples]).to(device) for name in samples[0]}
            batch["object_index"] = torch.tensor(list(rows), device=device)
            pair = predict(batch)
            if pair.rgb is None or pair.rgb_true is None or pair.splats is None:
                raise RuntimeError("the comparison has no images")
            for i, row in enumerate(rows):
                truth = None if pair.splats_true is None else pair.splats_true[i]
                yield ObjectPrediction(names[row], pair.rgb[i], pair.rgb_true[i], pair.splats[i], truth)


def attribute_errors(predictions: Sequence[ObjectPrediction]) -> dict[str, float]:
    """Root mean squared error of each attribute over visible true splats; logarithms for scales and opacities."""
    errors: dict[str, list[float]] = {}
    for prediction in predictions:
        if prediction.splats_true is None:
            continue
        visible = prediction.splats_true[:, 3:4] > MIN_ALPHA
        truth = split(prediction.splats_true, dim=1)
        for name, value in split(prediction.splats.float(), dim=1).items():
            true = truth[name]
            if name == "rotation":
                true = torch.where((value * true).sum(dim=1, keepdim=True) < 0, -true, true)
            squared = (_transformed(name, value) - _transformed(name, true)).square() * visible
            n = (visible.sum() * squared.shape[1]).clamp(min=1)
            errors.setdefault(f"error/{name}", []).append(float((squared.sum() / n).sqrt()))
    return {name: sum(values) / len(values) for name, values in errors.items()}


def histograms(predictions: Sequence[ObjectPrediction]) -> dict[str, Tensor]:
    """Predicted and true values of each attribute over all visible Gaussians."""
    distributions = {}
    for what in ("splats", "splats_true"):
        images = [splats for prediction in predictions if (splats := getattr(prediction, what)) is not None]
        if not images:
            continue
        flat = torch.cat([image.float().movedim(1, 0).flatten(1) for image in images], dim=1)
        flat = flat[:, flat[3] > MIN_ALPHA]
        flat = flat[:, :: max(1, flat.shape[1] // HISTOGRAM_VALUES)]
        for name, values in split(flat, dim=0).items():
            label = f"log_{name}" if name in LOGARITHMIC else name
            key = f"{label}/{'true' if what == 'splats_true' else 'predicted'}"
            distributions[key] = _transformed(name, values).flatten()
    return {name: values for name, values in distributions.items() if len(values)}


def log_images(predictions: Sequence[ObjectPrediction]) -> dict[str, Tensor]:
    """Ground truth above prediction: views of each object, and splatter images of each attribute for all objects."""
    views = {f"views/{each.name}": _above(_row(each.rgb_true), _row(each.rgb)) for each in predictions}
    columns: dict[str, list[Tensor]] = {}
    for prediction in predictions:
        predicted = attributes(prediction.splats)
        truth = {} if prediction.splats_true is None else attributes(prediction.splats_true)
        for name, image in predicted.items():
            columns.setdefault(f"splats/{name}", []).append(_above(truth.get(name), image))
    return {**views, **{name: torch.cat(images, dim=-1) for name, images in columns.items()}}


def _transformed(name: str, value: Tensor) -> Tensor:
    return value.clamp(min=1e-8).log() if name in LOGARITHMIC else value


def _row(images: Tensor) -> Tensor:
    return torch.cat(list(images), dim=-1).clamp(0, 1)


def _above(truth: Tensor | None, prediction: Tensor) -> Tensor:
    return prediction if truth is None else torch.cat([truth, prediction], dim=-2)
