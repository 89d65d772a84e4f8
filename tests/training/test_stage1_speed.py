"""Optimizations of stage 1 change values and gradients by rounding only."""

import pytest
import torch
import torch.nn.functional as functional
from support.diffusion import normal
from torch import Tensor

from z1g.bench.made_up import MadeUpScenes, Sizes, experiment
from z1g.codes.book import EncodedBook
from z1g.gaussians.channels import CHANNELS
from z1g.geometry.camera import Cameras
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.render.auto import Auto
from z1g.render.base import RenderOutput
from z1g.training.data import Draw
from z1g.training.options import SpeedOptions
from z1g.training.speed import tune

SIZES = Sizes(views=2, image=32, splats=16, inputs=32, channels=(16, 16), layers=1, perceptual=64)


def decoded(whole_bf16: bool, autocast: bool, speed: SpeedOptions | None = None) -> dict[str, Tensor]:
    """Splats and gradients of the weights."""
    codec = experiment(SIZES).new_codec()
    codec.decoder.whole_bf16 = whole_bf16
    tune([codec.decoder], speed or SpeedOptions(), torch.device("cpu"))
    code = normal(2, 4, 48, 32)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        splats = codec.decoder(code)
    assert splats.dtype == torch.float32
    (splats * normal(*splats.shape, seed=1)).mean().backward()
    gradients = {name: p.grad for name, p in codec.decoder.named_parameters() if p.grad is not None}
    return {"splats": splats.detach(), **gradients}


def test_decoder_in_bfloat16_with_weights_in_float32() -> None:
    """Splats within 0.03 of float32 almost everywhere, gradients as close to float32 as those of autocast."""
    exact, autocast, whole = decoded(True, False), decoded(False, True), decoded(True, True)
    assert exact.keys() == whole.keys()
    assert all(value.dtype == torch.float32 for value in whole.values())
    assert not torch.equal(whole["splats"], exact["splats"])
    assert ((whole["splats"] - exact["splats"]).abs() < 0.03).float().mean() > 0.99

    def distance(actual: dict[str, Tensor]) -> float:
        a, b = (torch.cat([tensors[n].flatten() for n in exact if n != "splats"]) for tensors in (actual, exact))
        return float((a - b).norm() / b.norm())

    assert 0 < distance(whole) < max(0.05, 1.5 * distance(autocast))


def test_recomputed_blocks_see_the_same_weights() -> None:
    """The cast weights are no longer set in the backward pass."""
    plain, recomputed = decoded(True, True), decoded(True, True, SpeedOptions(recompute=True))
    torch.testing.assert_close(recomputed, plain, atol=0, rtol=0)


def objective(kept: bool) -> AutodecoderObjective:
    config = experiment(SIZES)
    codec, scenes = config.new_codec(), MadeUpScenes(config, SIZES.image)
    codec.encoder.requires_grad_(not kept)
    return AutodecoderObjective(config, codec, EncodedBook(sample=True), scenes, scenes.ids, None)


def test_a_frozen_encoder_runs_once_for_each_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its codes equal those of an encoder that runs at every step, with a new sample at each step."""
    kept, each = objective(True).train(), objective(False).train()
    seen: list[int] = []
    posterior = kept.codec.encoder.posterior
    monkeypatch.setattr(kept.codec.encoder, "posterior", lambda x: (seen.append(len(x)), posterior(x))[1])
    codes = []
    for step, rows in enumerate(([2, 0], [0, 2], [3, 2])):
        samples = [kept.sample(Draw(row, 0, (5, step, slot))) for slot, row in enumerate(rows)]
        batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
        batch |= {"object_index": torch.tensor(rows), "key": torch.tensor([[5, step, slot] for slot in range(2)])}
        batch = kept.prepare(batch)
        with torch.no_grad():
            codes.append(kept.code(batch))
            torch.testing.assert_close(codes[-1], each.code(batch), atol=1e-5, rtol=1e-5)
    assert seen == [1, 1, 1]
    assert (codes[0].flip(0) - codes[1]).abs().max() > 1e-3
    assert each.kept is None
    assert not any("kept" in name for name in kept.state_dict())


def test_one_call_renders_the_objects_of_a_batch_as_if_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    of, calls, render = objective(True).train(), list[int](), Auto.render

    def counted(self: Auto, gaussians: Tensor, cameras: Cameras) -> RenderOutput:
        calls.append(len(gaussians))
        return render(self, gaussians, cameras)

    monkeypatch.setattr(Auto, "render", counted)
    samples = [of.sample(Draw(row, 0, (5, 0, row))) for row in range(3)]
    batch = of.prepare({name: torch.stack([sample[name] for sample in samples]) for name in samples[0]})
    values = normal(3, 6, 14, SIZES.splats, SIZES.splats).sigmoid()
    values[:, :, CHANNELS["position"]] -= 0.5
    values[:, :, CHANNELS["scale"]] *= 0.05
    results = []
    for rows in ([slice(0, 3)], [slice(i, i + 1) for i in range(3)]):
        splats = values.clone().requires_grad_(True)
        pairs = [of.compare(splats[row], {name: x[row] for name, x in batch.items()}) for row in rows]
        images = torch.cat([torch.cat([pair.rgb, pair.alpha], dim=2) for pair in pairs])
        (images * normal(*images.shape, seed=2)).sum().backward()
        assert splats.grad is not None
        results.append((images.detach(), splats.grad))
    assert calls == [3, 1, 1, 1]
    assert results[0][0].std() > 0.05
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)


def test_encoder_in_bfloat16_with_weights_in_float32() -> None:
    """Means equal those of float32 up to rounding; stored weights get gradients of the same direction."""
    results = []
    for whole in (False, True):
        codec = experiment(SIZES).new_codec()
        codec.encoder.whole_bf16 = whole
        with torch.autocast("cpu", torch.bfloat16, enabled=whole):
            mean, deviation = codec.encoder.posterior(normal(2, 3, 96, 64).tanh())
        assert mean.dtype == torch.float32
        (mean * normal(*mean.shape, seed=1) + deviation).mean().backward()
        weight = codec.encoder.encoder.conv_in.weight
        assert weight.dtype == torch.float32
        assert weight.grad is not None
        results.append((mean.detach(), weight.grad.flatten()))
    (exact, slope), (half, half_slope) = results
    assert float((half - exact).norm()) < 0.03 * float(exact.norm())
    assert float(functional.cosine_similarity(slope, half_slope, dim=0)) > 0.98
