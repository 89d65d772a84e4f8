"""The whole configuration as one tree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from z1g.codes.encoder import EncoderCodes
from z1g.config.sections import AutodecoderOptions, MetricsOptions, Resources, UNetOptions
from z1g.config.trained import SETTLED, conflict
from z1g.core.recorded import checked_folder
from z1g.core.slots import OneOf, Runtime, Section
from z1g.fitting.options import FitOptions
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.losses.base import TAKEN
from z1g.losses.latent import LatentLoss
from z1g.losses.splat import SplatLoss
from z1g.losses.splatter import SplatterLoss
from z1g.networks.finetune.lora import Lora
from z1g.networks.process import TRAINED_WITH
from z1g.networks.weights import Model
from z1g.networks.weights.trained import Trained
from z1g.networks.weights.zero123plus import Zero123Plus
from z1g.render import Rasterizer
from z1g.render.auto import Auto
from z1g.representations import Mosaic, Representation
from z1g.sampling.inferred.one_step import OneStepCodes
from z1g.sampling.options import InferOptions
from z1g.sampling.samplers.ddim import Ddim
from z1g.sources import DataSource
from z1g.sources.meshes import Meshes

if TYPE_CHECKING:
    from z1g.networks.denoiser import Denoiser
    from z1g.representations.codec import Codec


NEED_SIGNAL = ("min_snr", "epsilon")
"""Weightings of the loss on codes that are 0 where the input has no signal."""


class Experiment(Section):
    """One ablation, fully resolved. Each stage reads only the parts that `z1g.plan.plan` lists for it."""

    data: Annotated[DataSource, OneOf()] = Meshes()
    camera: CameraOptions = CameraOptions()
    splat: SplatOptions = SplatOptions()
    render: Annotated[Rasterizer, OneOf()] = Auto()
    model: Annotated[Model, OneOf()] = Zero123Plus()
    representation: Annotated[Representation, OneOf()] = Mosaic()
    fit: FitOptions = FitOptions()
    autodecoder: AutodecoderOptions = AutodecoderOptions()
    unet: UNetOptions = UNetOptions()
    infer: InferOptions = InferOptions()
    metrics: MetricsOptions = MetricsOptions()
    resources: Annotated[Resources, Runtime()] = Field(Resources(), description="resources that jobs request")

    def new_codec(self) -> Codec:
        """Stage 1's networks before training; parameters that stage 1 trains have `requires_grad`."""
        codec = self.representation.new_codec(self.model, self.camera, self.splat)
        codes = self.autodecoder.codes
        # A random encoder is useless unless it is trained.
        trained = codes.trains_encoder or not self.model.pretrained_encoder
        codec.encoder.requires_grad_(isinstance(codes, EncoderCodes) and trained)
        return codec

    def load_codec(self, folder: Path) -> Codec:
        """Stage 1's trained networks from the folder that stage 1 wrote, frozen. Raises UserError if it is damaged."""
        return self.representation.load_codec(checked_folder(folder), self.camera, self.splat)

    def new_denoiser(self) -> Denoiser:
        """Stage 2's networks before training."""
        return self.representation.new_denoiser(self.model, self.camera, self.splat)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Experiment:
        if not self.model.available:
            return self
        factor, size = self.model.latent_factor, self.unet.condition_size
        if size % factor:
            raise ValueError(f"unet.condition_size {size} must be a multiple of {factor}, the model's latent factor")
        problem = self.representation.problem(self.model, self.splat.size)
        if problem:
            raise ValueError(f"representation.{problem}")
        return self

    @model_validator(mode="after")
    def _fits_the_trained_model(self) -> Experiment:
        if isinstance(self.model, Trained):
            problem = conflict(self.model, self.model_dump(mode="json", include=set(SETTLED)))
            if problem:
                raise ValueError(problem)
            problem = self._why_not_wider()
            if problem:
                raise ValueError(f"model.code_channels {problem}")
        return self

    def _why_not_wider(self) -> str | None:
        """What other options do not allow codes of more channels; None if there are none."""
        if not isinstance(self.model, Trained) or self.model.code_channels is None:
            return None
        if self.representation.kind != "mosaic":
            return f"is for mosaics, not for representation '{self.representation.kind}': leave it out"
        if not self.unet.normalize_codes:
            return "needs unet.normalize_codes: new channels have no statistics yet"
        return None

    @property
    def initial_model(self) -> Model:
        """The model with the weights from which stage 2 starts."""
        seed = self.unet.init_seed
        return self.model if seed is None else self.model.model_copy(update={"init_seed": seed})

    @model_validator(mode="after")
    def _initial_weights_are_random(self) -> Experiment:
        if self.unet.init_seed is not None and "init_seed" not in type(self.model).model_fields:
            raise ValueError(
                f"unet.init_seed has no effect on model '{self.model.kind}', whose weights are not random; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _adapters_have_a_base(self) -> Experiment:
        if isinstance(self.unet.finetune, Lora) and not self.model.pretrained_encoder:
            raise ValueError(
                f"unet.finetune 'lora' adapts trained weights, but model '{self.model.kind}' has random weights; "
                "use kind 'full'"
            )
        return self

    @model_validator(mode="after")
    def _encoder_knows_its_inputs(self) -> Experiment:
        codes, published = self.autodecoder.codes, self.model.pretrained_encoder and self.model.method is None
        unknown = self.representation.trains_encoder and published and isinstance(codes, EncoderCodes)
        if unknown and not codes.trains_encoder:
            raise ValueError(
                f"representation '{self.representation.kind}' has inputs that the published encoder of model "
                f"'{self.model.kind}' has not seen: set autodecoder.codes.train to true"
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
                "to unaugmented objects; set turned and recolored to 0"
            )
        if stage1.augment.turned > 0 and stage1.mix_diffusion.interval is not None:
            raise ValueError(
                "autodecoder.augment.turned cannot be combined with mix_diffusion: turned objects have no condition"
            )
        if self.unet.variants is not None and self.representation.encodes_splats and self.unet.variants.moves:
            raise ValueError(
                "unet.variants: the encoder sees splats, and moved ones are not where their pixels are; set stretch "
                "and turn_deg to 0 and mirror to false (symmetries may be true), or representation.sees to images"
            )
        if self.unet.variants is not None and (not encoded or self.unet.rendered is not None):
            raise ValueError(
                "unet.variants needs autodecoder.codes of kind 'encoder' and unet.rendered: null, as variants have "
                "no codes of their own and no views besides the inputs"
            )
        return self

    @model_validator(mode="after")
    def _regression_is_asked_once(self) -> Experiment:
        if self.unet.objective != "regression":
            return self
        problem = None
        if isinstance(self.infer.codes, OneStepCodes):
            problem = "infer.codes 'one_step' asks for the denoising of a code: leave it out"
        elif self.unet.rendered is not None and self.unet.rendered.below < TRAINED_WITH["num_train_timesteps"]:
            problem = "unet.rendered.below chooses timesteps of diffusion: leave it out"
        elif any(isinstance(x, LatentLoss) and x.weighting in NEED_SIGNAL for x in self.unet.losses.values()):
            problem = (
                f"its input has no signal, so that losses with weighting {' and '.join(NEED_SIGNAL)} are 0: use 'x0'"
            )
        if problem:
            raise ValueError(f"unet.objective 'regression' predicts a code in one pass; {problem}")
        return self

    @model_validator(mode="after")
    def _distilled_networks_are_sampled_as_they_are_trained(self) -> Experiment:
        distill = self.unet.distill
        if distill is None:
            return self
        problem = distill.problem(self.unet.train)
        if problem:
            raise ValueError(f"unet.distill.{problem}")
        problem = self._why_not_distilled()
        if problem:
            raise ValueError(f"unet.distill {problem}")
        if not isinstance(self.infer.sampler, Ddim) or self.infer.steps != distill.steps or self.infer.guidance != 1:
            raise ValueError(
                f"infer: a UNet that was distilled to {distill.steps} steps is sampled in these only: use "
                f"infer: {{sampler: {{kind: ddim}}, steps: {distill.steps}, guidance: 1}}"
            )
        return self

    def _why_not_distilled(self) -> str | None:
        """What other options do not allow a distillation; None if there are none."""
        if self.unet.objective == "regression":
            return "has no effect with unet.objective 'regression', which takes one step: leave it out"
        if self.representation.in_turns:
            return (
                "samples codes as a whole, but representation.denoiser.cascade generates some attributes before the "
                "others: leave one of them out"
            )
        if not any(loss.weight > 0 for loss in self.unet.losses.values()):
            return "compares codes: unet.losses needs at least one loss with a weight above 0"
        if isinstance(self.infer.codes, OneStepCodes):
            return "leaves a UNet that denoises at its own steps only: infer.codes 'one_step' cannot ask for others"
        return None

    @model_validator(mode="after")
    def _renders_are_of_whole_codes(self) -> Experiment:
        if self.unet.rendered is not None and self.representation.trains_parts:
            raise ValueError(
                "unet.rendered decodes whole codes, but representation.denoiser.alone_share trains parts of them: set "
                "one of them to null or 0"
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
            needed = name != "unet.losses" or self.unet.objective == "diffusion" or self.unet.rendered is None
            if not active and needed:
                raise ValueError(f"{name} needs at least one loss with a weight above 0")
            for key, loss in active.items():
                if key in TAKEN and name != "fit.losses":
                    raise ValueError(f"{name}.{key} needs another name: training has a figure of its own called {key}")
                unsupported = SplatLoss if name == "fit.losses" else SplatterLoss
                if isinstance(loss, LatentLoss) != on_codes or isinstance(loss, unsupported):
                    compared = "codes" if on_codes else "renders" if name == "fit.losses" else "renders and splats"
                    raise ValueError(f"{name}.{key} cannot be used: this stage compares {compared}")
        pair = self.unet.losses, {} if self.unet.rendered is None else self.unet.rendered.losses
        codes, renders = ({key for key, loss in losses.items() if loss.weight > 0} for losses in pair)
        if both := sorted(codes & renders):
            raise ValueError(
                f"unet.rendered.losses.{both[0]} needs another name: unet.losses has a {both[0]}, and the log has one "
                "column for each name"
            )
        return self
