"""Folders as `z1g pack` writes them, with untrained networks, for what starts from a trained model."""

from pathlib import Path

import torch

from z1g.config.tree import Experiment
from z1g.core.seeding import seeded
from z1g.inference.models import TrainedModel, write_model
from z1g.networks.weights.packaged import NETWORKS
from z1g.representations.codec import Trained

MEAN, DEVIATION = 0.25, 3.0
"""Statistics of codes of the models written here, for all channels."""


def write(experiment: Experiment, out: Path, *, int8: bool = False, seed: int = 5, card: str = "A model.") -> Path:
    """Write a model with all weights of `experiment`'s networks moved at random by a little. Returns `out`."""
    codec, denoiser = experiment.new_codec(), experiment.new_denoiser()
    with torch.no_grad(), seeded(seed):
        for parameter in (*codec.parameters(), *denoiser.parameters()):
            parameter.add_(0.02 * torch.randn_like(parameter))
        zero = codec.condition_latent(torch.full((1, 3, *[experiment.unet.condition_size] * 2), 0.5))
    mean, _ = codec.normalization(torch.zeros(2, *codec.code_shape))
    statistics = {
        "mean": torch.full_like(mean, MEAN), "deviation": torch.full_like(mean, DEVIATION), "zero_latent": zero,
    }  # fmt: skip
    pipeline = out.with_name(f".{out.name}") / NETWORKS
    experiment.representation.save(pipeline, Trained(codec, denoiser, statistics), experiment.camera, experiment.splat)
    model = TrainedModel(
        out.name, pipeline, experiment.infer, experiment.camera, experiment.render, experiment.unet.condition_form,
        {"unet": "0123456789"},
    )  # fmt: skip
    write_model(model, out, int8=int8, about={}, card=card)
    return out
