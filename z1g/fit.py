"""The optimisation of one object's splatter images."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from z1g.camera import INPUT_VIEWS
from z1g.data.manifest import int_hash
from z1g.data.scenes import Scene
from z1g.device import default_device
from z1g.fitting.options import FitOptions
from z1g.losses import Comparison, weighted_sum
from z1g.render import Rasterizer
from z1g.seeding import numpy_generator
from z1g.splat import CHANNELS, activate_rgb, join, split, to_gaussians

SCALE_UNIT = 0.1
"""Scale is 0.1·softplus(raw), as in LGM and the seed."""


@dataclass(frozen=True)
class Fitted:
    """splats: best activated splatter images [6,14,S,S]; psnr: dB on the views given; steps: taken in all."""

    splats: Tensor
    psnr: float
    steps: int
    seconds: float


class RawSplats:
    """Unconstrained parameters of splatter images [6,14,S,S] and their activation."""

    def __init__(self, activated: Tensor) -> None:
        parts = split(activated, dim=1)
        rgb = parts["rgb"].clamp(1e-3, 1 - 1e-3)
        softplus = (parts["scale"] / SCALE_UNIT).clamp(1e-5, 50)
        raw = {
            "position": parts["position"],
            "opacity": torch.logit(parts["opacity"].clamp(1e-5, 1 - 1e-5)),
            "scale": softplus + torch.log(-torch.expm1(-softplus)),
            "rotation": parts["rotation"],
            "rgb": torch.atanh(2 * rgb - 1),
        }
        self.parameters = {name: value.clone().requires_grad_(True) for name, value in raw.items()}

    def activate(self) -> Tensor:
        """Activated splatter images [6,14,S,S]."""
        raw = self.parameters
        return join(
            {
                "position": raw["position"].clamp(-1, 1),
                "opacity": torch.sigmoid(raw["opacity"]),
                "scale": SCALE_UNIT * torch.nn.functional.softplus(raw["scale"]),
                "rotation": torch.nn.functional.normalize(raw["rotation"], dim=1),
                "rgb": activate_rgb(raw["rgb"]),
            },
            dim=1,
        )


class Fit:
    """One object's fit."""

    def __init__(self, scene: Scene, options: FitOptions, size: int, rasterizer: Rasterizer) -> None:
        self.scene, self.options, self.size, self.rasterizer = scene, options, size, rasterizer
        self.device = default_device()

    def run(self, train: Sequence[int], validation: Sequence[int]) -> Fitted:
        """Optimise on the views `train` (and the inputs); keep the state that is best on `validation`."""
        began = time.monotonic()
        options = self.options
        raw = RawSplats(options.start.splats(self.scene, self.size).to(self.device))
        rates = options.rates.model_dump()
        groups = [{"params": [raw.parameters[name]], "lr": rates[name]} for name in CHANNELS]
        optimiser = torch.optim.Adam(groups, lr=1e-3, fused=True)
        draw = numpy_generator(options.seed, int_hash(self.scene.id))
        pool = [*INPUT_VIEWS, *train]
        best, best_psnr, stale, step = raw.activate().detach(), self.psnr(raw.activate(), validation), 0, 0
        while step < options.steps and stale < options.patience:
            views = draw.choice(pool, size=min(options.views_per_step, len(pool)), replace=False).tolist()
            self._step(raw, optimiser, views, float(draw.random()))
            step += 1
            if step % options.evaluate_every == 0 or step == options.steps:
                current = self.psnr(raw.activate(), validation)
                stale = 0 if current > best_psnr else stale + 1
                if current > best_psnr:
                    best, best_psnr = raw.activate().detach(), current
        return Fitted(best.cpu(), best_psnr, step, time.monotonic() - began)

    @torch.no_grad()
    def psnr(self, splats: Tensor, views: Sequence[int]) -> float:
        """Mean PSNR in dB over views on white."""
        output = self.rasterizer.render(to_gaussians(splats[None]), self.scene.cameras(list(views)).to(self.device))
        rgb, alpha = (x.to(self.device) for x in self.scene.pictures(list(views)))
        error = (output.over(1.0)[0] - (rgb + 1 - alpha)).square().mean(dim=(1, 2, 3)).clamp(min=1e-10)
        return float((-10 / math.log(10) * error.log()).mean())

    def _step(self, raw: RawSplats, optimiser: torch.optim.Optimizer, views: list[int], background: float) -> None:
        output = self.rasterizer.render(to_gaussians(raw.activate()[None]), self.scene.cameras(views).to(self.device))
        rgb, alpha = (x.to(self.device)[None] for x in self.scene.pictures(views))
        pair = Comparison(
            rgb=output.over(background), rgb_true=rgb + (1 - alpha) * background, alpha=output.alpha, alpha_true=alpha
        )
        loss, _ = weighted_sum(self.options.losses, pair)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
