"""The samples of stage 1: selection of views, and conversion of images to tensors on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from z1g.core.seeding import numpy_generator
from z1g.data.bank import SceneBank, Views
from z1g.data.condition_form import ConditionForm
from z1g.data.conditions import condition_image
from z1g.geometry.camera import FIXED_VIEWS, INPUT_VIEWS
from z1g.objectives import purposes
from z1g.training.data import Batch, Draw, Sample

if TYPE_CHECKING:
    from z1g.config.tree import Experiment

MID_GRAY = 0.5
Inputs = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""See `Codec.inputs`."""


@dataclass(frozen=True)
class AutodecoderSamples:
    """Creates the samples of stage 1. Copied to data loading processes, so it contains no networks.

    With `views` None a sample only contains the indices of views in a bank on the device.
    """

    config: Experiment
    views: Views | None

    def __call__(self, draw: Draw) -> Sample:
        """Views of one object, `FIXED_VIEWS` followed by rendered views, and the background of the latter."""
        options = self.config.autodecoder
        generator = numpy_generator(*draw.key, purposes.VIEWS)
        free = self.config.camera.loss_ids(options.loss_views)
        views = generator.choice(free, size=min(options.views, len(free)), replace=False).tolist()
        if options.render_inputs:
            views = [*INPUT_VIEWS, *views]
        background = generator.random(3) if options.random_background else [MID_GRAY] * 3
        return self.of(draw.object_index, views, background)

    def of(self, index: int, views: Sequence[int], background: Any) -> Sample:
        """The sample of one object with the given views, rendered on a background [3]."""
        selected = [*FIXED_VIEWS, *views]
        tensors = {"views": torch.tensor(selected)} if self.views is None else self.views.take(index, selected)
        return {**tensors, "background": torch.tensor(background, dtype=torch.float32)[:, None, None]}


def gathered(batch: Batch, bank: SceneBank | None) -> Batch:
    """Replace the indices of views with the views of a bank on the device, if there is one."""
    if bank is None:
        return batch
    views = bank.gather(batch["object_index"], batch["views"])
    return {**{name: value for name, value in batch.items() if name != "views"}, **views}


def images(batch: Batch, inputs: Inputs, form: ConditionForm | None) -> Batch:
    """Gathered samples as tensors for the networks.

    Adds `inputs` of the encoder; the rendered views' premultiplied `rgb` [B,V,3,H,W], `alpha` [B,V,1,H,W] and
    `c2w` [B,V,4,4]; and `condition` [B,3,C,C] if its form is given. inputs: see `Codec.inputs`.
    """
    batch = dict(batch)
    rgba = batch.pop("rgba")[:, 0 if form else 1 :].movedim(-1, 2).float() / 255
    alpha = rgba[:, :, 3:]
    rgb = rgba[:, :, :3] * alpha
    if form:
        rows = [condition_image(rgb[i, :1], alpha[i, :1], *form) for i in range(len(rgb))]
        batch["condition"] = torch.stack(rows)
        rgb, alpha = rgb[:, 1:], alpha[:, 1:]
    n = len(INPUT_VIEWS)
    batch["inputs"] = inputs(rgb[:, :n], alpha[:, :n], batch.get("splats"))
    batch["rgb"], batch["alpha"], batch["c2w"] = rgb[:, n:], alpha[:, n:], batch["c2w"][:, 1 + n :]
    return batch
