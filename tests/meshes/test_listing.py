"""Listing objects: digests, copies, archives, lists, the index of files read, faults detected before rendering."""

import json
import os
import random
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import ROOT

from z1g.cli.main import main
from z1g.config.catalog import load_ablation
from z1g.core.errors import UserError
from z1g.core.files import read_jsonl
from z1g.data.manifest import Manifest, ObjectEntry, SplitOptions, tied
from z1g.meshes import index as index_module
from z1g.meshes.colors import colored
from z1g.meshes.content import content_of
from z1g.meshes.files import Unusable, prepare, problem
from z1g.meshes.limits import FileLimits
from z1g.meshes.listing import find_objects
from z1g.meshes.references import references
from z1g.meshes.store import Archive, Disk

MESH = "mtllib {mtl}\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\n"
CATALOG = """# format of library catalogs
id=test
license=CC-BY 3.0 \\u00a9 Somebody
name#1=Arm\\u0020chair
category#1=Living room
model#1=/lib/arm/arm.obj
creator#1=Ann
model#2=/lib/table/table.obj
name#2=Table
license#2=CC0
model#3=/lib/absent.obj
"""


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def chair(folder: Path, image: str = "brown", mesh: str = MESH) -> Path:
    """An OBJ with a material file and an image."""
    write(folder / "wood.png", image)
    write(folder / "chair.mtl", "newmtl wood\nKd 1 1 1\nmap_Kd -s 1 1 1 wood.png\n")
    return write(folder / "chair.obj", mesh.format(mtl="chair.mtl"))


def pack(path: Path, files: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def library(path: Path) -> Path:
    arm, table = MESH.format(mtl="arm.mtl"), MESH.format(mtl="table.mtl").replace("v 1", "v 2")
    return pack(
        path,
        {
            "PluginFurnitureCatalog.properties": CATALOG.encode("latin-1"),
            "lib/arm/arm.obj": arm,
            "lib/arm/arm.mtl": "newmtl a\nmap_Kd ../shared/cloth.jpg\n",
            "lib/shared/cloth.jpg": b"cloth",
            "lib/table/table.obj": table,
            "lib/table/table.mtl": "",
            "lib/not_in_the_catalog.obj": arm + "#",
        },
    )


def only(*paths: Path | str) -> ObjectEntry:
    (entry,) = find_objects([str(path) for path in paths])
    return entry


def test_copies_are_listed_once(tmp_path: Path) -> None:
    for folder in ("a", "b/deep", "c"):
        chair(tmp_path / folder)
    entry = only(tmp_path)
    assert entry.source == (tmp_path / "a/chair.obj").as_posix()
    assert entry.copies == tuple((tmp_path / folder / "chair.obj").as_posix() for folder in ("b/deep", "c"))
    assert entry.id == f"chair-{entry.content[:10]}"


def test_content_is_independent_of_folder_and_name(tmp_path: Path) -> None:
    original = only(chair(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    moved = only(tmp_path / "elsewhere")
    assert (moved.id, moved.content, moved.mesh, moved.textures) == (
        original.id,
        original.content,
        original.mesh,
        original.textures,
    )
    assert Manifest((moved,), 4).digest() == Manifest((original,), 4).digest()
    (tmp_path / "elsewhere/chair.obj").rename(tmp_path / "elsewhere/seat.obj")
    renamed = only(tmp_path / "elsewhere")
    assert (renamed.content, renamed.seed) == (original.content, original.seed)
    assert renamed.id == original.id.replace("chair", "seat")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda folder: chair(folder, image="black"), ("mesh",)),
        (lambda folder: chair(folder, mesh="# by Ann\n" + MESH + "usemtl wood\n"), ("mesh", "textures")),
        (lambda folder: chair(folder, mesh=MESH.replace("v 1 0 0", "v 1   0 0\r")), ("mesh", "textures")),
        (lambda folder: chair(folder, mesh=MESH.replace("v 1", "v 2")), ("textures",)),
        (lambda folder: write(folder / "chair.mtl", "newmtl wood\nKd 0 0 1\nmap_Kd wood.png\n"), ("mesh", "textures")),
        (lambda folder: (folder / "wood.png").unlink(), ("mesh",)),
    ],
)
def test_each_digest_depends_on_its_part(tmp_path: Path, change: Any, same: tuple[str, ...]) -> None:
    before = only(chair(tmp_path))
    change(tmp_path)
    after = only(tmp_path)
    parts = ("content", "mesh", "textures")
    assert tuple(part for part in parts if getattr(before, part) == getattr(after, part)) == same


def test_lines_across_blocks_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = chair(tmp_path)
    whole = content_of(Disk(tmp_path), path.name)
    for size in (1, 7, 13):
        monkeypatch.setattr("z1g.meshes.store._BLOCK", size)
        assert content_of(Disk(tmp_path), path.name) == whole


def test_gltf_names_its_buffers_and_images(tmp_path: Path) -> None:
    images = [{"uri": "two%20words.png"}, {"uri": "data:image/png;base64,AA"}, {"bufferView": 0}]
    write(tmp_path / "x.gltf", json.dumps({"buffers": [{"uri": "x.bin"}], "images": images}))
    write(tmp_path / "two words.png", "image")
    referenced = references(Disk(tmp_path), "x.gltf")
    assert [tuple(item) for item in referenced] == [
        ("x.bin", "x.bin", "data", False),
        ("two words.png", "two words.png", "image", True),
    ]
    before = only(tmp_path / "x.gltf")
    write(tmp_path / "x.bin", "points")
    after = only(tmp_path / "x.gltf")
    assert (before.mesh != after.mesh, before.textures) == (True, after.textures)
    for broken in ("{", "[]", '{"buffers": 3}', '{"images": [{"uri": 5}]}'):
        write(tmp_path / "x.gltf", broken)
        assert references(Disk(tmp_path), "x.gltf") == []


def test_metadata_of_a_furniture_library(tmp_path: Path) -> None:
    arm, table = find_objects([str(library(tmp_path / "l.sh3f"))])
    assert arm.source == f"{(tmp_path / 'l.sh3f').as_posix()}!/lib/arm/arm.obj"
    assert (arm.name, arm.category, arm.creator) == ("Arm chair", "Living room", "Ann")
    assert (arm.license, table.license) == ("CC-BY 3.0 \u00a9 Somebody", "CC0")
    assert arm.file == (tmp_path / "l.sh3f").as_posix()
    assert (bool(arm.textures), bool(table.textures)) == (True, False)


def test_an_object_is_the_same_inside_and_outside_of_an_archive(tmp_path: Path) -> None:
    chair(tmp_path / "files")
    names = ("chair.obj", "chair.mtl", "wood.png")
    pack(tmp_path / "files.zip", {f"in/{name}": (tmp_path / "files" / name).read_bytes() for name in names})
    entry = only(tmp_path)
    assert entry.copies == (f"{(tmp_path / 'files.zip').as_posix()}!/in/chair.obj",)
    assert only(f"{tmp_path}/files.zip").content == entry.content


def test_one_object_of_an_archive(tmp_path: Path) -> None:
    library(tmp_path / "l.sh3f")
    write(tmp_path / "one.csv", "path,creator\nl.sh3f!/lib/arm/arm.obj,Bob\n")
    entry = only(tmp_path / "one.csv")
    assert (entry.name, entry.creator) == ("Arm chair", "Bob")
    path = prepare(entry, tmp_path / "out", FileLimits())
    assert path == tmp_path / "out/lib/arm/arm.obj"
    unpacked = {
        file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*") if file.is_file()
    }
    assert unpacked == {"lib/arm/arm.obj", "lib/arm/arm.mtl", "lib/shared/cloth.jpg"}


def test_one_object_of_an_archive_as_a_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = library(tmp_path / "l.sh3f").as_posix()
    arm = only(f"{place}!/lib/arm/arm.obj")
    assert arm == find_objects([place])[0]
    assert main(["list", f"{place}!/lib/arm/arm.obj", "--out", str(tmp_path / "arm.jsonl")]) == 0
    (row,) = read_jsonl(tmp_path / "arm.jsonl")
    assert (row["path"], row["content"]) == ("l.sh3f!/lib/arm/arm.obj", arm.content)
    for path, message in (
        (f"{place}!/lib/arm/amr.obj", r'no such object; did you mean "lib/arm/arm.obj"\?'),
        (f"{tmp_path}/arm.jsonl!/arm.obj", r"arm.jsonl is not an archive \(.zip, .sh3f\)"),
        (f"{tmp_path}/gone.zip!/arm.obj", "no such file or folder"),
    ):
        with pytest.raises(UserError, match=message):
            find_objects([path])
    (tmp_path / "damaged.zip").write_bytes(b"PK")
    damaged = only(f"{tmp_path}/damaged.zip!/arm.obj")  # ingest sets it aside
    assert damaged.source == f"{tmp_path.as_posix()}/damaged.zip"


def test_paths_of_a_list_are_relative_to_it_and_its_metadata_takes_precedence(tmp_path: Path, monkeypatch: Any) -> None:
    chair(tmp_path / "data/meshes")
    rows = [{"path": "meshes/chair.obj", "name": "Chair", "license": "CC0"}, {"path": "gone.obj", "content": "c" * 64}]
    write(tmp_path / "data/all.jsonl", "\n\n".join(json.dumps(row) for row in rows))
    monkeypatch.chdir(ROOT)
    listed, gone = find_objects([str(tmp_path / "data/all.jsonl")])
    assert (listed.name, listed.license, bool(listed.textures)) == ("Chair", "CC0", True)
    assert (gone.id, gone.content) == ("gone-cccccccccc", "c" * 64)  # digests of a list are checked only by ingest
    with pytest.raises(Unusable, match=r"gone\.obj cannot be read"):
        prepare(gone, tmp_path, FileLimits())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "name\nchair\n", r"a\.csv: its first line names no column `path`, but 'name'"),
        ("a.csv", "path,name\n,chair\n", r"a\.csv, line 2: every object needs a `path`"),
        ("a.csv", "path;license\nx.obj;CC0\n", r"but 'path;license'; columns are path, .* with commas between them"),
        ("a.csv", "path,license,license\nx.obj,CC0,MIT\n", r"a\.csv: its first line names the column license twice"),
        ("a.csv", "path,licens\nx.obj,CC0\n", r'line 2: unknown column licens; did you mean "license"'),
        ("a.csv", "path\nx.obj,too,many\n", r"line 2: its number of fields is not that of the columns"),
        ("a.csv", "path,license\nx.obj\n", r"line 2: its number of fields is not that of the columns"),
        ("a.csv", "", "the list is empty"),
        ("a.jsonl", "", "the list is empty"),
        ("a.jsonl", '{"path": "x.obj"}\n{"path"', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", '["x.obj"]', r"line 1: every object needs a `path`"),
        ("a.jsonl", '{"path": "x.obj", "name": 3}', r"line 1: name is 3, which is not a string"),
        *(
            ("a.jsonl", json.dumps({"path": "x.obj", column: digest}), rf"line 1: {column} is .* no SHA-256 digest")
            for column, digest in (("content", "/../../x"), ("mesh", "abc"), ("textures", "C" * 64))
        ),
    ],
)
def test_lists_with_mistakes_say_where(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=message):
        find_objects([str(path)])
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot be read as a list.*save it as UTF-8"):
        find_objects([str(path)])


@pytest.mark.parametrize(("name", "text"), [("a.csv", "path\nchair.obj\n"), ("a.jsonl", '{"path": "chair.obj"}\n')])
def test_a_byte_order_mark_before_a_list_is_ignored(tmp_path: Path, name: str, text: str) -> None:
    chair(tmp_path)
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert only(tmp_path / name).content == only(tmp_path / "chair.obj").content


def test_a_byte_order_mark_before_a_mesh_hides_no_line(tmp_path: Path) -> None:
    points = MESH.partition("\n")[2]
    plain = write(tmp_path / "plain/a.obj", points)
    marked = write(tmp_path / "mark/a.obj", "\ufeff" + points)
    assert only(marked).mesh == only(plain).mesh
    write(marked.parent / "b.mtl", "\ufeffnewmtl a\nKd 1 0 0\nnewmtl b\nKd 0 1 0\n")
    write(marked, f"\ufeffmtllib b.mtl\n{points}usemtl a\nf 1 2 3\nusemtl b\nf 1 2 4\n")
    assert [side.name for side in references(Disk(marked.parent), "a.obj")] == ["b.mtl"]
    assert colored(Disk(marked.parent), "a.obj")
    write(marked, "\ufeffv nan 0 0\n" + points)
    assert "not finite" in str(problem(marked, FileLimits()))


@pytest.mark.parametrize("uri", ["\ud800.bin", "a\0b.bin"])
def test_a_name_that_no_file_has_is_a_file_that_is_missing(tmp_path: Path, uri: str) -> None:
    path = write(tmp_path / "x.gltf", json.dumps({"buffers": [{"uri": uri}]}))
    assert [side.exists for side in references(Disk(tmp_path), "x.gltf")] == [False]
    assert prepare(only(path), tmp_path, FileLimits()) == path


def test_generic_names_are_replaced_by_the_folders(tmp_path: Path) -> None:
    write(tmp_path / "sofa/model.obj", "1")
    write(tmp_path / "lamp/Mesh.ply", "2")
    assert sorted(entry.id.rpartition("-")[0] for entry in find_objects([str(tmp_path)])) == ["lamp", "sofa"]


def test_files_are_read_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    chair(tmp_path / "meshes")
    library(tmp_path / "meshes/l.sh3f")
    first = find_objects([str(tmp_path / "meshes")])
    with monkeypatch.context() as patch:
        patch.setattr("z1g.meshes.listing.content_of", lambda *_: pytest.fail("read again"))
        assert find_objects([str(tmp_path / "meshes")]) == first
    image = tmp_path / "meshes/wood.png"
    os.utime(image, ns=(1, 1))
    assert find_objects([str(tmp_path / "meshes")]) == first
    image.write_text("other")
    changed = find_objects([str(tmp_path / "meshes")])
    assert [a.content == b.content for a, b in zip(first, changed, strict=True)].count(False) == 1
    for rubbish in ("", "[]", '{"x": 1}', '{"x": {"value": 1, "files": 2}}'):
        for file in (tmp_path / "cache/z1g/contents").iterdir():
            file.write_text(rubbish)
        assert find_objects([str(tmp_path / "meshes")]) == changed


def test_a_home_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(index_module, "write_json", refuse)
    assert only(chair(tmp_path)).content


def test_broken_archives_become_objects_that_ingest_rejects(tmp_path: Path) -> None:
    whole = library(tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[:200])
    (tmp_path / "b.sh3f").write_bytes(b"")
    pack(tmp_path / "c.zip", {"notes.txt": "no mesh", "inner.zip": whole})
    damaged = bytearray(whole)
    at = damaged.index(b"lib/arm/arm.obj") + 20
    damaged[at : at + 8] = b"\xff" * 8
    (tmp_path / "d.zip").write_bytes(damaged)
    entries = find_objects([str(tmp_path)])
    reasons = {}
    for entry in entries:
        try:
            prepare(entry, tmp_path / "out" / entry.id, FileLimits())
        except Unusable as error:
            reasons[Path(entry.file).name, entry.source.partition("!/")[2]] = str(error)
    assert "not a complete archive" in reasons["a.zip", ""]
    assert "not a complete archive" in reasons["b.sh3f", ""]
    assert "not a complete archive" in reasons["d.zip", "lib/arm/arm.obj"]
    assert len(reasons) == 3
    assert {Path(entry.file).name for entry in entries} == {"a.zip", "b.sh3f", "d.zip"}  # c.zip has no object


def test_members_with_paths_outside_of_the_archive_are_ignored(tmp_path: Path) -> None:
    mesh = MESH.format(mtl="../../../outside.mtl")
    path = pack(tmp_path / "a.zip", {"in/x.obj": mesh, "../../out.obj": mesh, "/root.obj": mesh, "a\\b.obj": mesh})
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("in/link.obj")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    write(tmp_path / "outside.mtl", "secret")
    entry = only(path)
    assert entry.source.endswith("!/in/x.obj")
    out = tmp_path / "deep/er/out"
    with pytest.raises(Unusable, match=r"material file missing: \.\./\.\./\.\./outside\.mtl"):
        prepare(entry, out, FileLimits())
    assert [file.name for file in out.rglob("*") if file.is_file()] == ["x.obj"]
    with Archive(path) as archive:
        assert sorted(archive.members) == ["in/x.obj"]


def test_a_zip_bomb_is_stopped_by_its_actual_size_not_its_declared_size(tmp_path: Path) -> None:
    pack(tmp_path / "bomb.zip", {"x.obj": "v 0 0 0\n" * 400_000})
    limits = FileLimits(unpacked_mb=1)
    entry = ObjectEntry("x", f"{tmp_path}/bomb.zip!/x.obj")
    with pytest.raises(Unusable, match=r"exceed the limit when unpacked \(data\.limits\.unpacked_mb 1\)"):
        prepare(entry, tmp_path / "out", limits)
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file()) <= 2**20
    with pytest.raises(Unusable, match=r"3 MiB, more than data\.limits\.file_mb 1"):
        prepare(
            ObjectEntry("y", str(write(tmp_path / "y.obj", "v 0 0 0\n" * 400_000))), tmp_path, FileLimits(file_mb=1)
        )


def test_files_that_changed_after_listing_are_not_rendered(tmp_path: Path) -> None:
    entry = only(chair(tmp_path))
    assert prepare(entry, tmp_path / "out", FileLimits()) == tmp_path / "chair.obj"
    write(tmp_path / "wood.png", "other wood")
    with pytest.raises(Unusable, match="changed since they were listed"):
        prepare(entry, tmp_path / "out", FileLimits())


@pytest.mark.slow
@given(st.randoms(use_true_random=False))
def test_listing_and_preparing_survive_random_damage(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    content = bytearray(library(folder / "a.sh3f").read_bytes())
    for _ in range(rng.randint(1, 12)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    (folder / "a.sh3f").write_bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])
    try:
        entries = find_objects([str(folder)])
    except UserError:
        return
    for entry in entries:
        try:
            path = prepare(entry, folder / "out" / entry.id, FileLimits())
        except Unusable:
            continue
        assert path.resolve().is_relative_to(folder / "out" / entry.id)


def entry(name: str, mesh: str = "", textures: str = "") -> ObjectEntry:
    return ObjectEntry(name, name, content=f"content of {name}", mesh=mesh, textures=textures)


objects = st.lists(
    st.tuples(st.sampled_from("mnopq"), st.sampled_from(["", "s", "t", "u"])), min_size=1, max_size=30
).map(lambda rows: tuple(entry(f"o{i}", mesh, textures) for i, (mesh, textures) in enumerate(rows)))


@given(objects, st.sampled_from(["mesh", "mesh_or_textures"]), st.integers(0, 5), st.floats(0, 0.9))
def test_similar_objects_are_in_the_same_split(
    items: tuple[ObjectEntry, ...], together: Any, seed: int, share: float
) -> None:
    options = SplitOptions(test_fraction=share, seed=seed, keep_together=together)
    splits = Manifest(items, 4).splits(options)
    for item in items:
        for other in items:
            alike = item.mesh == other.mesh or (
                together == "mesh_or_textures" and item.textures == other.textures != ""
            )
            if alike:
                assert splits[item.id] == splits[other.id]
    assert splits == Manifest(items[::-1], 7).splits(options)
    groups = tied(items, together)
    # Connected components of the graph "shares a mesh or an image set" by breadth-first search.
    reached = {items[0].id}
    while True:
        more = {
            other.id
            for item in items
            for other in items
            if item.id in reached
            and (item.mesh == other.mesh or (together == "mesh_or_textures" and item.textures == other.textures != ""))
        }
        if more <= reached:
            break
        reached |= more
    assert {name for name, key in groups.items() if key == groups[items[0].id]} == reached


def test_the_list_command_writes_a_list_of_the_same_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library(tmp_path / "l.sh3f")
    chair(tmp_path / "a")
    chair(tmp_path / "b")
    out = tmp_path / "lists/all.jsonl"
    assert main(["list", str(tmp_path), "--out", str(out)]) == 0
    assert "3 objects, 1 duplicate listed once" in capsys.readouterr().out
    direct = {item.id: item for item in find_objects([str(tmp_path)])}
    for item in find_objects([str(out)]):
        expected = direct[item.id]
        assert (item.content, item.mesh, item.textures) == (expected.content, expected.mesh, expected.textures)
        assert (item.name, item.creator, item.license) == (expected.name, expected.creator, expected.license)
        assert Path(item.file).samefile(expected.file)
    assert all(not Path(row["path"]).is_absolute() for row in read_jsonl(out))
    assert main(["list", str(tmp_path), "--out", str(tmp_path / "x.txt")]) == 2


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As one in `data.roots` is; meshes that need it would be set aside by ingest only."""
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    out = tmp_path / "list.jsonl"
    words = ["list", str(tmp_path / "a.obj"), "--out", str(out), "--root", str(tmp_path), "--root"]
    assert main([*words, str(tmp_path / "texturs")]) == 2
    assert f"--root {tmp_path / 'texturs'}: no such folder" in capsys.readouterr().err
    assert not out.exists()
    assert main([*words, str(tmp_path)]) == 0


def test_meshes_of_one_plain_color_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def mesh(name: str, materials: str, used: str) -> None:
        write(tmp_path / "in" / f"{name}.mtl", materials)
        write(tmp_path / "in" / f"{name}.obj", f"# {name}\nmtllib {name}.mtl\n{used}f 1 2 3\n")

    mesh("two", "newmtl a\nKd 1 0 0\nnewmtl b\nKd 0 0 1\n", "usemtl a\nusemtl b\n")
    mesh("one", "newmtl a\nKd 1 0 0\nnewmtl b\nKd 1  0 0\n", "usemtl a\nusemtl b\n")
    mesh("unused", "newmtl a\nKd 1 0 0\nnewmtl b\nKd 0 0 1\n", "usemtl a\n")
    mesh("image", "newmtl a\nKd 1 0 0\nmap_Kd gone.png\n", "usemtl a\n")
    write(tmp_path / "in/other.ply", "ply")
    pack(tmp_path / "in/broken.zip", {})
    (tmp_path / "in/broken.zip").write_bytes(b"PK")
    out = tmp_path / "l.jsonl"
    assert main(["list", str(tmp_path / "in"), "--out", str(out), "--colored"]) == 0
    assert "2 of one plain color left out" in capsys.readouterr().out
    assert sorted(Path(row["path"]).stem for row in read_jsonl(out)) == ["broken", "image", "other", "two"]


def test_objects_of_the_command_line_take_the_place_of_the_bases(tmp_path: Path) -> None:
    write(tmp_path / "idea.yaml", "description: x\ndata: {chunk_size: 7}\n")
    plain, replaced = (
        load_ablation(tmp_path / "idea.yaml", "scratch", ROOT / "configs", objects) for objects in ((), ("a", "b"))
    )
    assert plain.experiment.data.model_dump()["paths"] == ("workflow/objects",)
    assert replaced.experiment.data.model_dump()["paths"] == ("a", "b")
    assert replaced.experiment.data.chunk_size == 7
    assert replaced.differences == plain.differences
