"""Objects with long names: their ids fit into file names, and ids of other objects are what they were."""

import hashlib
import os
import re
from pathlib import Path

import pytest

from z1g.core.files import atomic_file
from z1g.data.manifest import unique_ids
from z1g.meshes.listing import find_objects
from z1g.sources.g_objaverse import GObjaverse
from z1g.sources.original import Original

LONGEST = 77
"""64 characters of the name, a separator, 12 of a digest."""


def mesh(path: Path, text: str = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# {path.name}\n{text}")
    return path


def written(folder: Path, name: str) -> None:
    """The longest names that stages make of an id."""
    with atomic_file(folder / f"{name}.turntable.png") as temporary:
        temporary.write_bytes(b"x")


@pytest.mark.parametrize("letters", [65, 236, 251])
def test_a_mesh_with_a_long_name_has_a_short_id(tmp_path: Path, letters: int) -> None:
    first, second = "a" * (letters - 1) + "b", "a" * (letters - 1) + "c"
    mesh(tmp_path / "in" / f"{first}.obj")
    mesh(tmp_path / "in" / f"{second}.obj")
    entries = find_objects([str(tmp_path / "in")])
    assert len({entry.id for entry in entries}) == 2
    for entry in entries:
        assert entry.id == f"{'a' * 64}-{entry.content[:10]}"
        assert len(entry.id) <= LONGEST
        written(tmp_path / "out", entry.id)


def test_a_folder_with_a_long_name_has_a_short_id(tmp_path: Path) -> None:
    mesh(tmp_path / "in" / ("é" * 120) / "model.obj")
    (entry,) = find_objects([str(tmp_path / "in")])
    assert entry.id == f"{'_' * 64}-{entry.content[:10]}"


def test_scenes_of_other_sources_have_short_ids(tmp_path: Path) -> None:
    first, second = "s" * 236, "s" * 235 + "t"
    for name in (first, second, "short"):
        (tmp_path / "renders" / name).mkdir(parents=True)
        (tmp_path / "renders" / name / "000.png").touch()
        (tmp_path / "root" / "0" / name / "campos_512_v4").mkdir(parents=True)
    for source in (Original(renders=str(tmp_path / "renders")), GObjaverse(root=str(tmp_path / "root"))):
        ids = [entry.id for entry in source.list_objects()]
        assert len(set(ids)) == 3
        assert {"short", "0_short"} & set(ids)
        assert max(map(len, ids)) == LONGEST
        for name in ids:
            written(tmp_path / "out", name)
        # Sources find the scene by its path, so nothing is lost with the name.
        assert {os.path.basename(entry.source) for entry in source.list_objects()} == {first, second, "short"}


def test_ids_up_to_the_limit_stay_as_they_are() -> None:
    """Results are kept by these ids, so they must not change: literal values of version 0.1.0."""
    assert unique_ids(["crate-0123456789", "a.b", "a_b", "x" * 64 + "-0123456789", "y" * LONGEST]) == [
        "crate-0123456789",
        f"a_b_{hashlib.sha256(b'a.b').hexdigest()[:12]}",
        f"a_b_{hashlib.sha256(b'a_b').hexdigest()[:12]}",
        "x" * 64 + "-0123456789",
        "y" * LONGEST,
    ]
    (cut,) = unique_ids(["y" * (LONGEST + 1)])
    assert cut == "y" * 64 + "_" + hashlib.sha256(b"y" * (LONGEST + 1)).hexdigest()[:12]


def test_equal_long_names_stay_unique() -> None:
    names = ["z" * 300, "z" * 299 + ".", "z" * 299 + "_", "z" * 64]
    ids = unique_ids(names)
    assert len(set(ids)) == 4
    assert all(re.fullmatch(r"[\w-]{1,77}", name, re.ASCII) for name in ids)


def test_a_mesh_with_a_name_of_64_letters_keeps_its_whole_name(tmp_path: Path) -> None:
    name = "chair" * 12 + "abcd"
    mesh(tmp_path / f"{name}.obj")
    (entry,) = find_objects([str(tmp_path)])
    assert entry.id == f"{name}-{entry.content[:10]}"
