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


def outputs(seed: int, n: int, sides: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    draw = np.random.default_rng(seed)
    shapes = [(n, 1, side, side) for side in sides]
    return tuple(
        [torch.from_numpy(draw.normal(scale=2, size=shape)).requires_grad_() for shape in shapes] for _ in range(2)
    )  # type: ignore[return-value]


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 5), sides=st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_hinge_losses(seed: int, n: int, sides: list[int]) -> None:
    """Every level counts as much as another, however many pixels it has."""
    true, rendered = outputs(seed, n, sides)
    loss, term = discriminator_hinge(true, rendered), generator_hinge(rendered)
    levels = [(a.detach().numpy(), b.detach().numpy()) for a, b in zip(true, rendered, strict=True)]
    parts = [np.where(a < 1, 1 - a, 0).mean() + np.where(b > -1, 1 + b, 0).mean() for a, b in levels]
    assert loss.item() == pytest.approx(np.mean(parts))
    assert term.item() == pytest.approx(-np.mean([b.mean() for _, b in levels]))
    slopes = torch.autograd.grad(loss, [*true, *rendered])
    for i, (a, b) in enumerate(levels):
        np.testing.assert_allclose(slopes[i], np.where(a < 1, -1 / a.size, 0) / len(sides))
        np.testing.assert_allclose(slopes[len(sides) + i], np.where(b > -1, 1 / b.size, 0) / len(sides))
        (slope,) = torch.autograd.grad(term, rendered[i], retain_graph=True)
        np.testing.assert_allclose(slope, np.full(b.shape, -1 / b.size / len(sides)))


def test_outputs_that_tell_nothing_and_everything() -> None:
    zero, far = torch.zeros(4), torch.full((4,), 1.5)
    assert discriminator_hinge([zero], [zero]).item() == 2
    assert discriminator_hinge([far], [-far]).item() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 100}, "resolution 100 must be a multiple of 8"),
        ({"resolution": 64, "layers": 5}, "at least 96"),
        ({"views": 3}, "adversarial.views 3 is more than the 2 views"),
        ({"start": 1}, "less than 1"),
        ({"judge": "features", "alpha": True}, "features are of colors"),
        ({"weight": 0}, "greater than 0"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        experiment(Path("meshes"), autodecoder={"adversarial": options})


def test_inputs_are_views_too() -> None:
    rendered = {"adversarial": {"views": 8}, "render_inputs": True}
    assert experiment(Path("meshes"), autodecoder=rendered).autodecoder.adversarial == Adversarial(views=8)


def test_features_have_their_own_sizes() -> None:
    """What pixels need of resolution and layers, features do not."""
    assert Adversarial(judge="features", resolution=100, layers=8).resolution == 100


def test_the_default_has_none() -> None:
    assert experiment(Path("meshes")).autodecoder.adversarial is None
