"""Options of speed do not change the results of training."""

import json

import pytest
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL
from torch import Tensor, nn

from z1g.bench.autodecoder import FLAGS, _speed
from z1g.bench.variants import Variant
from z1g.cli import main as cli
from z1g.core.errors import UserError
from z1g.losses import Comparison
from z1g.losses.lpips import StLpipsLoss
from z1g.training.options import SpeedOptions
from z1g.training.speed import tune


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 16), norm_num_groups=4, latent_channels=2, layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        )  # fmt: skip
        self.decoder = vae.decoder.double()

    def forward(self, code: Tensor) -> Tensor:
        result: Tensor = self.decoder(code)
        return result


def outcome(options: SpeedOptions) -> dict[str, Tensor]:
    """Output and gradients of a decoder under the options, float64."""
    network = Decoder()
    tune([network], options, torch.device("cpu"))
    code = torch.randn(2, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    out = network(code)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {"out": out.detach(), "code": torch.as_tensor(code.grad), **gradients}


def test_same_values_and_gradients() -> None:
    plain, tuned = outcome(SpeedOptions()), outcome(SpeedOptions(recompute=True))
    assert plain.keys() == tuned.keys()
    torch.testing.assert_close(tuned, plain, atol=1e-9, rtol=1e-9)


def test_options_take_effect() -> None:
    kept = {}
    for name, options in (("plain", SpeedOptions()), ("recompute", SpeedOptions(recompute=True))):
        network, sizes = Decoder(), []
        tune([network], options, torch.device("cpu"))
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            network(torch.randn(1, 2, 8, 8, dtype=torch.float64))
        kept[name] = sum(sizes)
    assert kept["recompute"] < 0.6 * kept["plain"]


def test_variants_are_read() -> None:
    variant = Variant.parse("b16+unfused+recompute+micro4", FLAGS)
    assert (variant.batch, variant.micro, variant.on) == (16, 4, {"unfused", "recompute"})
    assert _speed(variant) == SpeedOptions(fused=False, recompute=True)
    for wrong in ("8", "b8+fast", "b", "b8+micro", "bx"):
        with pytest.raises(UserError, match="a variant is"):
            Variant.parse(wrong, FLAGS)


@pytest.mark.slow
def test_bench_measures_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "--views 2 --size 32 --splats 16 --inputs 32 --channels 16 16 --layers 1 --steps 1 --perceptual 64"
    variants = ["b1", "b2+autocast+recompute"]
    assert cli.main(["bench", "autodecoder", "--json", *sizes.split(), "--variants", *variants]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["original_way"]["samples_per_s"] > 0
    assert figures["original_way"]["rasterizer"]
    assert {"samples_per_s", "ms_a_step", "memory_mib"} <= set(figures["variants"]["b2+autocast+recompute"])
    assert figures["ratio"] == pytest.approx(
        figures["samples_per_s"] / figures["original_way"]["samples_per_s"], abs=0.01
    )
    assert figures["tflop_a_sample"] > 0
    assert figures["matmul_bf16_tflops"] > 0
    parts = {"data", "encoder", "decoder_forward", "decoder", "rasterizer", "perceptual", "other_losses", "optimizer"}
    assert set(figures["ms_a_sample"]) == parts
    assert figures["kernels"]
    assert figures["sizes"]["views"] == 2


@pytest.mark.parametrize("difference", [0.02, 0.5])
def test_perceptual_network_in_bfloat16(difference: float) -> None:
    """Distances within 3 % or 3e-5, gradients in nearly the same direction, for small and large differences."""
    generator = torch.Generator().manual_seed(2)
    truth = functional.interpolate(torch.rand(1, 3, 8, 8, generator=generator), (64, 64), mode="bicubic").clamp(0, 1)
    other = functional.interpolate(torch.rand(1, 3, 16, 16, generator=generator), (64, 64), mode="bicubic")
    results = {}
    for precision in ("fp32", "bf16"):
        drawn = truth.lerp(other, difference).clamp(0, 1)[None].requires_grad_(True)
        value = StLpipsLoss(resolution=64, precision=precision).compute(Comparison(rgb=drawn, rgb_true=truth[None]))
        value.backward()
        results[precision] = value.item(), torch.as_tensor(drawn.grad).flatten()
    (exact, gradient), (half, half_gradient) = results["fp32"], results["bf16"]
    assert half != exact
    assert half == pytest.approx(exact, rel=0.03, abs=3e-5)
    assert functional.cosine_similarity(gradient, half_gradient, dim=0) > 0.98
    drawn = truth.lerp(other, difference).clamp(0, 1)[None]
    assert StLpipsLoss(resolution=64).compute(Comparison(rgb=drawn, rgb_true=truth[None])).item() == exact
