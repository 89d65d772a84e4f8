"""Cross-validation: every object is held out in exactly one fold, with all that it must stay together with."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from z1g.data.manifest import Manifest, ObjectEntry, SplitOptions


def manifest(meshes: list[str]) -> Manifest:
    entries = (ObjectEntry(f"o{i}", f"o{i}", content=f"{i}", mesh=mesh) for i, mesh in enumerate(meshes))
    return Manifest(tuple(entries), 4)


@pytest.mark.slow
@given(st.lists(st.sampled_from("abcdefghij"), min_size=2, max_size=30), st.integers(2, 5), st.integers(0, 3))
def test_folds_are_a_partition_of_the_groups_into_equal_parts(meshes: list[str], folds: int, seed: int) -> None:
    objects = manifest(meshes)
    fold_of: dict[str, int] = {}
    for fold in range(folds):
        splits = objects.splits(SplitOptions(folds=folds, fold=fold, seed=seed, test_fraction=0.9))
        for name, split in splits.items():
            if split == "test":
                assert name not in fold_of
                fold_of[name] = fold
    assert len(fold_of) == len(meshes)
    of_mesh = {mesh: {fold_of[f"o{i}"] for i, other in enumerate(meshes) if other == mesh} for mesh in meshes}
    assert all(len(found) == 1 for found in of_mesh.values()), "objects of one mesh are never separated"
    sizes = Counter(next(iter(found)) for found in of_mesh.values())
    counts = [sizes[fold] for fold in range(folds)]
    assert max(counts) - min(counts) <= 1


def test_folds_do_not_depend_on_the_order_of_objects_but_on_the_seed() -> None:
    objects = manifest([f"m{i}" for i in range(20)])
    options = [SplitOptions(folds=4, fold=1, seed=seed) for seed in (0, 1)]
    turned = Manifest(objects.objects[::-1], 7)
    assert objects.splits(options[0]) == turned.splits(options[0])
    assert objects.splits(options[0]) != objects.splits(options[1])


@pytest.mark.parametrize("values", [{"fold": 1}, {"folds": 3, "fold": 3}, {"folds": 1}, {"folds": 3, "fold": -1}])
def test_folds_that_do_not_exist_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        SplitOptions.model_validate(values)
