"""The hinge losses against numpy, their gradients against those by hand; what the options refuse."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import experiment
from torch import Tensor

from z1g.losses.adversarial import Adversarial, discriminator_hinge, generator_hinge

SEEDS = st.integers(0, 2**31)


def outputs(seed: int, n: int) -> tuple[Tensor, Tensor]:
    draw = np.random.default_rng(seed)
    return tuple(torch.from_numpy(draw.normal(scale=2, size=(n, 1, 3, 3))).requires_grad_() for _ in range(2))  # type: ignore[return-value]


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 5))
def test_hinge_losses(seed: int, n: int) -> None:
    true, rendered = outputs(seed, n)
    a, b = true.detach().numpy(), rendered.detach().numpy()
    loss, term = discriminator_hinge(true, rendered), generator_hinge(rendered)
    assert loss.item() == pytest.approx(np.where(a < 1, 1 - a, 0).mean() + np.where(b > -1, 1 + b, 0).mean())
    assert term.item() == pytest.approx(-b.mean())
    slopes = torch.autograd.grad(loss, (true, rendered))
    np.testing.assert_allclose(slopes[0], np.where(a < 1, -1 / a.size, 0))
    np.testing.assert_allclose(slopes[1], np.where(b > -1, 1 / b.size, 0))
    np.testing.assert_allclose(torch.autograd.grad(term, rendered)[0], np.full(b.shape, -1 / b.size))


def test_outputs_that_tell_nothing_and_everything() -> None:
    zero, far = torch.zeros(4), torch.full((4,), 1.5)
    assert discriminator_hinge(zero, zero).item() == 2
    assert discriminator_hinge(far, -far).item() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 100}, "resolution 100 must be a multiple of 8"),
        ({"resolution": 64, "layers": 5}, "at least 96"),
        ({"views": 3}, "adversarial.views 3 is more than the 2 views"),
        ({"start": 1}, "less than 1"),
        ({"weight": 0}, "greater than 0"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        experiment(Path("meshes"), autodecoder={"adversarial": options})


def test_inputs_are_views_too() -> None:
    rendered = {"adversarial": {"views": 8}, "render_inputs": True}
    assert experiment(Path("meshes"), autodecoder=rendered).autodecoder.adversarial == Adversarial(views=8)


def test_the_default_has_none() -> None:
    assert experiment(Path("meshes")).autodecoder.adversarial is None
