"""Groups and held-out objects of a list: on one side of the split, and never trained on."""

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import networkx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from z1g.core.errors import UserError
from z1g.core.files import read_jsonl, write_jsonl
from z1g.data.manifest import Manifest, ObjectEntry, SplitOptions, evaluation_objects
from z1g.meshes.listing import find_objects


def entry(number: int, mesh: str = "", group: str = "", held_out: str = "") -> ObjectEntry:
    return ObjectEntry(f"o{number}", f"o{number}", f"content {number}", mesh, group=group, held_out=held_out)


rows = st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["", "", "", "s", "t"]), st.sampled_from(["", "unseen"]))
lists = st.lists(rows, min_size=1, max_size=25).map(lambda found: tuple(entry(i, *row) for i, row in enumerate(found)))


@given(lists, st.integers(0, 5), st.one_of(st.floats(0, 0.9), st.integers(2, 4)))
def test_what_hangs_together_is_on_one_side_and_held_out_objects_are_apart(
    objects: tuple[ObjectEntry, ...], seed: int, how: float
) -> None:
    folds = how if isinstance(how, int) else None
    options = SplitOptions(test_fraction=how if folds is None else 0.1, folds=folds, seed=seed)
    splits = Manifest(objects, 4).splits(options)
    graph = networkx.Graph()
    for item in objects:
        graph.add_edge(item.id, f"mesh {item.mesh}")
        if item.group:
            graph.add_edge(item.id, f"group {item.group}")
    apart = 0
    for component in networkx.connected_components(graph):
        members = [item for item in objects if item.id in component]
        found = {splits[item.id] for item in members}
        assert len(found) == 1
        assert (found == {"test_unseen"}) == any(item.held_out for item in members)
        apart += found != {"test_unseen"}
    assert Manifest(objects, 4).n_apart(options) == apart


def test_the_split_of_a_group_is_that_of_its_name() -> None:
    options = SplitOptions(test_fraction=0.5)
    some = [entry(i, mesh=f"{i}", group=f"g{i % 7}") for i in range(14)]
    more = [entry(i, mesh=f"{i}", group=f"g{i % 7}") for i in range(70)]
    few, many = (Manifest(tuple(objects), 4).splits(options) for objects in (some, more))
    assert set(few.values()) == {"test", "train"}
    assert all(many[name] == split for name, split in few.items())


def test_a_group_may_have_any_name_that_json_has() -> None:
    objects = tuple(entry(i, mesh=f"{i}", group="\ud800é") for i in range(9))
    assert len(set(Manifest(objects, 4).splits(SplitOptions(test_fraction=0.5)).values())) == 1


def test_held_out_objects_move_no_other_and_are_all_measured() -> None:
    plain = [entry(i, mesh=f"{i}") for i in range(40)]
    unseen = [entry(i, mesh=f"{i}", held_out="unseen") for i in range(40, 46)]
    options = SplitOptions(test_fraction=0.2)
    before, after = (Manifest(tuple(objects), 4).splits(options) for objects in (plain, plain + unseen))
    assert {name: after[name] for name in before} == before
    chosen = evaluation_objects(Manifest(tuple(plain + unseen), 4), options, 3)
    assert [split for _, split in chosen] == ["test"] * sum(s == "test" for s in before.values()) + [
        "test_unseen"
    ] * 6 + ["train"] * 3


def test_a_list_without_groups_keeps_its_digest() -> None:
    plain = Manifest(tuple(entry(i, mesh=f"{i}") for i in range(3)), 4)
    text = "4\n" + "\n".join(f"o{i}\tcontent {i}" for i in range(3))
    assert plain.digest() == hashlib.sha256(text.encode()).hexdigest()
    about = [replace(item, origin="a", category="b") for item in plain.objects]
    assert Manifest(tuple(about), 4).digest() == plain.digest()
    changed = [Manifest((*plain.objects[:2], entry(2, "2", *said)), 4).digest() for said in (("g", ""), ("", "unseen"))]
    assert len({plain.digest(), *changed}) == 3


def mesh(path: Path, size: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"v {size} 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n", encoding="utf-8")
    return path


def test_columns_of_a_list_reach_the_manifest_and_are_kept_by_it(tmp_path: Path) -> None:
    mesh(tmp_path / "m" / "ram.obj")
    row = {"path": "m/ram.obj", "source": "0ad-data", "group": "fleece", "held_out": "unseen", "category": "fauna"}
    write_jsonl(tmp_path / "l.jsonl", [row])
    (found,) = find_objects([str(tmp_path / "l.jsonl")])
    assert (found.origin, found.group, found.held_out) == ("0ad-data", "fleece", "unseen")
    Manifest((found,), 1).save(tmp_path / "manifest.jsonl")
    assert Manifest.load(tmp_path / "manifest.jsonl").objects == (found,)


def test_a_copy_does_not_undo_that_an_object_is_held_out(tmp_path: Path) -> None:
    mesh(tmp_path / "a" / "ram.obj")
    mesh(tmp_path / "b" / "ram.obj")
    write_jsonl(tmp_path / "l.jsonl", [{"path": "b/ram.obj", "held_out": "unseen", "group": "g"}])
    for paths in (("a", "l.jsonl"), ("l.jsonl", "a"), ("b", "l.jsonl"), ("l.jsonl", "b")):
        (found,) = find_objects([str(tmp_path / path) for path in paths])
        assert (found.held_out, found.group) == ("unseen", "g"), paths


def test_a_row_does_not_undo_what_another_row_says_of_the_same_file(tmp_path: Path) -> None:
    mesh(tmp_path / "ram.obj")
    rows = [{"path": "ram.obj", "held_out": "unseen"}, {"path": "ram.obj", "group": "g"}, {"path": "ram.obj"}]
    for order in itertools.permutations(rows):
        write_jsonl(tmp_path / "l.jsonl", order)
        (found,) = find_objects([str(tmp_path / "l.jsonl")])
        assert (found.held_out, found.group, found.copies) == ("unseen", "g", ())


def test_spaces_around_a_group_or_an_exclusion_do_not_count(tmp_path: Path) -> None:
    for i, name in enumerate("abc"):
        mesh(tmp_path / f"{name}.obj", i + 1)
    (tmp_path / "l.csv").write_text("path,group,held_out\na.obj,g, unseen\nb.obj, g ,\nc.obj, , \n")
    found = {entry.name or entry.source[-5:]: entry for entry in find_objects([str(tmp_path / "l.csv")])}
    assert [(item.group, item.held_out) for _, item in sorted(found.items())] == [("g", "unseen"), ("g", ""), ("", "")]


def test_an_unknown_exclusion_is_refused_with_its_line(tmp_path: Path) -> None:
    mesh(tmp_path / "ram.obj")
    write_jsonl(tmp_path / "l.jsonl", [{"path": "ram.obj"}, {"path": "ram.obj", "held_out": "yes"}])
    with pytest.raises(UserError, match=r"l\.jsonl, line 2: held_out is 'yes'; use unseen"):
        find_objects([str(tmp_path / "l.jsonl")])


def test_a_listed_list_keeps_all_its_columns(tmp_path: Path) -> None:
    from z1g.cli.main import main

    mesh(tmp_path / "ram.obj")
    row = {"path": "ram.obj", "source": "s", "group": "g", "held_out": "unseen", "category": "c"}
    write_jsonl(tmp_path / "l.jsonl", [row])
    main(["list", str(tmp_path / "l.jsonl"), "--out", str(tmp_path / "out.jsonl")])
    (kept,) = read_jsonl(tmp_path / "out.jsonl")
    assert {name: kept[name] for name in row} == row
