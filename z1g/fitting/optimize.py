"""Optimization of splatter images of a batch of objects, independently of each other."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from z1g.core.device import default_device
from z1g.core.seeding import numpy_generator
from z1g.data.manifest import int_hash
from z1g.data.scenes import Scene
from z1g.fitting._raw import RawSplats
from z1g.fitting.options import FitOptions
from z1g.gaussians.channels import CHANNELS, to_gaussians
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, Cameras
from z1g.losses import Comparison, InputMaps, weighted_sum
from z1g.losses.splatter import SplatterLoss
from z1g.metrics import ImagePair
from z1g.metrics.psnr import Psnr
from z1g.metrics.ssim import Ssim
from z1g.render import Rasterizer

EPSILON = 1e-15
"""Adam's epsilon as in 3DGS: gradients of a mean over all pixels are far below the default of 1e-8."""


@dataclass(frozen=True)
class Fitted:
    """Result of a fit.

    splats: activated splatter images [6,14,S,S]. psnr (dB) and ssim: on the test views, which the fit never uses.
    validation_psnr: dB on the views used for early stopping. steps: number taken. seconds: the object's share of the
    batch's time.
    """

    splats: Tensor
    psnr: float
    ssim: float
    validation_psnr: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class Views:
    """Views of B objects on the fit's device: rgba uint8 [B,V,4,H,W], c2w [B,V,4,4]."""

    rgba: Tensor
    c2w: Tensor
    fov_y_deg: float

    @classmethod
    def load(cls, scenes: Sequence[Scene], device: torch.device) -> Views:
        """Load objects whose images have the same size and field of view."""
        rgba = torch.stack([torch.from_numpy(scene.rgba) for scene in scenes])
        c2w = torch.stack([scene.c2w for scene in scenes])
        return cls(rgba.to(device).permute(0, 1, 4, 2, 3).contiguous(), c2w.to(device), scenes[0].fov_y_deg)

    def pick(self, ids: Tensor) -> tuple[Tensor, Tensor, Cameras]:
        """Premultiplied color [B,k,3,H,W] and alpha [B,k,1,H,W] in 0..1 of views `ids` [B,k], and their cameras."""
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        rgba = self.rgba[rows, ids].float() / 255
        alpha = rgba[:, :, 3:]
        return rgba[:, :, :3] * alpha, alpha, Cameras(self.c2w[rows, ids], self.fov_y_deg, *rgba.shape[-2:])

    def every(self, ids: Sequence[int]) -> tuple[Tensor, Tensor, Cameras]:
        """Like `pick`, for the same views of all objects."""
        return self.pick(torch.tensor([list(ids)], device=self.rgba.device).expand(len(self.rgba), -1))

    def keep(self, mask: Tensor) -> Views:
        """Only the objects of a mask [B]."""
        return Views(self.rgba[mask], self.c2w[mask], self.fov_y_deg)


@dataclass
class _Batch:
    """Objects being fitted. places: their indices among all. drawn: views [B,steps,k]; backgrounds: [B,steps]."""

    places: Tensor
    views: Views
    inputs: InputMaps
    raw: RawSplats
    drawn: Tensor
    backgrounds: Tensor
    best: Tensor
    best_psnr: Tensor
    stale: Tensor
    seconds: Tensor


class Fit:
    """Fits objects whose images have the same size. `size` is the width of a splatter image in pixels."""

    def __init__(self, options: FitOptions, size: int, rasterizer: Rasterizer, camera: CameraOptions) -> None:
        self.options, self.size, self.rasterizer, self.camera = options, size, rasterizer, camera
        self.device = default_device()
        self.pool = [*INPUT_VIEWS, *camera.train_ids] if options.loss_views == "train" else list(range(camera.n_views))
        self.always = [] if options.loss_views == "train" else list(INPUT_VIEWS)
        """Views of every step; the others are drawn from the pool."""
        self.needs_images = any(isinstance(loss, SplatterLoss) for loss in options.losses.values() if loss.weight > 0)

    def run(self, scenes: Sequence[Scene]) -> list[Fitted]:
        """Optimize each object on the input and training views; keep the best state on the validation views.

        An object leaves the batch if it has not improved for `patience` evaluations. Random numbers depend on the
        object only, so the batch affects results only by rounding. Raises torch.OutOfMemoryError if the batch is too
        large.
        """
        clock = time.monotonic()
        batch = self._start(scenes)
        optimizer = self._optimizer(batch.raw)
        schedule = self.options.schedule.build(optimizer, max(self.options.steps, 1))
        self._look(batch)
        results: dict[int, Fitted] = {}
        for step in range(1, self.options.steps + 1):
            self._step(batch, optimizer, step - 1)
            if not self.options.schedule.follows_loss:
                schedule.step()
            last = step == self.options.steps
            if step % self.options.evaluate_every and not last:
                continue
            error = self._look(batch)
            if self.options.schedule.follows_loss:
                schedule.step(error)  # type: ignore[arg-type]  # missing in torch's stubs
            clock = self._charge(batch, clock)
            finished = self._finished(batch) | last
            if finished.any():
                results |= self._results(batch, finished, step)
                if finished.all():
                    break
                self._drop(batch, optimizer, finished)
        if self.options.steps == 0:
            self._charge(batch, clock)
            results = self._results(batch, torch.ones_like(batch.stale, dtype=torch.bool), 0)
        return [results[place] for place in range(len(scenes))]

    @torch.no_grad()
    def psnr(self, gaussians: Tensor, views: Views, ids: Sequence[int]) -> Tensor:
        """Mean PSNR [B] in dB of activated Gaussians [B,N,14] over views, on white background."""
        rgb, alpha, cameras = views.every(ids)
        error = (self.rasterizer.render(gaussians, cameras).over(1.0) - (rgb + 1 - alpha)).square()
        return (-10 / math.log(10) * error.mean(dim=(2, 3, 4)).clamp(min=1e-10).log()).mean(dim=1)

    def judge(self, scene: Scene, splats: Tensor) -> Fitted:
        """Evaluate given splats [6,14,S,S] like the result of a fit without steps."""
        views, gaussians = Views.load([scene], self.device), to_gaussians(splats[None].to(self.device))
        psnr, ssim = self._quality(gaussians, views)
        validation = self.psnr(gaussians, views, self.camera.validation_ids)
        return Fitted(splats, float(psnr), float(ssim), float(validation), steps=0, seconds=0.0)

    def _start(self, scenes: Sequence[Scene]) -> _Batch:
        options = self.options
        views = Views.load(scenes, self.device)
        starts = torch.stack([options.start.splats(scene, self.pool, self.size).to(self.device) for scene in scenes])
        _, alpha, images = views.every(INPUT_VIEWS)
        inputs = Cameras(images.c2w, images.fov_y_deg, self.size, self.size)
        # Otherwise invisible Gaussians change too, by weight decay or by a norm over all Gaussians.
        free = options.weight_decay == 0 and options.rotation_norm == "quaternion" and options.start.unit_quaternions
        raw = RawSplats.build(starts, inputs, options.positions, options.rotation_norm, drop_invisible=free)
        draws = [numpy_generator(options.seed, int_hash(scene.id)) for scene in scenes]
        # Drawn for all objects before the backgrounds.
        drawn = torch.stack([self._drawn(draw) for draw in draws])
        backgrounds = [torch.from_numpy(draw.random(options.steps)).float() for draw in draws]
        with torch.no_grad():
            best = raw.gaussians()
        zeros = torch.zeros(len(scenes), device=self.device)
        return _Batch(
            places=torch.arange(len(scenes)),
            views=views,
            inputs=InputMaps.build(inputs, alpha),
            raw=raw,
            drawn=drawn.to(self.device),
            backgrounds=torch.stack(backgrounds).to(self.device),
            best=best,
            best_psnr=torch.full_like(zeros, -math.inf),
            stale=zeros.int(),
            seconds=zeros.cpu(),
        )

    def _drawn(self, draw: np.random.Generator) -> Tensor:
        """Ids [steps,k] of the views of every step of one object."""
        steps = self.options.steps
        n_drawn = min(max(self.options.views_per_step - len(self.always), 0), len(self.pool))
        # A permutation of the pool gives the views of all steps of a pass; the views left over wait for another pass.
        per_pass = len(self.pool) // max(n_drawn, 1) if self.options.draws == "passes" else 1
        order = draw.random((-(-steps // per_pass), len(self.pool))).argsort(axis=1)[:, : per_pass * n_drawn]
        order = order.reshape(len(order) * per_pass, n_drawn)[:steps]
        always = torch.tensor(self.always[: self.options.views_per_step], dtype=torch.long).expand(steps, -1)
        return torch.cat([always, torch.tensor(self.pool)[torch.from_numpy(order)]], dim=1)

    def _optimizer(self, raw: RawSplats) -> Optimizer:
        options = self.options
        rates = options.rates.model_dump()
        if options.rates.position_unit == "pixel":
            rates["position"] *= self._pixel()
        groups = [{"params": [raw.parameters[name]], "lr": rates[name]} for name in CHANNELS]
        kind = AdamW if options.weight_decay > 0 else Adam
        return kind(groups, betas=options.betas, eps=EPSILON, weight_decay=options.weight_decay, fused=True)

    def _pixel(self) -> float:
        """Width of a splatter image's pixel at the object's center, normalized units."""
        return 2 * self.camera.radius * math.tan(math.radians(self.camera.fov_y_deg) / 2) / self.size

    def _step(self, batch: _Batch, optimizer: Optimizer, step: int) -> None:
        rgb, alpha, cameras = batch.views.pick(batch.drawn[:, step])
        background = batch.backgrounds[:, step].view(-1, 1, 1, 1, 1)
        gaussians = batch.raw.gaussians()
        output = self.rasterizer.render(gaussians, cameras)
        pair = Comparison(
            rgb=output.over(background),
            rgb_true=rgb + (1 - alpha) * background,
            alpha=output.alpha,
            alpha_true=alpha,
            splats=batch.raw.images(gaussians) if self.needs_images else None,
            inputs=batch.inputs,
        )
        loss, _ = weighted_sum(self.options.losses, pair)
        optimizer.zero_grad(set_to_none=True)
        # Losses are means over the batch; multiplied by its size, gradients are independent of the batch.
        (loss * len(gaussians)).backward()
        if self.options.clip_norm is not None:
            clip_each(batch.raw.parameters.values(), self.options.clip_norm)
        optimizer.step()

    @torch.no_grad()
    def _look(self, batch: _Batch) -> float:
        """Evaluate on the validation views and keep the best state; returns the negative mean PSNR in dB."""
        gaussians = batch.raw.gaussians()
        psnr = self.psnr(gaussians, batch.views, self.camera.validation_ids)
        better = psnr > batch.best_psnr
        updated = better if self.options.keep == "best" else torch.ones_like(better)
        batch.best = torch.where(updated[:, None, None], gaussians, batch.best)
        batch.best_psnr = torch.where(better, psnr, batch.best_psnr)
        batch.stale = torch.where(better, 0, batch.stale + 1)
        return -float(psnr.mean())

    def _finished(self, batch: _Batch) -> Tensor:
        """Mask [B] of the objects that stop early."""
        stop_above = self.options.stop_above
        good = torch.ones_like(batch.stale, dtype=torch.bool) if stop_above is None else batch.best_psnr > stop_above
        return good & (batch.stale >= self.options.patience)

    def _charge(self, batch: _Batch, since: float) -> float:
        """Divide the time since `since` among the objects being fitted; returns the current time."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.monotonic()
        batch.seconds += (now - since) / len(batch.seconds)
        return now

    @torch.no_grad()
    def _quality(self, gaussians: Tensor, views: Views) -> tuple[Tensor, Tensor]:
        """PSNR in dB and SSIM on the test views, [B] each."""
        rgb, alpha, cameras = views.every(self.camera.test_ids)
        output = self.rasterizer.render(gaussians, cameras)
        images = ImagePair(*(x.flatten(0, 1) for x in (output.over(1.0), rgb + 1 - alpha, output.alpha, alpha)))
        psnr, ssim = (metric.compute(images).unflatten(0, alpha.shape[:2]).mean(1) for metric in (Psnr(), Ssim()))
        return psnr, ssim

    @torch.no_grad()
    def _results(self, batch: _Batch, mask: Tensor, steps: int) -> dict[int, Fitted]:
        images, results = batch.raw.images(batch.best), dict[int, Fitted]()
        psnr, ssim = self._quality(batch.best, batch.views)
        for i in mask.nonzero()[:, 0].tolist():
            results[int(batch.places[i])] = Fitted(
                splats=images[i].cpu().contiguous(),
                psnr=float(psnr[i]),
                ssim=float(ssim[i]),
                validation_psnr=float(batch.best_psnr[i]),
                steps=steps,
                seconds=float(batch.seconds[i]),
            )
        return results

    def _drop(self, batch: _Batch, optimizer: Optimizer, finished: Tensor) -> None:
        """Remove finished objects and their part of the optimizer's state."""
        remaining = ~finished
        previous, batch.raw = batch.raw, batch.raw.keep(remaining)
        for group, name in zip(optimizer.param_groups, CHANNELS, strict=True):
            state = optimizer.state.pop(previous.parameters[name])
            group["params"] = [batch.raw.parameters[name]]
            optimizer.state[batch.raw.parameters[name]] = {
                key: value[remaining] if value.dim() > 0 else value for key, value in state.items()
            }
        batch.views, batch.inputs = batch.views.keep(remaining), batch.inputs.keep(remaining)
        for name in ("drawn", "backgrounds", "best", "best_psnr", "stale"):
            setattr(batch, name, getattr(batch, name)[remaining])
        batch.places, batch.seconds = batch.places[remaining.cpu()], batch.seconds[remaining.cpu()]


def clip_each(parameters: Iterable[Tensor], norm: float) -> None:
    """Clip each object's gradient norm, over all its parameters [B,...]."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = torch.stack([g.square().flatten(1).sum(dim=1) for g in gradients])
    factor = (norm / squares.sum(dim=0).sqrt().clamp(min=1e-30)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
