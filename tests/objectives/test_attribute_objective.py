"""Stage 2 on parts of codes: which are drawn, at which timesteps, and what the loss compares."""

import numpy as np
import pytest
import torch
from support.builders import TRAIN
from torch import Tensor, nn

from z1g.config.sections import UNetOptions
from z1g.networks.denoiser import Condition, Denoiser, Parts
from z1g.objectives.diffusion import DiffusionData, DiffusionObjective
from z1g.training.data import Batch, StepData

OBJECTS, PARTS, VIEWS = 4, 3, 2
SHAPE = (PARTS * VIEWS, 2, 2, 2)


class Constant(Denoiser):
    """Predicts one learned number for v, and keeps what it was given."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.unet, self.vision = nn.Linear(1, 1), nn.Identity()
        self.parts = parts
        self.seen: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def forward(
        self, noisy: Tensor, timestep: Tensor, condition: Condition, condition_noise: Tensor, part: Tensor | None = None
    ) -> Tensor:
        self.seen.append((noisy, timestep, part))
        return self.unet.bias.expand_as(noisy)

    def embed(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    @property
    def embedding_width(self) -> int:
        return 3


def objective(parts: Parts, steps: int = 10) -> DiffusionObjective:
    generator = torch.Generator().manual_seed(0)
    data = DiffusionData(
        torch.randn(OBJECTS, *SHAPE, generator=generator), torch.zeros(OBJECTS, 2, 2, 2), torch.zeros(1, 2, 2, 2),
        torch.zeros(OBJECTS, 3),
    )  # fmt: skip
    options = UNetOptions.model_validate(
        {"train": {**TRAIN, "steps": steps}, "losses": {"latent": {"kind": "latent", "weighting": "min_snr"}}}
    )
    return DiffusionObjective(options, Constant(parts), data)


def batches(of: DiffusionObjective, steps: int, size: int = 6) -> list[Batch]:
    data = StepData(of.sample, OBJECTS, size, seed=1)
    return list(data.batches(0, steps, 0, 1, 0))


def test_parts_are_alone_in_the_first_steps() -> None:
    of = objective(Parts(PARTS, alone_share=0.4))
    for step, batch in enumerate(batches(of, 10)):
        if step >= 4:
            assert batch["code"].shape[1:] == SHAPE
            assert "part" not in batch
            continue
        for row, (index, part) in enumerate(zip(batch["object_index"], batch["part"], strict=True)):
            whole = of.data.codes[index].unflatten(0, (PARTS, VIEWS))
            assert torch.equal(batch["code"][row], whole[part])
    drawn = torch.cat([batch["part"] for batch in batches(objective(Parts(PARTS, alone_share=1.0), 200), 200)])
    counts = np.bincount(drawn.numpy(), minlength=PARTS)
    assert counts.sum() == 1200
    assert (abs(counts - 400) < 80).all(), "five standard deviations"


def test_a_part_reaches_the_denoiser() -> None:
    of = objective(Parts(PARTS, alone_share=1.0, jitter=50))
    (batch,) = batches(of, 1)
    of(batch)
    noisy, timestep, part = of.denoiser.seen[0]
    assert noisy.shape == (6, VIEWS, 2, 2, 2)
    assert timestep.shape == (6,), "a part has one timestep"
    assert part is not None
    assert torch.equal(part, batch["part"])


def test_jittered_timesteps_are_near_each_other() -> None:
    of, exact = (objective(Parts(PARTS, jitter=jitter)) for jitter in (20, 0))
    (batch,) = batches(of, 1)
    of(batch)
    exact(batch)
    own, shared = of.denoiser.seen[0][1], exact.denoiser.seen[0][1]
    assert own.shape == (6, PARTS * VIEWS)
    assert shared.shape == (6,)
    assert (own - shared[:, None]).abs().max() <= 20
    assert (own.unflatten(1, (PARTS, VIEWS)).float().std(dim=2) == 0).all()
    assert (own.float().std(dim=1) > 0).any()


@pytest.mark.parametrize("jitter", [0, 30])
def test_a_cascade_is_compared_where_it_predicts(jitter: int) -> None:
    """By hand in float64, from what the denoiser saw and its constant prediction."""
    of = objective(Parts(PARTS, jitter=jitter, cascade=(0, 1)))
    (batch,) = batches(of, 1, size=8)
    loss = of(batch)["loss"]
    noisy, timestep, _ = of.denoiser.seen[0]
    schedule, v = of.denoiser.schedule, float(of.denoiser.unet.bias.detach())
    assert {tuple(row) for row in (timestep == 0).tolist()} <= {(True,) * 4 + (False,) * 2, (False,) * 6}
    total, halves = 0.0, set()
    for b in range(8):
        second = bool((timestep[b, :4] == 0).all())
        halves.add(second)
        if not second:
            assert (timestep[b, 4:] == 999).all()
        for k in range(PARTS * VIEWS):
            if (k < 4) == second:
                continue
            a, s = (float(table[timestep[b, k]]) for table in (schedule.alpha, schedule.sigma))
            predicted = a * noisy[b, k].double() - s * v
            error = (predicted - batch["code"][b, k].double()).square().mean()
            total += float(min((a / s) ** 2, 5.0) * error)
    assert halves == {False, True}
    assert loss.item() == pytest.approx(total / (8 * PARTS * VIEWS), rel=1e-5)
