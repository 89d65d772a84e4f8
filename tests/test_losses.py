"""Every loss against a hand computation in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor

from z1g.errors import UserError
from z1g.losses import Comparison, Loss, weighted_sum
from z1g.losses.latent import LatentLoss
from z1g.losses.perceptual import LpipsLoss, StLpipsLoss
from z1g.losses.rendering import AlphaLoss, RgbLoss
from z1g.losses.splat import AttributeWeights, SplatLoss


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
    assert SplatLoss(attributes=only).compute(Comparison(splats=p, splats_true=t)).item() == pytest.approx(2 * mse(3, 4))


def test_splat_loss_compares_scales_as_logarithms_where_asked() -> None:
    p, t = splats(1), splats(2)
    only = AttributeWeights(position=0, opacity=0, scale=1, rotation=0, rgb=0)
    value = SplatLoss(attributes=only, log=("scale",)).compute(Comparison(splats=p, splats_true=t)).item()
    a, b = (np.log(x.numpy()[:, :, 4:7] + 1e-8) for x in (p, t))
    assert value == pytest.approx(((a - b) ** 2).mean())


def test_splat_loss_sees_no_difference_between_q_and_minus_q() -> None:
    t = splats(2)
    p = t.clone()
    p[:, :, 7:11] *= -1
    pair = Comparison(splats=p, splats_true=t)
    assert SplatLoss().compute(pair).item() == 0
    assert SplatLoss(sign_invariant_rotation=False).compute(pair).item() == pytest.approx(4 / 4)


def test_splat_loss_can_ignore_what_nobody_sees() -> None:
    t = splats(2)
    t[:, :, 3, :2], t[:, :, 3, 2:] = 0, 0.5
    unseen, seen = t.clone(), t.clone()
    unseen[:, :, 0:3, :2] += 1
    seen[:, :, 0:3, 2:] += 1
    loss = SplatLoss(opacity_weighted=True)
    assert loss.compute(Comparison(splats=unseen, splats_true=t)).item() == pytest.approx(0)
    # Half of the pixels are wrong by 1 and weigh twice the mean.
    assert loss.compute(Comparison(splats=seen, splats_true=t)).item() == pytest.approx(1)


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
    # The plain v loss itself, with v = a·eps - s·x0 and x0 predicted through x0 = a·x_t - s·v.
    a, s = (snr / (1 + snr)).sqrt()[:, None, None, None], (1 / (1 + snr)).sqrt()[:, None, None, None]
    noise = random(3, 4, 2, 2, seed=3)
    noisy = a * y + s * noise
    v_true, v_predicted = a * noise - s * y, (a * noisy - x) / s
    expected = ((v_true - v_predicted) ** 2).mean().item()
    assert LatentLoss(weighting="v").compute(pair).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", [StLpipsLoss(resolution=64), StLpipsLoss(resolution=80, net="vgg")])
def test_perceptual_loss_is_a_distance_with_gradients_for_the_prediction(loss: Loss) -> None:
    truth = random(1, 2, 3, 48, 48).float()
    prediction = random(1, 2, 3, 48, 48, seed=1).float().requires_grad_(True)
    value = loss.compute(Comparison(rgb=prediction, rgb_true=truth))
    assert value.item() > 0.01
    assert loss.compute(Comparison(rgb=truth, rgb_true=truth)).item() == pytest.approx(0, abs=1e-7)
    value.backward()
    assert prediction.grad is not None
    assert prediction.grad.abs().max() > 0


def test_the_perceptual_network_has_its_published_weights_and_cannot_be_trained() -> None:
    from pathlib import Path

    import stlpips_pytorch

    from z1g.perceptual import st_lpips

    file = Path(stlpips_pytorch.__file__).parent / "weights/vST0.0/alex_shift_tolerant.pth"
    stored = torch.load(file, map_location="cpu", weights_only=True)
    frozen = st_lpips("alex")
    network = frozen._network[0]
    state = network.state_dict()
    for name, value in stored.items():
        assert torch.equal(state[name], value), name
    owner = torch.nn.Module()
    owner.perceptual = frozen
    owner.train()
    assert not network.training
    assert not list(owner.parameters())
    assert not owner.state_dict()


def test_lpips_without_its_trunk_stops_with_one_line(tmp_path) -> None:
    pictures = random(1, 1, 3, 64, 64).float()
    pair = Comparison(rgb=pictures, rgb_true=pictures)
    for trunk in (None, str(tmp_path / "missing.pth")):
        with pytest.raises(UserError, match="VGG16") as caught:
            LpipsLoss(trunk=trunk).compute(pair)
        assert "\n" not in str(caught.value)
    foreign = tmp_path / "foreign.pth"
    torch.save({"features.0.weight": torch.zeros(1)}, foreign)
    with pytest.raises(UserError, match="not torchvision's VGG16"):
        LpipsLoss(trunk=str(foreign)).compute(pair)


def test_lpips_runs_on_a_trunk_of_the_right_shape(tmp_path) -> None:
    from torchvision.models import vgg16

    torch.manual_seed(0)
    trunk = tmp_path / "vgg.pth"
    torch.save({k: v for k, v in vgg16(weights=None).state_dict().items() if k.startswith("features")}, trunk)
    a, b = random(1, 1, 3, 64, 64).float(), random(1, 1, 3, 64, 64, seed=1).float()
    loss = LpipsLoss(trunk=str(trunk), resolution=64)
    assert loss.compute(Comparison(rgb=a, rgb_true=b)).item() > 0
    assert loss.compute(Comparison(rgb=a, rgb_true=a)).item() == pytest.approx(0, abs=1e-7)


def test_the_sum_weighs_terms_and_leaves_out_those_without_weight() -> None:
    rgb, truth = random(1, 1, 3, 4, 4, seed=1), random(1, 1, 3, 4, 4, seed=2)
    pair = Comparison(rgb=rgb, rgb_true=truth)
    losses: dict[str, Loss] = {"a": RgbLoss(weight=2.0), "b": RgbLoss(weight=0.5), "off": AlphaLoss(weight=0.0)}
    total, terms = weighted_sum(losses, pair)
    assert set(terms) == {"a", "b"}
    assert total.item() == pytest.approx(2.5 * terms["a"].item())
    with pytest.raises(ValueError, match="no loss has a weight"):
        weighted_sum({"off": AlphaLoss(weight=0.0)}, pair)


@pytest.mark.parametrize("loss", [RgbLoss(), AlphaLoss(), StLpipsLoss(), SplatLoss(), LatentLoss()])
def test_a_loss_says_what_it_misses(loss: Loss) -> None:
    with pytest.raises(ValueError, match="needs"):
        loss.compute(Comparison())
