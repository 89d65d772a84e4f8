"""A limited number of training objects: nested, with the same objects held out."""

from hypothesis import given
from hypothesis import strategies as st

from z1g.data.manifest import Manifest, ObjectEntry, SplitOptions, evaluation_objects

OBJECTS = tuple(ObjectEntry(f"o{i}", f"o{i}", f"content {i}", held_out="unseen" * (i % 9 == 8)) for i in range(40))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 5), st.permutations(OBJECTS))
def test_fewer_objects_are_some_of_more_and_the_same_are_held_out(
    one: int, other: int, seed: int, shuffled: list[ObjectEntry]
) -> None:
    options = SplitOptions(test_fraction=0.3, seed=seed)
    every = Manifest(OBJECTS, 4).splits(options)
    trained = {name for name, split in every.items() if split == "train"}
    chosen = []
    for limit in sorted((one, other)):
        limited = options.model_copy(update={"train_objects": limit})
        splits = Manifest(tuple(shuffled), 7).splits(limited)
        assert {name for name in splits if splits[name].startswith("test")} == every.keys() - trained
        assert all(splits[name] == every[name] for name in every.keys() - trained)
        chosen.append({name for name, split in splits.items() if split == "train"})
        assert len(chosen[-1]) == min(limit, len(trained))
        assert chosen[-1] <= trained
        assert {name for name, split in splits.items() if split == "unused"} == trained - chosen[-1]
    assert chosen[0] <= chosen[1]


def test_which_objects_are_taken_depends_on_their_content_and_the_seed_only() -> None:
    renamed = tuple(ObjectEntry(f"other{i}", f"elsewhere{i}", f"content {i}") for i in range(40))
    named = tuple(ObjectEntry(f"o{i}", f"o{i}", f"content {i}") for i in range(40))

    def taken(objects: tuple[ObjectEntry, ...], seed: int) -> list[bool]:
        options = SplitOptions(test_fraction=0, seed=seed, train_objects=10)
        return [split == "train" for split in Manifest(objects, 4).splits(options).values()]

    assert taken(renamed, 0) == taken(named, 0)
    assert taken(named, 0) != taken(named, 1)


def test_unused_objects_are_not_measured() -> None:
    options = SplitOptions(test_fraction=0.3, train_objects=3)
    splits = Manifest(OBJECTS, 4).splits(options)
    measured = dict(evaluation_objects(Manifest(OBJECTS, 4), options, 40))
    assert measured == {name: split for name, split in splits.items() if split != "unused"}
    assert "unused" in splits.values()
