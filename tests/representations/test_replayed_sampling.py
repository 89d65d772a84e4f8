"""Sampling with CUDA graphs and fused kernels, of all representations, against plain layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.builders import experiment
from support.diffusion import normal

from z1g.networks.denoiser import Condition
from z1g.networks.fused.modules import fuse
from z1g.networks.graphs import Replayed
from z1g.sampling.options import InferOptions
from z1g.sampling.sample import sample_codes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "representation",
    [
        {"kind": "attributes"},
        {"kind": "attributes", "denoiser": {"cascade": ["position", "opacity"]}},
        {"kind": "joint"},
        {"kind": "mosaic"},
    ],
    ids=["attributes", "cascade", "joint", "mosaic"],
)
def test_replayed_and_fused_sampling(representation: dict[str, Any]) -> None:
    """Of two batch sizes, each of which has a graph of its own."""
    config = experiment(Path("unused"), representation=representation)
    shape = config.representation.code_shape(config.model, config.splat.size)
    denoiser = config.new_denoiser().requires_grad_(False).eval()
    for i, parameter in enumerate(denoiser.unet.parameters()):
        parameter += 0.05 * normal(*parameter.shape, seed=i)
    denoiser = denoiser.cuda()
    options = InferOptions(steps=4, guidance=2.0)
    conditions = {
        n: Condition(normal(n, 4, 4, 4, seed=n).cuda(), normal(n, denoiser.embedding_width, seed=n).cuda())
        for n in (1, 2)
    }
    zero = torch.zeros(1, 4, 4, 4)
    with torch.backends.cudnn.flags(allow_tf32=False):
        plain = {n: sample_codes(denoiser, c, zero, shape, options, range(n)) for n, c in conditions.items()}
        fuse(denoiser.unet)
        replayed = Replayed(denoiser)
        for n in (1, 2, 1):
            codes = sample_codes(replayed, conditions[n], zero, shape, options, range(n))
            torch.testing.assert_close(codes, plain[n], atol=1e-3, rtol=1e-3)
    assert len(replayed._recordings) == 2
