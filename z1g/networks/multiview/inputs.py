"""More inputs for a UNet: channels of the image, and a vector that is embedded like the time."""

from __future__ import annotations

from diffusers import UNet2DConditionModel

from z1g.core.seeding import seeded
from z1g.networks.wider import own_options, padded

SEED = 2
"""Of the initial weights of new layers."""


def with_inputs(unet: UNet2DConditionModel, channels: int, vector: int | None = None) -> UNet2DConditionModel:
    """A UNet with the weights of another one and more inputs.

    channels: of its images, at least as many as before; the weights of new ones are zero, so that they change nothing
    before training (Brooks et al. 2023, §3.2.1). vector: width of `class_labels`, which are embedded like the time and
    added to it, by layers with PyTorch's initial weights.
    """
    config = {**own_options(unet), "in_channels": channels}
    if vector is not None:
        config |= {"class_embed_type": "projection", "projection_class_embeddings_input_dim": vector}
    with seeded(SEED):
        grown: UNet2DConditionModel = UNet2DConditionModel.from_config(config)
    state = {name: value for name, value in unet.state_dict().items() if not name.startswith("class_embedding.")}
    new = {name: value for name, value in grown.state_dict().items() if name.startswith("class_embedding.")}
    grown.load_state_dict({**new, **state, "conv_in.weight": padded(state["conv_in.weight"], columns=channels)})
    return grown.requires_grad_(True)
