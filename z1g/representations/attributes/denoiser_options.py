"""Options of the attributes' denoiser, which only stage 2 reads."""

from typing import Literal

from pydantic import Field

from z1g.core.slots import Section
from z1g.networks.process import Betas


class AttributeDenoiserOptions(Section):
    """The UNet that generates the latents of all attributes and views together."""

    prediction: Literal["epsilon", "v"] = Field(
        "epsilon", description="what the UNet predicts: the noise, as Stable Diffusion 1 does, or v"
    )
    betas: Betas = Field("scaled_linear", description="noise schedule: that of Stable Diffusion, or Zero123++'s")
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
    embedding_rate: float = Field(
        10.0, gt=0, le=1000, description="learning rate of the embedding of attributes and cameras, in multiples"
    )
