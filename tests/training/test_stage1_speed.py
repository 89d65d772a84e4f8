"""What makes stage 1 fast leaves its values and gradients as they are, up to rounding."""

import pytest
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL
from diffusers.models import attention_processor
from torch import Tensor

from z1g.bench.made_up import MadeUpScenes, Sizes, experiment
from z1g.codes.book import EncodedBook
from z1g.codes.posteriors import KeptPosteriors
from z1g.networks import wide_attention
from z1g.networks.perceptual import _weights, resized
from z1g.networks.wide_attention import WideAttention, attend
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.training.data import Draw
from z1g.training.options import SpeedOptions
from z1g.training.speed import tune

SIZES = Sizes(views=2, image=32, splats=16, inputs=32, channels=(16, 16), layers=1, perceptual=64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scores", [1, 40, 10_000])
def test_wide_attention_is_attention(scores: int) -> None:
    """Values and gradients of torch's own, in float64, however many queries are taken at a time."""
    found = []
    for work in (lambda q, k, v: attend(q, k, v, scores), functional.scaled_dot_product_attention):
        leaves = [randn(2, 11, 6, seed=i).double().mul(2).requires_grad_(True) for i in range(3)]
        out = work(*leaves)
        (out * randn(2, 11, 6, seed=9).double()).sum().backward()
        found.append([out.detach(), *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(*found, atol=1e-12, rtol=1e-12)


def test_wide_attention_in_bfloat16() -> None:
    """Within 2 % of float32 of the largest value."""
    q, k, v = (randn(1, 50, 64, seed=i) for i in range(3))
    exact = functional.scaled_dot_product_attention(q, k, v)
    half = attend(q.bfloat16(), k.bfloat16(), v.bfloat16()).float()
    assert (half - exact).abs().max() < 0.02 * exact.abs().max()


def test_wide_heads_get_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a VAE with it decodes as with diffusers' own."""
    vae = AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2).double()  # fmt: skip
    wide_attention.install(vae)
    assert not any(isinstance(one, WideAttention) for one in vae.attn_processors.values())
    code = randn(2, 4, 5, 6).double()
    expected = vae.decode(code).sample
    monkeypatch.setattr(wide_attention, "WIDE", 8)
    wide_attention.install(vae)
    warned: list[str] = []
    monkeypatch.setattr(attention_processor.logger, "warning", warned.append)
    assert all(isinstance(one, WideAttention) for one in vae.attn_processors.values())
    torch.testing.assert_close(vae.decode(code).sample, expected, atol=1e-12, rtol=1e-12)
    assert not warned


def decoded(whole_bf16: bool, autocast: bool, speed: SpeedOptions | None = None) -> dict[str, Tensor]:
    """Splats and gradients of the weights."""
    codec = experiment(SIZES).new_codec()
    codec.decoder.whole_bf16 = whole_bf16
    tune([codec.decoder], speed or SpeedOptions(), torch.device("cpu"))
    code = randn(2, 4, 48, 32)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        splats = codec.decoder(code)
    assert splats.dtype == torch.float32
    (splats * randn(*splats.shape, seed=1)).mean().backward()
    gradients = {name: p.grad for name, p in codec.decoder.named_parameters() if p.grad is not None}
    return {"splats": splats.detach(), **gradients}


def test_decoder_in_bfloat16_with_weights_in_float32() -> None:
    """Splats within 0.03 of float32 nearly everywhere, gradients as near to float32's as those of autocast are."""
    exact, autocast, whole = decoded(True, False), decoded(False, True), decoded(True, True)
    assert exact.keys() == whole.keys()
    assert all(value.dtype == torch.float32 for value in whole.values())
    assert not torch.equal(whole["splats"], exact["splats"])
    assert ((whole["splats"] - exact["splats"]).abs() < 0.03).float().mean() > 0.99

    def distance(found: dict[str, Tensor]) -> float:
        a, b = (torch.cat([one[n].flatten() for n in exact if n != "splats"]) for one in (found, exact))
        return float((a - b).norm() / b.norm())

    assert 0 < distance(whole) < max(0.05, 1.5 * distance(autocast))


def test_recomputed_blocks_see_the_same_weights() -> None:
    """In the backward pass the cast weights are not in place any more."""
    plain, recomputed = decoded(True, True), decoded(True, True, SpeedOptions(recompute=True))
    torch.testing.assert_close(recomputed, plain, atol=0, rtol=0)


def objective(kept: bool) -> AutodecoderObjective:
    config = experiment(SIZES)
    codec, scenes = config.new_codec(), MadeUpScenes(config, SIZES.image)
    codec.encoder.requires_grad_(not kept)
    return AutodecoderObjective(config, codec, EncodedBook(sample=True), scenes, scenes.ids, None)


def test_a_frozen_encoder_runs_once_for_each_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its codes are those of an encoder that runs at every step, with a new sample at each."""
    kept, each = objective(True).train(), objective(False).train()
    seen: list[int] = []
    posterior = kept.codec.encoder.posterior
    monkeypatch.setattr(kept.codec.encoder, "posterior", lambda x: (seen.append(len(x)), posterior(x))[1])
    codes = []
    for step, rows in enumerate(([2, 0], [0, 2], [3, 2])):
        samples = [kept.sample(Draw(row, 0, (5, step, slot))) for slot, row in enumerate(rows)]
        batch = {name: torch.stack([one[name] for one in samples]) for name in samples[0]}
        batch |= {"object_index": torch.tensor(rows), "key": torch.tensor([[5, step, slot] for slot in range(2)])}
        batch = kept.prepare(batch)
        with torch.no_grad():
            codes.append(kept.code(batch))
            torch.testing.assert_close(codes[-1], each.code(batch), atol=1e-5, rtol=1e-5)
    assert seen == [1, 1, 1]
    assert (codes[0].flip(0) - codes[1]).abs().max() > 1e-3
    assert each.kept is None
    assert not any("kept" in name for name in kept.state_dict())


def test_posteriors_are_those_of_the_object() -> None:
    kept = KeptPosteriors(3, torch.device("cpu"))
    with pytest.raises(ValueError, match="of no object"):
        kept.of(torch.tensor([], dtype=torch.int64), lambda i: (torch.zeros(1), torch.zeros(1)))
    for rows in ([1], [2, 1], [0, 0, 1], [2, 0, 1]):
        index = torch.tensor(rows)
        mean, deviation = kept.of(
            index, lambda i, rows=rows: (torch.full((1, 1, 1, 1), rows[i]), torch.full((1, 1, 1, 1), -rows[i]))
        )
        assert mean.flatten().tolist() == rows
        assert (deviation == -mean).all()


@pytest.mark.parametrize(("old", "new"), [((128, 128), 64), ((100, 70), 64), ((32, 48), 64)])
def test_resized_as_torch_does(old: tuple[int, int], new: int) -> None:
    """Values and gradients."""
    found = []
    for work in (
        lambda x: resized(x, new),
        lambda x: functional.interpolate(x, (new, new), mode="bilinear", antialias=True, align_corners=False),
    ):
        leaf = randn(2, 3, *old).requires_grad_(True)
        out = work(leaf)
        (out * randn(2, 3, new, new, seed=1)).sum().backward()
        found.append((out.detach(), leaf.grad))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)
    assert _weights(old[0], new, torch.device("cpu")).sum(dim=1) == pytest.approx(1.0)


def test_encoder_in_bfloat16_with_weights_in_float32() -> None:
    """Means within bfloat16's rounding of float32's; gradients are of the stored weights, and point the same way."""
    found = []
    for whole in (False, True):
        codec = experiment(SIZES).new_codec()
        codec.encoder.whole_bf16 = whole
        with torch.autocast("cpu", torch.bfloat16, enabled=whole):
            mean, deviation = codec.encoder.posterior(randn(2, 3, 96, 64).tanh())
        assert mean.dtype == torch.float32
        (mean * randn(*mean.shape, seed=1) + deviation).mean().backward()
        weight = codec.encoder.encoder.conv_in.weight
        assert weight.dtype == torch.float32
        assert weight.grad is not None
        found.append((mean.detach(), weight.grad.flatten()))
    (exact, slope), (half, half_slope) = found
    assert float((half - exact).norm()) < 0.03 * float(exact.norm())
    assert float(functional.cosine_similarity(slope, half_slope, dim=0)) > 0.98
