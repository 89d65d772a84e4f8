"""Stage 1: codes -> splatter images -> renders, compared with the truth."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as functional
from accelerate import Accelerator
from torch import Tensor

from z1g.camera import INPUT_VIEWS, Cameras
from z1g.codes._book import CodeBook, Posterior
from z1g.codes._predict import one_step
from z1g.data.scenes import SceneStore
from z1g.losses import Comparison, weighted_sum
from z1g.mosaic import tile
from z1g.networks.denoiser import Denoiser
from z1g.networks.diffusion import TIMESTEPS
from z1g.networks.stage1 import Stage1
from z1g.objectives import purposes
from z1g.seeding import keyed_normal, numpy_generator
from z1g.splat import to_gaussians
from z1g.training.data import Batch, Draw, Sample, batch_noise, batch_uniform
from z1g.training.loop import Objective

if TYPE_CHECKING:
    from z1g.config.tree import Experiment

VALIDATION_OBJECTS = 4
MID_GREY = 0.5


@dataclass(frozen=True)
class AutodecoderSamples:
    """Makes the samples of stage 1. Data loading processes get a copy of it, so it holds no networks."""

    config: "Experiment"
    scenes: SceneStore
    ids: list[str]
    with_condition: bool

    def __call__(self, draw: Draw) -> Sample:
        """Everything one position of a batch needs."""
        options = self.config.autodecoder
        scene = self.scenes[self.ids[draw.object_index]]
        generator = numpy_generator(*draw.key, purposes.VIEWS)
        free = self.config.camera.train_ids
        views = generator.choice(free, size=min(options.views, len(free)), replace=False).tolist()
        if options.render_inputs:
            views = [*INPUT_VIEWS, *views]
        rgb, alpha = scene.pictures(views)
        background = generator.random(3) if options.random_background else [MID_GREY] * 3
        sample = {
            "sheet": scene.input_sheet(options.input_size),
            "c2w": scene.c2w[views],
            "rgb": rgb,
            "alpha": alpha,
            "background": torch.tensor(background, dtype=torch.float32)[:, None, None],
        }
        if scene.splats is not None:
            sample["splats"] = scene.splats
        if self.with_condition:
            sample["condition"] = scene.condition(self.config.unet.condition_size)
        return sample


def _fitted(batch: Batch, side: int) -> Tensor | None:
    """Fitted splats [B,6,14,side,side]; path `plain` decodes to more pixels than were fitted."""
    splats = batch.get("splats")
    if splats is None or splats.shape[-1] == side:
        return splats
    larger = functional.interpolate(splats.flatten(0, 1), (side, side), mode="nearest")
    return larger.view(*splats.shape[:3], side, side)


class AutodecoderObjective(Objective):
    """Trains the decoder, and the codes or the encoder where the configuration says so."""

    def __init__(
        self, config: "Experiment", stage1: Stage1, book: CodeBook, scenes: SceneStore, ids: list[str],
        denoiser: Denoiser | None,
    ) -> None:  # fmt: skip
        """ids: training objects. denoiser: the frozen UNet of `mix_diffusion`, if that is on."""
        super().__init__()
        self.encoder, self.decoder, self.book = stage1.encoder, stage1.decoder, book
        self.denoiser = None if denoiser is None else denoiser.requires_grad_(False)
        self.config, self.scenes, self.ids = config, scenes, ids
        self.options = config.autodecoder
        self.sample = AutodecoderSamples(config, scenes, ids, with_condition=denoiser is not None)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        code = self.book.lookup(batch["object_index"], lambda how: self.encode(batch, how))
        splats = self.decoder(self._mixed(batch, code))
        pair = self.compare(splats, batch)
        loss, terms = weighted_sum(self.options.losses, pair)
        return {"loss": loss, **terms}

    def compare(self, splats: Tensor, batch: Batch) -> Comparison:
        """Renders of splats [B,6,14,S,S] beside the batch's pictures, all on its backgrounds, in float32."""
        background = batch["background"][:, None]
        with torch.autocast(splats.device.type, enabled=False):
            side = batch["rgb"].shape[-1]
            cameras = Cameras(batch["c2w"], self.config.camera.fov_y_deg, side, side)
            output = self.config.render.render(to_gaussians(splats.float()), cameras)
        return Comparison(
            rgb=output.over(background),
            rgb_true=self._target(batch, background),
            alpha=output.alpha,
            alpha_true=batch["alpha"],
            splats=splats,
            splats_true=_fitted(batch, splats.shape[-1]),
            epoch=batch.get("epoch"),
            perceptual_dropout=self.options.perceptual_dropout and self.training,
        )

    def _target(self, batch: Batch, background: Tensor) -> Tensor:
        rgb, alpha = batch["rgb"], batch["alpha"]
        if self.options.composite_twice:
            rgb = (rgb + (1 - alpha) * MID_GREY) * alpha
        return rgb + (1 - alpha) * background

    def encode(self, batch: Batch, how: Posterior) -> Tensor:
        """Codes of the batch's input sheets."""
        sheet = batch["sheet"]
        shape = self.encoder.code_shape(sheet)
        if how == "mean":
            return self.encoder.sheet_code(sheet, None)
        if how == "sample":
            return self.encoder.sheet_code(sheet, batch_noise(batch, shape, purposes.POSTERIOR, sheet.device))
        rows = [keyed_normal(shape, index, purposes.POSTERIOR) for index in batch["object_index"].tolist()]
        return self.encoder.sheet_code(sheet, torch.stack(rows).to(sheet.device))

    def _mixed(self, batch: Batch, code: Tensor) -> Tensor:
        """Codes, some of them replaced by one-step predictions, as `mix_diffusion` says."""
        mix = self.options.mix_diffusion
        if mix.interval is None or self.denoiser is None or not self.training:
            return code
        if mix.unit == "passes":
            chosen = batch["epoch"] % mix.interval == 0
        else:
            chosen = batch_uniform(batch, purposes.MIX, code.device) < 1 / mix.interval
        if not bool(chosen.any()):
            return code
        rows = {name: batch[name][chosen] for name in ("key", "condition")}
        timestep = (batch_uniform(rows, purposes.TIMESTEP, code.device) * TIMESTEPS).long()
        noise = batch_noise(rows, tuple(code.shape[1:]), purposes.NOISE, code.device)
        with torch.no_grad():
            latent = self.encoder.condition_latent(rows["condition"])
            condition = self.denoiser.condition(latent, rows["condition"])
        latent_noise = batch_noise(rows, tuple(latent.shape[1:]), purposes.CONDITION_NOISE, code.device)
        predicted = one_step(self.denoiser, code[chosen], timestep, condition, noise, latent_noise)
        return code.index_put((chosen,), predicted.to(code.dtype))

    def after_backward(self, accelerator: Accelerator) -> None:
        self.book.after_backward(accelerator)

    def validate(self) -> dict[str, float]:
        """Mean PSNR in dB on the validation views of a few training objects, on `validation_background`."""
        return {"validation_psnr": sum(self._psnr(i) for i in self._shown()) / len(self._shown())}

    def pictures(self) -> dict[str, Tensor]:
        """Truth beside prediction of the validation views, and the predicted sheet of colours."""
        sheets = {}
        for index in self._shown():
            pair = self._validation_pair(index)
            if pair.rgb is None or pair.rgb_true is None or pair.splats is None:
                raise RuntimeError("a rendering comparison lacks its pictures")
            rows = [torch.cat(list(pictures[0]), dim=-1) for pictures in (pair.rgb_true, pair.rgb)]
            sheets[f"views/{self.ids[index]}"] = torch.cat(rows, dim=-2).clamp(0, 1)
            sheets[f"splats/{self.ids[index]}"] = tile(pair.splats[:, :, 11:])[0].clamp(0, 1)
        return sheets

    def _shown(self) -> range:
        return range(min(VALIDATION_OBJECTS, len(self.ids)))

    def _psnr(self, index: int) -> float:
        pair = self._validation_pair(index)
        if pair.rgb is None or pair.rgb_true is None:
            raise RuntimeError("a rendering comparison lacks its pictures")
        errors = (pair.rgb - pair.rgb_true).square().mean(dim=(0, 2, 3, 4)).clamp(min=1e-10)
        return float((-10 / math.log(10) * errors.log()).mean())

    def _validation_pair(self, index: int) -> Comparison:
        scene = self.scenes[self.ids[index]]
        views = list(self.config.camera.validation_ids)
        rgb, alpha = scene.pictures(views)
        device = self.decoder.anchor.device
        batch = {
            "sheet": scene.input_sheet(self.options.input_size)[None],
            "object_index": torch.tensor([index]),
            "c2w": scene.c2w[views][None],
            "rgb": rgb[None],
            "alpha": alpha[None],
            "background": torch.full((1, 3, 1, 1), self.options.validation_background),
        }
        batch = {name: value.to(device) for name, value in batch.items()}
        code = self.book.lookup(batch["object_index"], lambda how: self.encode(batch, how))
        return self.compare(self.decoder(code), batch)
