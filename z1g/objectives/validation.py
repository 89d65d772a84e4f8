"""What stage 1 looks at while it trains: a few objects' validation views, attribute errors, images, histograms."""

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

MOST_OBJECTS = 16
IMAGED = 4
AT_ONCE = 4
HISTOGRAM_VALUES = 50_000
LOGARITHMIC = ("opacity", "scale")
"""Attributes whose errors and histograms are of natural logarithms."""

Predict = Callable[[Batch], Comparison]
"""Splats and renders of a batch beside the truth."""


@dataclass(frozen=True)
class Looked:
    """One object's prediction beside its truth, without the batch dimension: rgb [V,3,H,W], splats [6,14,S,S]."""

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
    """The first few of some objects, seen in the configuration's validation views on its background for them."""

    def __init__(self, config: Experiment, scenes: Scenes, ids: Sequence[str]) -> None:
        self.names = list(ids[:MOST_OBJECTS])
        self.samples = AutodecoderSamples(config, StoredViews(scenes, self.names))
        self.views = config.camera.validation_ids
        self.background = [config.autodecoder.validation_background] * 3

    def look(self, predict: Predict, device: torch.device, most: int = MOST_OBJECTS) -> Iterator[Looked]:
        """Predict object by object, a few at a time; `object_index` of a batch counts within the given ids."""
        names = self.names[:most]
        for first in range(0, len(names), AT_ONCE):
            rows = range(first, min(first + AT_ONCE, len(names)))
            samples = [self.samples.of(i, self.views, self.background) for i in rows]
            batch = {name: torch.stack([sample[name] for sample in samples]).to(device) for name in samples[0]}
            batch["object_index"] = torch.tensor(list(rows), device=device)
            pair = predict(batch)
            if pair.rgb is None or pair.rgb_true is None or pair.splats is None:
                raise RuntimeError("a rendering comparison lacks its images")
            for i, row in enumerate(rows):
                truth = None if pair.splats_true is None else pair.splats_true[i]
                yield Looked(names[row], pair.rgb[i], pair.rgb_true[i], pair.splats[i], truth)


def attribute_errors(looked: Sequence[Looked]) -> dict[str, float]:
    """Root mean squared error of each attribute where the true splat is seen; scales and opacities as logarithms."""
    errors: dict[str, list[float]] = {}
    for one in looked:
        if one.splats_true is None:
            continue
        seen = one.splats_true[:, 3:4] > MIN_ALPHA
        truth = split(one.splats_true, dim=1)
        for name, value in split(one.splats.float(), dim=1).items():
            true = truth[name]
            if name == "rotation":
                true = torch.where((value * true).sum(dim=1, keepdim=True) < 0, -true, true)
            squared = (_shown(name, value) - _shown(name, true)).square() * seen
            n = (seen.sum() * squared.shape[1]).clamp(min=1)
            errors.setdefault(f"error/{name}", []).append(float((squared.sum() / n).sqrt()))
    return {name: sum(values) / len(values) for name, values in errors.items()}


def histograms(looked: Sequence[Looked]) -> dict[str, Tensor]:
    """Values of each attribute over all Gaussians that can be seen, predicted and true."""
    found = {}
    for what in ("splats", "splats_true"):
        images = [getattr(one, what) for one in looked if getattr(one, what) is not None]
        if not images:
            continue
        flat = torch.cat([image.float().movedim(1, 0).flatten(1) for image in images], dim=1)
        flat = flat[:, flat[3] > MIN_ALPHA]
        flat = flat[:, :: max(1, flat.shape[1] // HISTOGRAM_VALUES)]
        for name, values in split(flat, dim=0).items():
            label = f"log_{name}" if name in LOGARITHMIC else name
            found[f"{label}/{'true' if what == 'splats_true' else 'predicted'}"] = _shown(name, values).flatten()
    return {name: values for name, values in found.items() if len(values)}


def sheets(looked: Sequence[Looked]) -> dict[str, Tensor]:
    """Truth above prediction: each object's views, and each attribute's splatter images with objects side by side."""
    found = {f"views/{one.name}": _above(_row(one.rgb_true), _row(one.rgb)) for one in looked}
    columns: dict[str, list[Tensor]] = {}
    for one in looked:
        predicted = attributes(one.splats)
        truth = {} if one.splats_true is None else attributes(one.splats_true)
        for name, image in predicted.items():
            columns.setdefault(f"splats/{name}", []).append(_above(truth.get(name), image))
    return {**found, **{name: torch.cat(images, dim=-1) for name, images in columns.items()}}


def _shown(name: str, value: Tensor) -> Tensor:
    return value.clamp(min=1e-8).log() if name in LOGARITHMIC else value


def _row(images: Tensor) -> Tensor:
    return torch.cat(list(images), dim=-1).clamp(0, 1)


def _above(truth: Tensor | None, prediction: Tensor) -> Tensor:
    return prediction if truth is None else torch.cat([truth, prediction], dim=-2)
