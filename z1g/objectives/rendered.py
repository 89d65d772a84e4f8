"""Rendering losses of stage 2: predicted codes are decoded by the frozen decoder, rendered and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from z1g.core.seeding import numpy_generator
from z1g.data.bank import SceneBank, Views
from z1g.gaussians.channels import enlarged, to_gaussians
from z1g.geometry.camera import Cameras
from z1g.losses import Comparison, weighted_sum
from z1g.objectives import purposes
from z1g.objectives.samples import gathered
from z1g.representations.codec import Codec
from z1g.training.data import Batch, Draw, Sample

if TYPE_CHECKING:
    from z1g.config.sections import RenderedCodes
    from z1g.config.tree import Experiment


@dataclass(frozen=True)
class RenderedTruth:
    """Views of training objects that are sampled at every step. `config` is that of stage 1.

    With `stored` None a sample only contains the indices of views in a bank on the device, see `Rendering`.
    """

    config: Experiment
    stored: Views | None
    views: int

    def __call__(self, draw: Draw) -> Sample:
        """Views of one object, see `Views.take`, and a random background, for the comparison with renders."""
        generator = numpy_generator(*draw.key, purposes.VIEWS)
        free = self.config.camera.loss_ids(self.config.autodecoder.loss_views)
        views = generator.choice(free, size=min(self.views, len(free)), replace=False).tolist()
        background = torch.from_numpy(generator.random(3)).float()[:, None, None]
        tensors = {"views": torch.tensor(views)} if self.stored is None else self.stored.take(draw.object_index, views)
        return {**tensors, "background": background}


class Rendering(nn.Module):
    """Losses on renders of predicted codes; gradients pass through the frozen decoder."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, options: RenderedCodes, config: Experiment, codec: Codec, mean: Tensor,
        deviation: Tensor, truth: RenderedTruth, bank: SceneBank | None = None,
    ) -> None:  # fmt: skip
        """mean, deviation: normalization of the codes. config: that of stage 1. bank: of `truth`, if on the device."""
        super().__init__()
        self.options, self.config, self.truth, self.bank = options, config, truth, bank
        self.codec = codec.requires_grad_(False).eval()
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)

    def train(self, mode: bool = True) -> Rendering:
        """The codec is never trained."""
        return self

    def prepare(self, batch: Batch) -> Batch:
        """The batch with premultiplied `rgb` [B,V,3,H,W] and `alpha` [B,V,1,H,W] in 0..1 in place of its views."""
        batch = dict(gathered(batch, self.bank))
        rgba = batch.pop("rgba").movedim(-1, 2).float() / 255
        batch["alpha"] = rgba[:, :, 3:]
        batch["rgb"] = rgba[:, :, :3] * batch["alpha"]
        return batch

    def losses(self, codes: Tensor, timestep: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum and terms of predicted codes [B,*code_shape] (normalized), for samples with small timesteps.

        batch: see `prepare`.
        Sum and terms are means over the whole batch; other samples contribute 0.
        """
        rows = timestep < self.options.below
        if not bool(rows.any()):
            # All ranks must log the same names.
            zero = 0 * codes.sum()
            return zero, {name: zero.detach() for name, loss in self.options.losses.items() if loss.weight > 0}
        with torch.autocast(codes.device.type, enabled=False):
            splats = self.codec.decode(codes[rows].float() * self.deviation + self.mean)
            side = batch["rgb"].shape[-1]
            cameras = Cameras(batch["c2w"][rows], self.config.camera.fov_y_deg, side, side)
            output = self.config.render.render(to_gaussians(splats), cameras)
            background, alpha = batch["background"][rows][:, None], batch["alpha"][rows]
            pair = Comparison(
                rgb=output.over(background),
                rgb_true=batch["rgb"][rows] + (1 - alpha) * background,
                alpha=output.alpha,
                alpha_true=alpha,
                splats=splats,
                splats_true=enlarged(batch["splats"][rows], splats.shape[-1]) if "splats" in batch else None,
            )
            total, terms = weighted_sum(self.options.losses, pair)
        share = rows.float().mean()
        return total * share, {name: term * share for name, term in terms.items()}
