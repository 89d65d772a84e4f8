"""Stage 1: decodes codes to splatter images and compares their renders with the ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from z1g.codes.book import CodeBook, EncodedBook, Posterior
from z1g.codes.posteriors import KeptPosteriors
from z1g.codes.predictions import one_step
from z1g.core.device import default_device
from z1g.core.seeding import keyed_normal
from z1g.data.bank import Cache, Scenes, provide
from z1g.gaussians.channels import enlarged, to_gaussians
from z1g.geometry.camera import FIXED_VIEWS, Cameras
from z1g.losses import Comparison, weighted_sum
from z1g.networks.denoiser import Denoiser
from z1g.networks.diffusion import TIMESTEPS
from z1g.objectives import purposes
from z1g.objectives.adversary import Adversary
from z1g.objectives.augmentation import Augmenter
from z1g.objectives.samples import MID_GRAY, AutodecoderSamples, gathered, images
from z1g.objectives.validation import (
    IMAGED,
    MAX_OBJECTS,
    ObjectPrediction,
    ValidationObjects,
    attribute_errors,
    histograms,
    log_images,
)
from z1g.representations.codec import Codec
from z1g.training.data import Batch, batch_noise, batch_uniform
from z1g.training.objective import Objective

if TYPE_CHECKING:
    from z1g.config.tree import Experiment


class AutodecoderObjective(Objective):
    """Trains the decoder and, if configured, the codes or the encoder."""

    def __init__(
        self, config: Experiment, codec: Codec, book: CodeBook, scenes: Scenes, ids: list[str],
        denoiser: Denoiser | None, held_out: Sequence[str] = (), cache: Cache = "none",
    ) -> None:  # fmt: skip
        """ids: training objects. denoiser: the frozen UNet of `mix_diffusion`, if enabled.

        held_out: objects for validation only. cache: where the views of training objects are cached.
        """
        super().__init__()
        self.codec, self.book = codec, book
        self.denoiser = None if denoiser is None else denoiser.requires_grad_(False)
        self.config, self.options, self.ids = config, config.autodecoder, ids
        views, self.bank = provide(cache, scenes, ids, default_device())
        # Recomputed blocks would use the stored weights instead of the cast ones.
        codec.use_bf16_weights(self.options.bf16 == "weights" and not self.options.train.speed.recompute)
        place = torch.device("cpu") if self.bank is None else self.bank.rgba.device
        self.kept = None if codec.encoder_is_trained else KeptPosteriors(len(ids), place)
        self.sample = AutodecoderSamples(config, views)
        self.augmenter: Augmenter | None = None
        if self.options.augment:
            poses = scenes.views(ids[0], FIXED_VIEWS).c2w
            self.augmenter = Augmenter(self.options.augment, poses, default_device())
        self.adversary = Adversary.of(self.options.adversarial, codec, self.options.train)
        self.watched = ValidationObjects(config, scenes, ids)
        self.held_out = ValidationObjects(config, scenes, held_out)

    def networks(self) -> list[nn.Module]:
        return self.codec.networks()

    def prepare(self, batch: Batch) -> Batch:
        batch = gathered(batch, self.bank)
        return self._images(batch if self.augmenter is None else self.augmenter(batch))

    def _images(self, batch: Batch) -> Batch:
        form = None if self.denoiser is None else self.config.unet.condition_form
        return images(batch, self.codec.inputs, form)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        code = self._noised(batch, self._mixed(batch, self.code(batch)))
        splats, own = self.codec.decode_compared(code, batch.get("splats"))
        pair = self.compare(splats, batch)
        loss, terms = weighted_sum(self.options.losses, pair)
        for name, term in own.items():
            loss, terms = loss + term, {**terms, name: term.detach()}
        if self.adversary is not None and self.training:
            loss, judged = self.adversary(loss, pair, self.codec.last_layers())
            terms |= judged
        return {"loss": loss, **terms}

    def compare(self, splats: Tensor, batch: Batch) -> Comparison:
        """Renders of splats [B,6,14,S,S] and the batch's images, all on its backgrounds, in float32."""
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
            splats_true=enlarged(batch["splats"], splats.shape[-1]) if "splats" in batch else None,
            epoch=batch.get("epoch"),
            perceptual_dropout=self.options.perceptual_dropout and self.training,
        )

    def _target(self, batch: Batch, background: Tensor) -> Tensor:
        rgb, alpha = batch["rgb"], batch["alpha"]
        if self.options.composite_twice:
            rgb = (rgb + (1 - alpha) * MID_GRAY) * alpha
        return rgb + (1 - alpha) * background

    def code(self, batch: Batch) -> Tensor:
        """Codes [B,*code_shape] of training objects."""
        return self.book.lookup(batch["object_index"], lambda how: self.encode(batch, how, self.kept))

    def encode(self, batch: Batch, how: Posterior, kept: KeptPosteriors | None = None) -> Tensor:
        """Codes of the batch's objects from the encoder. kept: cached posteriors of training objects."""
        inputs, codec = batch["inputs"], self.codec
        index = batch["object_index"].to(inputs.device)
        if kept is None:
            mean, deviation = codec.posterior(inputs)
        else:
            mean, deviation = kept.of(index, lambda i: codec.posterior(inputs[i : i + 1]))
        shape = tuple(mean.shape[1:])
        if how == "mean":
            return codec.code(mean, deviation, None)
        if how == "sample":
            return codec.code(mean, deviation, batch_noise(batch, shape, purposes.POSTERIOR, inputs.device))
        keys = torch.stack([index, torch.full_like(index, purposes.POSTERIOR)], dim=1)
        return codec.code(mean, deviation, keyed_normal(keys, shape))

    def _mixed(self, batch: Batch, code: Tensor) -> Tensor:
        """Codes, some of them replaced by one-step predictions according to `mix_diffusion`."""
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
        timestep = mix.timesteps.draw(batch_uniform(rows, purposes.TIMESTEP, code.device), TIMESTEPS)
        noise = batch_noise(rows, tuple(code.shape[1:]), purposes.NOISE, code.device)
        with torch.no_grad():
            latent = self.codec.condition_latent(rows["condition"])
            condition = self.denoiser.condition(latent, rows["condition"])
        latent_noise = batch_noise(rows, tuple(latent.shape[1:]), purposes.CONDITION_NOISE, code.device)
        predicted = one_step(self.denoiser, code[chosen], timestep, condition, noise, latent_noise)
        return code.index_put((chosen,), predicted.to(code.dtype))

    def _noised(self, batch: Batch, code: Tensor) -> Tensor:
        """Codes with noise of random levels up to `code_noise`: noise-augmented decoding (Zheng et al. 2025)."""
        if self.options.code_noise == 0 or not self.training:
            return code
        level = self.options.code_noise * batch_uniform(batch, purposes.CODE_NOISE_LEVEL, code.device)
        # Detached, so that larger codes are not rewarded with relatively less noise.
        deviation = (level * code.detach().float().flatten(1).std(dim=1)).view(-1, *[1] * (code.ndim - 1))
        return code + deviation * batch_noise(batch, tuple(code.shape[1:]), purposes.CODE_NOISE, code.device)

    def after_backward(self, accelerator: Accelerator) -> None:
        self.book.after_backward(accelerator)
        if self.adversary is not None:
            self.adversary.after_backward(accelerator)

    def discard(self) -> None:
        self.book.discard()
        if self.adversary is not None:
            self.adversary.discard()

    def validate(self) -> dict[str, float]:
        """PSNR in dB on `validation_background` and errors of attributes, means over a few objects' validation views.

        `validation_psnr` and the errors are of training objects. `held_out_psnr` is of held-out objects and needs codes
        of the encoder; other codes would have to be optimized.
        """
        predictions = list(self._predictions(self.watched))
        figures = {"validation_psnr": _mean_psnr(predictions), **attribute_errors(predictions)}
        if self.held_out.names and isinstance(self.book, EncodedBook):
            figures["held_out_psnr"] = _mean_psnr(list(self._predictions(self.held_out)))
        return figures

    def images(self) -> dict[str, Tensor]:
        return log_images(list(self._predictions(self.watched, IMAGED)))

    def histograms(self) -> dict[str, Tensor]:
        return histograms(list(self._predictions(self.watched, IMAGED)))

    def _predictions(self, objects: ValidationObjects, limit: int = MAX_OBJECTS) -> Iterator[ObjectPrediction]:
        return objects.predictions(self._predict, default_device(), limit)

    def _predict(self, batch: Batch) -> Comparison:
        batch = self._images(batch)
        code = self.book.lookup(batch["object_index"], lambda how: self.encode(batch, how))
        return self.compare(self.codec.decode(code), batch)


def _mean_psnr(predictions: list[ObjectPrediction]) -> float:
    return sum(prediction.psnr() for prediction in predictions) / len(predictions)
