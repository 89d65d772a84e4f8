"""Validation of stage 2: losses on codes of trained and of held-out objects."""

from dataclasses import replace

import pytest
import torch
from support.diffusion import PUBLISHED, SHAPE, micro_denoiser, normal
from torch import Tensor

from z1g.config.sections import UNetOptions
from z1g.core.seeding import keyed_normal, keyed_uniform
from z1g.objectives import diffusion, purposes
from z1g.objectives.diffusion import DiffusionData, DiffusionObjective, VariantData

V_LOSS = {"latent": {"kind": "latent", "weighting": "v"}}
ZERO = torch.zeros(1, 4, 4, 4)


def data(n: int, seed: int) -> DiffusionData:
    return DiffusionData(
        normal(n, *SHAPE, seed=seed), normal(n, 4, 4, 4, seed=seed + 1), ZERO, normal(n, 16, seed=seed + 2)
    )


def objective(trained: DiffusionData, held_out: DiffusionData | None = None, **options: object) -> DiffusionObjective:
    chosen = UNetOptions.model_validate({"losses": V_LOSS, **options})
    return DiffusionObjective(chosen, micro_denoiser(), trained, None, held_out).eval()


def drawn(n: int, draw: int) -> tuple[Tensor, Tensor]:
    """Timesteps [N] and noise [N,*SHAPE] of the objects 0..n-1."""
    keys = torch.tensor([[0, draw, i, 0] for i in range(n)])
    keys[:, 3] = purposes.TIMESTEP
    timestep = (keyed_uniform(keys) * 1000).long()
    keys[:, 3] = purposes.NOISE
    return timestep, keyed_normal(keys, SHAPE)


def test_losses_of_a_network_that_predicts_nothing_are_known() -> None:
    """The error of velocity 0 is the velocity, a·noise − s·code."""
    trained, held_out = data(3, 1), data(2, 10)
    own = objective(trained, held_out)
    torch.nn.init.zeros_(own.denoiser.unet.conv_out.weight)
    torch.nn.init.zeros_(own.denoiser.unet.conv_out.bias)
    betas = torch.linspace(PUBLISHED["beta_start"], PUBLISHED["beta_end"], 1000, dtype=torch.float64)
    kept = (1 - betas).cumprod(0)
    for name, codes in (("trained_loss", trained.codes), ("held_out_loss", held_out.codes)):
        errors = []
        for draw in range(diffusion.DRAWS):
            timestep, noise = drawn(len(codes), draw)
            a, s = (x.sqrt().view(-1, 1, 1, 1) for x in (kept[timestep], 1 - kept[timestep]))
            errors.append((a * noise.double() - s * codes.double()).square().mean())
        assert own.validate()[name] == pytest.approx(float(sum(errors)) / len(errors), rel=1e-4)


def test_only_the_first_objects_count_in_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = data(7, 3)
    whole = objective(trained).validate()
    monkeypatch.setattr(diffusion, "AT_ONCE", 2)
    assert objective(trained).validate() == pytest.approx(whole, rel=1e-5)
    monkeypatch.setattr(diffusion, "MAX_OBJECTS", 4)
    assert trained.embeddings is not None
    first = DiffusionData(trained.codes[:4], trained.latents[:4], ZERO, trained.embeddings[:4])
    assert objective(trained).validate() == pytest.approx(objective(first).validate(), rel=1e-5)
    assert objective(trained).validate() != pytest.approx(whole, rel=1e-3)


def test_conditions_are_never_dropped_and_variants_never_used() -> None:
    trained, others = data(3, 1), data(3, 20)
    tensors = {"codes": others.codes[:, None], "latents": others.latents[:, None]}
    varied = DiffusionData(
        trained.codes, trained.latents, ZERO, trained.embeddings, variants=VariantData(tensors, share=1.0)
    )
    figures = objective(trained, condition_dropout=0.0).validate()
    assert objective(varied, condition_dropout=0.99).validate() == figures
    swapped = DiffusionData(trained.codes, others.latents, ZERO, others.embeddings)
    assert objective(swapped).validate() != pytest.approx(figures, rel=1e-6)


def test_without_held_out_objects_or_losses_on_codes_there_is_no_figure() -> None:
    assert objective(data(2, 1)).validate().keys() == {"trained_loss"}
    without = {"latent": {"kind": "latent", "weight": 0.0}}
    assert objective(data(2, 1), data(2, 2), losses=without).validate() == {}


def test_a_network_that_knows_its_objects_by_heart_is_seen() -> None:
    """Trained on two codes until they are known: their loss falls, that of others does not follow."""
    trained, held_out = data(2, 1), data(4, 30)
    own = objective(trained, held_out)
    own.denoiser.requires_grad_(True)
    before = own.validate()
    optimizer = torch.optim.AdamW(own.denoiser.parameters(), lr=5e-3)
    own.train()
    for step in range(60):
        batch = trained.batch(torch.tensor([0, 1] * 4), 100 + step, ZERO.device)
        batch["key"][:, 2] += torch.arange(8)
        optimizer.zero_grad()
        own(batch)["loss"].backward()
        optimizer.step()
    own.eval()
    with torch.no_grad():
        after = own.validate()
    assert after["trained_loss"] < 0.6 * before["trained_loss"]
    assert after["held_out_loss"] > 1.5 * after["trained_loss"]


def test_the_image_encoder_is_idle_if_embeddings_are_at_hand() -> None:
    own, with_images = objective(data(2, 1)), replace(data(2, 1), embeddings=None, images=torch.rand(2, 3, 16, 16))
    own.denoiser.vision.requires_grad_(False)
    assert own.idle() == [own.denoiser.vision]
    own.denoiser.vision.requires_grad_(True)
    assert own.idle() == []
    other = objective(with_images)
    other.denoiser.vision.requires_grad_(False)
    assert other.idle() == []
