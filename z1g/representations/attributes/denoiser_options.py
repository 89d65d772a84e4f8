"""Options of the attributes' denoiser, which only stage 2 reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.slots import Section
from z1g.gaussians.channels import Attribute
from z1g.networks.process import Process

if TYPE_CHECKING:
    from z1g.networks.weights.base import WeightsProcess


class AttributeDenoiserOptions(Section):
    """The UNet that generates the latents of all attributes and views together."""

    prediction: Literal["model", "epsilon", "v"] = Field(
        "model",
        description="what the UNet predicts: the noise, or v; model: as the model's weights do, v for random ones. "
        "Errors of predicted noise need the loss weighting `epsilon` or `min_snr`",
    )
    betas: Literal["model", "linear", "scaled_linear"] = Field(
        "model",
        description="noise schedule: `scaled_linear`, of Stable Diffusion, or `linear`, of Zero123++; model: as the "
        "model's weights were trained, linear for random ones",
    )
    cross_attribute: bool = Field(
        True, description="one more attention in every block, over the attributes of a view; it begins without effect"
    )
    rotary: bool = Field(
        True, description="rotary position embedding by attribute, row and column in the attention across attributes"
    )
    alone_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="first fraction of the steps, which train one random attribute of each sample without attention "
        "across attributes; the published training: 0.6. The schedule `step` changes the learning rate",
    )
    timestep_jitter: int = Field(
        100,
        ge=0,
        lt=1000,
        description="timesteps of an object's attributes differ by up to this from the one drawn; 0: all share it",
    )
    cascade: tuple[Attribute, ...] = Field(
        (),
        description="attributes that are generated before the others, which then see them, by the same UNet in twice "
        "the steps; the authors tried position and opacity. Empty: all together",
    )
    embedding_rate: float = Field(
        10.0, gt=0, le=1000, description="learning rate of the embedding of attributes and cameras, in multiples"
    )

    def of(self, process: WeightsProcess) -> AttributeDenoiserOptions:
        """These options with a process in place of `model`."""
        chosen = {name: getattr(process, name) for name in ("prediction", "betas") if getattr(self, name) == "model"}
        return self.model_copy(update=chosen)

    @property
    def noise(self) -> Process:
        """The noise of training and sampling. Raises ValueError if it is still that of a model."""
        if self.betas == "model":
            raise ValueError("the model's process was not inserted")
        return Process(self.betas)
