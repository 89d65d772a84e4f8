"""Samples by category: their frequencies, and that they depend on seed, step and position only."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from support.builders import Toy, plan, toy_options
from support.running import interrupted

from z1g.core.errors import UserError
from z1g.core.files import write_jsonl
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.stages.autodecoder import shares
from z1g.training.data import Shares, StepData, draw
from z1g.training.loop import Trainer

CATEGORIES = ["people"] * 60 + ["houses"] * 30 + ["ships"] * 9 + [""]


def drawn(of: Shares, epochs: int, seed: int = 1) -> list[int]:
    n = len(of.values)
    return [draw(seed, step, 0, 1, n, of).object_index for step in range(epochs * n)]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_categories_have_their_shares_and_objects_equal_ones_in_them(power: float) -> None:
    counts = Counter(CATEGORIES)
    total = sum(n**power for n in counts.values())
    expected = np.array([counts[name] ** power / total / counts[name] for name in CATEGORIES])
    seen = Counter(drawn(Shares.of_categories(CATEGORIES, power), 200))
    observed = np.array([seen[i] for i in range(len(CATEGORIES))])
    # Systematic draws vary less than independent ones, so this bound on chi-square is a cautious one.
    assert chisquare(observed, expected * observed.sum()).pvalue > 0.01
    assert chisquare(observed, np.full(100, observed.sum() / 100)).pvalue < 1e-6 or power == 1


@given(st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=40), st.integers(0, 3))
def test_an_epoch_has_each_object_as_often_as_its_share_says(values: list[float], seed: int) -> None:
    of = Shares(np.array(values) / np.sum(values))
    times = Counter(drawn(of, 1, seed))
    assert sum(times.values()) == len(values)
    for i, share in enumerate(of.values):
        assert abs(times[i] - share * len(values)) < 1 + 1e-9


def test_draws_are_a_pure_function_and_change_with_epoch_and_seed() -> None:
    one, other = (Shares.of_categories(CATEGORIES, 0.5) for _ in range(2))
    assert drawn(one, 2) == drawn(other, 2)
    first, second = drawn(one, 2)[:100], drawn(one, 2)[100:]
    assert first != second
    assert drawn(one, 1, seed=2) != first
    assert [draw(1, step, slot, 4, 100, one).object_index for step in range(25) for slot in range(4)] == first


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_draw_what_one_would(world: int) -> None:
    of = Shares.of_categories(CATEGORIES[50:], 0.5)
    data = StepData(lambda drawn: {"x": torch.tensor(drawn.object_index)}, 50, 4, 7, shares=of)
    ranks = [data.batches(3, 30, rank, world, workers=0) for rank in range(world)]
    rows = [torch.cat([piece["object_index"] for piece in pieces]).tolist() for pieces in zip(*ranks, strict=True)]
    assert rows == [[draw(7, step, slot, 4, 50, of).object_index for slot in range(4)] for step in range(3, 30)]


def train(folder: Path) -> Toy:
    toy, options = Toy(), toy_options()
    data = toy.data(options)
    data.shares = Shares.of_categories(["a"] * 8 + ["b"] * 2, 0.0)
    Trainer(toy, data, options, folder).run()
    return toy


@pytest.mark.slow
def test_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    with interrupted(before=7):
        train(tmp_path / "part")
    resumed, expected = (dict(toy.named_parameters()) for toy in (train(tmp_path / "part"), whole))
    torch.testing.assert_close(resumed, expected, atol=0, rtol=0)


def planned(root: Path, categories: str, power: float) -> Plan:
    rows = [{"path": f"meshes/object{i}.obj", "category": name} for i, name in enumerate(categories)]
    write_jsonl(root / "objects.jsonl", rows)
    return plan(root, len(rows), data={"paths": [str(root / "objects.jsonl")], "category_power": power})


def ids(of: Plan) -> dict[str, str]:
    return {name: stage.id for name, stage in of.ablations["micro"].stages.items()}


def test_categories_count_for_training_only_and_only_if_they_are_used(tmp_path: Path) -> None:
    uniform, other = ids(planned(tmp_path, "aabbb", 1.0)), ids(planned(tmp_path, "aaaab", 1.0))
    assert uniform == other
    balanced, changed = ids(planned(tmp_path, "aabbb", 0.5)), ids(planned(tmp_path, "aaaab", 0.5))
    data = ("ingest", "fit")
    assert {balanced[name] for name in data} == {uniform[name] for name in data} == {changed[name] for name in data}
    for name in uniform.keys() - {*data}:
        assert len({uniform[name], balanced[name], changed[name]}) == 3


def test_a_stage_reads_the_categories_with_which_it_was_planned(tmp_path: Path) -> None:
    before = planned(tmp_path, "aabbb", 0.5)
    folder = StageFolder.open(before.folder(*before.ablations["micro"].stages["autodecoder"].key))
    names = [entry.id for entry in folder.manifest().objects]
    found = shares(folder, names)
    assert found is not None
    expected = np.array([2**0.5 / 2] * 2 + [3**0.5 / 3] * 3) / (2**0.5 + 3**0.5)
    np.testing.assert_allclose(found.values, expected)
    planned(tmp_path, "aaaab", 0.5)
    with pytest.raises(UserError, match="planned with other categories"):
        shares(folder, names)
