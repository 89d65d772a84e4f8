"""Losses against independent float64 computations."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from z1g.core.errors import UserError
from z1g.losses import Comparison, Loss, weighted_sum
from z1g.losses.latent import LatentLoss
from z1g.losses.lpips import LpipsLoss, StLpipsLoss
from z1g.losses.rendering import AlphaLoss, RgbLoss
from z1g.losses.splat import AttributeWeights, SplatLoss
from z1g.networks import perceptual


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def splats(seed: int) -> Tensor:
    x = random(2, 6, 14, 4, 4, seed=seed)
    x[:, :, 7:11] = torch.nn.functional.normalize(x[:, :, 7:11] - 0.5, dim=2)
    x[:, :, 4:7] = 0.001 + 0.05 * x[:, :, 4:7]
    return x


def test_rgb_and_alpha_are_mean_squared_errors() -> None:
    rgb, rgb_true, alpha, alpha_true = (random(2, 3, c, 5, 4, seed=i) for i, c in enumerate((3, 3, 1, 1)))
    pair = Comparison(rgb=rgb, rgb_true=rgb_true, alpha=alpha, alpha_true=alpha_true)
    assert RgbLoss().compute(pair).item() == pytest.approx(((rgb.numpy() - rgb_true.numpy()) ** 2).mean())
    assert AlphaLoss().compute(pair).item() == pytest.approx(((alpha.numpy() - alpha_true.numpy()) ** 2).mean())


def test_splat_loss_weighs_each_attribute() -> None:
    p, t = splats(1), splats(2)
    a, b = p.numpy(), t.numpy()

    def mse(first: int, last: int) -> float:
        return float(((a[:, :, first:last] - b[:, :, first:last]) ** 2).mean())

    expected = mse(0, 3) + 1e-3 * mse(3, 4) + 1e-3 * mse(4, 7) + mse(7, 11) + mse(11, 14)
    loss = SplatLoss(sign_invariant_rotation=False)
    assert loss.compute(Comparison(splats=p, splats_true=t)).item() == pytest.approx(expected)
    only = AttributeWeights(position=0, opacity=2, scale=0, rotation=0, rgb=0)
    value = SplatLoss(attributes=only).compute(Comparison(splats=p, splats_true=t)).item()
    assert value == pytest.approx(2 * mse(3, 4))


def test_splat_loss_compares_scales_as_logarithms_on_request() -> None:
    p, t = splats(1), splats(2)
    only = AttributeWeights(position=0, opacity=0, scale=1, rotation=0, rgb=0)
    value = SplatLoss(attributes=only, log=("scale",)).compute(Comparison(splats=p, splats_true=t)).item()
    a, b = (np.log(x.numpy()[:, :, 4:7] + 1e-8) for x in (p, t))
    assert value == pytest.approx(((a - b) ** 2).mean())


@pytest.mark.parametrize("attribute", ["position", "rotation", "rgb"])
def test_splat_loss_refuses_logarithms_of_what_has_none(attribute: str) -> None:
    with pytest.raises(ValueError, match=f"opacity and scale can be compared as logarithms, not {attribute}"):
        SplatLoss(log=("scale", attribute))


def test_splat_loss_has_gradients_for_the_weighted_channels_only() -> None:
    p, t = splats(1).requires_grad_(True), splats(2)
    SplatLoss(attributes=AttributeWeights(rotation=0)).compute(Comparison(splats=p, splats_true=t)).backward()
    assert p.grad is not None
    moved = p.grad.abs().amax(dim=(0, 1, 3, 4)) > 0
    assert moved.tolist() == [True] * 7 + [False] * 4 + [True] * 3


def test_splat_loss_is_invariant_to_the_sign_of_quaternions() -> None:
    t = splats(2)
    p = t.clone()
    p[:, :, 7:11] *= -1
    pair = Comparison(splats=p, splats_true=t)
    assert SplatLoss().compute(pair).item() == 0
    assert SplatLoss(sign_invariant_rotation=False).compute(pair).item() == pytest.approx(4 / 4)


def test_splat_loss_can_ignore_invisible_splats() -> None:
    t = splats(2)
    t[:, :, 3, :2], t[:, :, 3, 2:] = 0, 0.5
    unseen, seen = t.clone(), t.clone()
    unseen[:, :, 0:3, :2] += 1
    seen[:, :, 0:3, 2:] += 1
    loss = SplatLoss(opacity_weighted=True)
    assert loss.compute(Comparison(splats=unseen, splats_true=t)).item() == pytest.approx(0)
    # Half of the pixels are off by 1 and have twice the mean weight.
    assert loss.compute(Comparison(splats=seen, splats_true=t)).item() == pytest.approx(1)
    # By default all pixels have the same weight; opacity's errors always do.
    assert SplatLoss().compute(Comparison(splats=unseen, splats_true=t)).item() == pytest.approx(0.5)
    ghost = t.clone()
    ghost[:, :, 3, :2] = 1
    assert loss.compute(Comparison(splats=ghost, splats_true=t)).item() == pytest.approx(1e-3 / 2)


def test_latent_weightings_are_those_of_v_and_min_snr() -> None:
    x, y = random(3, 4, 2, 2, seed=1), random(3, 4, 2, 2, seed=2)
    snr = torch.tensor([0.1, 2.0, 50.0], dtype=torch.float64)
    error = ((x - y) ** 2).mean(dim=(1, 2, 3))
    pair = Comparison(latents=x, latents_true=y, snr=snr)
    assert LatentLoss().compute(pair).item() == pytest.approx(error.mean().item())
    assert LatentLoss(weighting="min_snr").compute(pair).item() == pytest.approx(
        (error * torch.tensor([0.1, 2.0, 5.0])).mean().item()
    )
    assert LatentLoss(weighting="min_snr", gamma=1.0).compute(pair).item() == pytest.approx(
        (error * torch.tensor([0.1, 1.0, 1.0])).mean().item()
    )
    # The v loss itself, with v = a·eps - s·x0 and x0 predicted through x0 = a·x_t - s·v.
    a, s = (snr / (1 + snr)).sqrt()[:, None, None, None], (1 / (1 + snr)).sqrt()[:, None, None, None]
    noise = random(3, 4, 2, 2, seed=3)
    noisy = a * y + s * noise
    v_true, v_predicted = a * noise - s * y, (a * noisy - x) / s
    expected = ((v_true - v_predicted) ** 2).mean().item()
    assert LatentLoss(weighting="v").compute(pair).item() == pytest.approx(expected)
    # The error of the noise, eps = (x_t - a·x0) / s.
    noise_predicted = (noisy - a * x) / s
    expected = ((noise - noise_predicted) ** 2).mean().item()
    assert LatentLoss(weighting="epsilon").compute(pair).item() == pytest.approx(expected)


@pytest.mark.parametrize("weighting", ["x0", "v", "epsilon", "min_snr"])
def test_parts_of_a_code_are_weighted_like_objects(weighting: Any) -> None:
    """Two objects of two parts with four timesteps are four objects of one part."""
    x, y = random(2, 2, 4, 3, 3, seed=1), random(2, 2, 4, 3, 3, seed=2)
    snr = torch.tensor([[0.1, 2.0], [50.0, 7.0]], dtype=torch.float64)
    loss = LatentLoss(weighting=weighting)
    together = loss.compute(Comparison(latents=x, latents_true=y, snr=snr))
    alone = loss.compute(Comparison(latents=x.flatten(0, 1), latents_true=y.flatten(0, 1), snr=snr.flatten()))
    assert together.item() == pytest.approx(alone.item())


@pytest.mark.slow
@pytest.mark.parametrize("loss", [StLpipsLoss(resolution=64), StLpipsLoss(resolution=80, net="vgg")])
def test_perceptual_loss_is_a_distance_with_gradients_for_the_prediction_alone(loss: Loss) -> None:
    truth = random(1, 2, 3, 48, 48).float().requires_grad_(True)
    prediction = random(1, 2, 3, 48, 48, seed=1).float().requires_grad_(True)
    value = loss.compute(Comparison(rgb=prediction, rgb_true=truth))
    assert value.item() > 0.01
    assert loss.compute(Comparison(rgb=truth, rgb_true=truth)).item() == pytest.approx(0, abs=1e-7)
    value.backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert prediction.grad.abs().max() > 0
    assert truth.grad is None
    assert all(p.grad is None and not p.requires_grad for p in loss.network().network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("side", [48, 96, 128])
def test_perceptual_loss_uses_its_resolution_and_trunk(side: int) -> None:
    a, b = random(1, 2, 3, side, side).float(), random(1, 2, 3, side, side, seed=1).float()
    pair = Comparison(rgb=a, rgb_true=b)

    def by_hand(net: perceptual.Net, size: int) -> float:
        first, second = (
            torch.nn.functional.interpolate(x[0], (size, size), mode="bilinear", antialias=True) for x in (a, b)
        )
        return float(perceptual.st_lpips(net).network(first, second, normalize=True).mean())

    at_64, at_96 = by_hand("alex", 64), by_hand("alex", 96)
    assert StLpipsLoss(resolution=64).compute(pair).item() == pytest.approx(at_64, rel=1e-5)
    assert StLpipsLoss(resolution=96).compute(pair).item() == pytest.approx(at_96, rel=1e-5)
    assert abs(at_64 - at_96) > 1e-3
    assert StLpipsLoss(resolution=64, net="vgg").compute(pair).item() == pytest.approx(by_hand("vgg", 64), rel=1e-5)
    assert abs(by_hand("vgg", 64) - at_64) > 1e-3


def test_perceptual_loss_uses_the_requested_views() -> None:
    a, b = random(2, 3, 3, 64, 64).float(), random(2, 3, 3, 64, 64, seed=1).float()
    first = StLpipsLoss(resolution=64).compute(Comparison(rgb=a[:, :1], rgb_true=b[:, :1])).item()
    everything = Comparison(rgb=a, rgb_true=b)
    assert StLpipsLoss(resolution=64, views=1).compute(everything).item() == pytest.approx(first, rel=1e-5)
    assert StLpipsLoss(resolution=64).compute(everything).item() != pytest.approx(first, rel=1e-4)


def test_perceptual_distances_keep_float32_under_autocast() -> None:
    a, b = random(1, 3, 64, 64).float(), random(1, 3, 64, 64, seed=1).float()
    network = perceptual.st_lpips("alex")
    plain = network(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = network(a, b)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, plain)


def test_the_perceptual_network_has_its_published_weights_and_cannot_be_trained() -> None:
    import stlpips_pytorch

    file = Path(stlpips_pytorch.__file__).parent / "weights/vST0.0/alex_shift_tolerant.pth"
    stored = torch.load(file, map_location="cpu", weights_only=True)
    frozen = perceptual.st_lpips("alex")
    assert perceptual.st_lpips("alex") is frozen
    network = frozen.network
    state = network.state_dict()
    for name, value in stored.items():
        assert torch.equal(state[name], value), name
    owner = torch.nn.Module()
    owner.perceptual = frozen
    owner.train()
    assert not any(module.training for module in network.modules())
    assert not list(owner.parameters())
    assert not owner.state_dict()


def test_incomplete_perceptual_weights_are_refused() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    whole = network.state_dict()
    with pytest.raises(RuntimeError, match=r"1\.bias"):
        perceptual._load_complete(network, {name: value for name, value in whole.items() if name != "1.bias"})
    with pytest.raises(RuntimeError, match=r"2\.weight"):
        perceptual._load_complete(network, {**whole, "2.weight": torch.zeros(2, 2)})


def test_lpips_without_its_trunk_raises_a_one_line_error(tmp_path: Path) -> None:
    images = random(1, 1, 3, 64, 64).float()
    pair = Comparison(rgb=images, rgb_true=images)
    for missing in (None, str(tmp_path / "missing.pth"), str(tmp_path)):
        with pytest.raises(UserError, match="VGG16") as caught:
            LpipsLoss(trunk=missing).compute(pair)
        assert "\n" not in str(caught.value)


def test_the_sum_weights_terms_and_omits_those_without_weight() -> None:
    rgb, truth = random(1, 1, 3, 4, 4, seed=1), random(1, 1, 3, 4, 4, seed=2)
    pair = Comparison(rgb=rgb, rgb_true=truth)
    losses: dict[str, Loss] = {"a": RgbLoss(weight=2.0), "b": RgbLoss(weight=0.5), "off": AlphaLoss(weight=0.0)}
    total, terms = weighted_sum(losses, pair)
    assert set(terms) == {"a", "b"}
    assert total.item() == pytest.approx(2.5 * terms["a"].item())
    with pytest.raises(ValueError, match="no loss has a weight"):
        weighted_sum({"off": AlphaLoss(weight=0.0)}, pair)


@pytest.mark.parametrize("loss", [RgbLoss(), AlphaLoss(), StLpipsLoss(), SplatLoss(), LatentLoss()])
def test_a_loss_names_missing_tensors(loss: Loss) -> None:
    with pytest.raises(ValueError, match="needs"):
        loss.compute(Comparison())


def test_reading_a_configuration_imports_no_torch() -> None:
    code = (
        "import sys; from z1g.core.slots import kinds; from z1g.losses import Loss; from z1g.metrics import Metric;"
        "kinds(Loss), kinds(Metric); sys.exit(bool({'torch', 'lpips', 'stlpips_pytorch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
