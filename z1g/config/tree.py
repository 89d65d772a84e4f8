"""The whole configuration as one tree."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from z1g.codes.encoder import EncoderCodes
from z1g.config.sections import AutodecoderOptions, MetricsOptions, Resources, UNetOptions
from z1g.core.slots import OneOf, Runtime, Section
from z1g.fitting.options import FitOptions
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.losses.latent import LatentLoss
from z1g.losses.splat import SplatLoss
from z1g.losses.splatter import SplatterLoss
from z1g.networks.finetune.lora import Lora
from z1g.networks.weights import Model
from z1g.networks.weights.zero123plus import Zero123Plus
from z1g.render import Rasterizer
from z1g.render.auto import Auto
from z1g.sampling.options import InferOptions
from z1g.sources import DataSource
from z1g.sources.meshes import Meshes


class Experiment(Section):
    """One ablation, fully resolved. Each stage reads only the parts that `z1g.plan.plan` lists for it."""

    data: Annotated[DataSource, OneOf()] = Meshes()
    camera: CameraOptions = CameraOptions()
    splat: SplatOptions = SplatOptions()
    render: Annotated[Rasterizer, OneOf()] = Auto()
    model: Annotated[Model, OneOf()] = Zero123Plus()
    fit: FitOptions = FitOptions()
    autodecoder: AutodecoderOptions = AutodecoderOptions()
    unet: UNetOptions = UNetOptions()
    infer: InferOptions = InferOptions()
    metrics: MetricsOptions = MetricsOptions()
    resources: Annotated[Resources, Runtime()] = Field(Resources(), description="what jobs ask of the cluster")

    @model_validator(mode="after")
    def _sizes_fit(self) -> Experiment:
        factor = self.model.latent_factor
        for name, size in (
            ("autodecoder.input_size", self.autodecoder.input_size),
            ("unet.condition_size", self.unet.condition_size),
        ):
            if size % factor:
                raise ValueError(f"{name} {size} must be a multiple of {factor}, the model's latent factor")
        decoder = self.autodecoder.decoder
        misfit = decoder.path.misfit(self.autodecoder.input_size, self.splat.size, factor.bit_length())
        if misfit:
            raise ValueError(
                f"autodecoder.decoder.path '{decoder.path.kind}' {misfit}; change the sizes or use path 'last_layer'"
            )
        return self

    @model_validator(mode="after")
    def _adapters_have_a_base(self) -> Experiment:
        if isinstance(self.unet.finetune, Lora) and not self.model.pretrained_encoder:
            raise ValueError(
                f"unet.finetune 'lora' adapts trained weights, but model '{self.model.kind}' arrives with random ones; "
                "use kind 'full'"
            )
        return self

    @model_validator(mode="after")
    def _colors_are_fixed(self) -> Experiment:
        decoder = self.autodecoder.decoder
        if decoder.mode == "fixed_rgb":
            if not self.model.pretrained_encoder:
                raise ValueError("autodecoder.decoder.mode 'fixed_rgb' needs a model with published weights")
            if decoder.path.mixes_channels:
                raise ValueError(
                    f"autodecoder.decoder.mode 'fixed_rgb' cannot go with path '{decoder.path.kind}', "
                    "whose trained layers would change the colors"
                )
        return self

    @model_validator(mode="after")
    def _objects_can_be_varied(self) -> Experiment:
        stage1, codes = self.autodecoder, self.autodecoder.codes
        encoded = isinstance(codes, EncoderCodes)
        trained = encoded and (codes.trains_encoder or not self.model.pretrained_encoder)
        if stage1.augment and not trained:
            raise ValueError(
                "autodecoder.augment needs autodecoder.codes of kind 'encoder' with train: true: other codes belong "
                "to the objects as they are; set turned and recolored to 0"
            )
        if stage1.augment.turned > 0 and stage1.mix_diffusion.interval is not None:
            raise ValueError(
                "autodecoder.augment.turned cannot go with mix_diffusion: a turned object's condition is not rendered"
            )
        if self.unet.variants is not None and (not encoded or self.unet.rendered is not None):
            raise ValueError(
                "unet.variants needs autodecoder.codes of kind 'encoder' and unet.rendered: null, as variants have "
                "no codes of their own and no views besides the inputs"
            )
        return self

    @model_validator(mode="after")
    def _losses_fit(self) -> Experiment:
        for name, losses, on_codes in (
            ("fit.losses", self.fit.losses, False),
            ("autodecoder.losses", self.autodecoder.losses, False),
            ("unet.losses", self.unet.losses, True),
            *([] if self.unet.rendered is None else [("unet.rendered.losses", self.unet.rendered.losses, False)]),
        ):
            active = {key: loss for key, loss in losses.items() if loss.weight > 0}
            if not active:
                raise ValueError(f"{name} needs at least one loss with a weight above 0")
            for key, loss in active.items():
                elsewhere = SplatLoss if name == "fit.losses" else SplatterLoss
                if isinstance(loss, LatentLoss) != on_codes or isinstance(loss, elsewhere):
                    has = "codes" if on_codes else "renders" if name == "fit.losses" else "renders and splats"
                    raise ValueError(f"{name}.{key} cannot be used: this stage compares {has}")
        return self
