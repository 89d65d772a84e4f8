"""Listing large and hostile files: limits hold, memory is bounded and time is linear, whatever the file."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import pytest
from support.paths import ROOT

from z1g.core.files import read_jsonl
from z1g.data.manifest import ObjectEntry
from z1g.meshes.archives import CATALOG, models
from z1g.meshes.content import content_of
from z1g.meshes.files import Unusable, prepare
from z1g.meshes.limits import FileLimits
from z1g.meshes.listing import find_objects
from z1g.meshes.references import references
from z1g.meshes.store import LONGEST_LINE, Archive, Disk, NotChecked, whole_lines

MIB = 2**20
PEAK_MIB = 250
MEASURED = """
import resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
code = subprocess.run([sys.executable, "-m", "z1g", "list", *sys.argv[1:]]).returncode
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(code)
"""
"""Prints the peak memory of `z1g list` in MiB.

A process that is started directly inherits the peak of the large process of the tests. The limit of 8 GiB is far above
what is allowed, so that a failure does not take the machine with it.
"""
HEAD = {
    "obj": b"v 0 0 0\n",
    "mtl": b"mtllib x.mtl\nusemtl a\nv 0 0 0\n",
    "gltf": b'{"asset": {"version": "2.0"}, "extras": [',
}


def repeated(text: bytes, mib: int) -> Iterable[bytes]:
    block = text * (MIB // len(text))
    return (block for _ in range(mib))


def numbered(form: str, mib: int) -> Iterable[bytes]:
    """Different lines: names that do not repeat."""
    count = MIB // len(form.format(0) + "0" * 8)
    return ("".join(form.format(block * count + i) for i in range(count)).encode() for block in range(mib))


def pack(path: Path, members: dict[str, Iterable[bytes]], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        for name, blocks in members.items():
            with archive.open(name, "w", force_zip64=True) as member:
                for block in blocks:
                    member.write(block)
    return path


LARGE: dict[str, Callable[[], dict[str, Iterable[bytes]]]] = {
    "one_line": lambda: {"x.obj": [HEAD["obj"], *repeated(b"1 ", 400)]},
    "empty_lines": lambda: {"x.obj": repeated(b"\n", 30)},
    "empty_vertices": lambda: {"x.obj": repeated(b"v \n", 30)},
    "libraries": lambda: {"x.obj": numbered("mtllib {}\n", 60)},
    "materials": lambda: {"x.obj": [*numbered("usemtl {}\n", 60)]},
    "one_line_of_a_material": lambda: {"x.obj": [HEAD["mtl"]], "x.mtl": repeated(b"map_Kd ", 300)},
    "images": lambda: {"x.obj": [HEAD["mtl"]], "x.mtl": numbered("map_Kd {}\n", 60)},
    "empty_lines_of_a_material": lambda: {"x.obj": [HEAD["mtl"]], "x.mtl": repeated(b"\n", 30)},
    "entries_of_a_gltf": lambda: {"x.gltf": [HEAD["gltf"], *repeated(b"{},", 100)]},
    "few_entries_of_a_gltf": lambda: {"x.gltf": [HEAD["gltf"], *repeated(b"{},", 30)]},
    "one_string_of_a_gltf": lambda: {"x.gltf": [HEAD["gltf"], b'"', *repeated("😀".encode(), 30), b'"]}']},
    "embedded_data": lambda: {"x.gltf": [b'{"buffers": [{"uri": "data:a/b;base64,', *repeated(b"AAAA", 400), b'"}]}']},
    "many_embedded": lambda: {"x.gltf": [HEAD["gltf"], *repeated(b'"data:;base64,",', 20), b"0]}"]},
    "catalog_of_names": lambda: {CATALOG: [b"model#1=x.obj\n", *numbered("a{}=\n", 7)], "x.obj": [HEAD["obj"]]},
    "catalog": lambda: {CATALOG: repeated(b"a=b\n", 400), "x.obj": [HEAD["obj"]]},
}
PLAIN = ("empty_lines", "empty_vertices", "empty_lines_of_a_material", "catalog_of_names")
"""They can be read and have one plain color, so `--colored` leaves nothing, which is an error."""


def peak_mib(paths: list[Path], out: Path, *words: str, code: int = 0) -> int:
    """Peak memory of `z1g list`, which must end with `code`, in a process of its own, MiB."""
    command = [sys.executable, "-c", MEASURED, *map(str, paths), "--out", str(out), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stderr
    return int(done.stdout.rsplit("peak", 1)[1])


@pytest.mark.slow
@pytest.mark.parametrize("case", LARGE)
def test_memory_is_bounded_whatever_the_file(tmp_path: Path, case: str) -> None:
    archive = pack(tmp_path / "x.zip", LARGE[case]())
    assert archive.stat().st_size < 20 * MIB
    out = tmp_path / "list.jsonl"
    assert peak_mib([archive], out, "--colored", code=2 if case in PLAIN else 0) <= PEAK_MIB
    assert (len(read_jsonl(out)) if out.exists() else 0) == (case not in PLAIN)


@pytest.mark.slow
@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_compression_are_not_unpacked_at_once(tmp_path: Path, method: int) -> None:
    archive = pack(tmp_path / "x.zip", {"x.obj": repeated(b"0", 300)}, method)
    assert peak_mib([archive], tmp_path / "list.jsonl") <= PEAK_MIB
    (entry,) = find_objects([str(archive)])
    with pytest.raises(Unusable, match=r"x\.obj is compressed with (bzip2|lzma); pack the archive again with deflate"):
        prepare(entry, tmp_path / "out", FileLimits())


@pytest.mark.slow
def test_a_member_above_the_limit_is_not_read(tmp_path: Path) -> None:
    """A member above the default limit of 1024 MiB, of which listing read every byte."""
    archive = pack(tmp_path / "x.zip", {"x.obj": repeated(b"v 0 0 0\n", 1100)})
    assert peak_mib([archive], tmp_path / "list.jsonl") <= PEAK_MIB
    (row,) = read_jsonl(tmp_path / "list.jsonl")
    assert "content" not in row
    (entry,) = find_objects([str(tmp_path / "list.jsonl")])
    limits = FileLimits(unpacked_mb=4)
    with pytest.raises(Unusable, match=r"exceed the limit when unpacked \(data\.limits\.unpacked_mb 4\)"):
        prepare(entry, tmp_path / "out", limits)


def test_limits_hold_while_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is opened that the limits exclude, in archives with the side files, and limits may change."""
    image = {"x.mtl": [b"newmtl a\nmap_Kd x.png\n"], "x.png": repeated(b"\0", 2)}
    packed, alone = pack(tmp_path / "x.zip", {"x.obj": [HEAD["mtl"]], **image}), tmp_path / "y.obj"
    alone.write_bytes(b"v 0 0 0\n" * (2 * MIB // 8) + b"#")
    opened = []
    for store in (Archive, Disk):
        inner = store.open
        monkeypatch.setattr(store, "open", lambda self, name, inner=inner: opened.append(name) or inner(self, name))
    paths = [str(packed), str(alone)]
    small = find_objects(paths, FileLimits(unpacked_mb=1, file_mb=1))
    assert set(opened) == {"x.obj", "x.mtl"}
    assert [entry.content for entry in small] == ["", ""]
    large = find_objects(paths, FileLimits(unpacked_mb=3, file_mb=3))
    assert all(entry.content for entry in large)
    assert find_objects(paths, FileLimits(unpacked_mb=1, file_mb=1)) == small


@pytest.mark.parametrize("lines", [[b""], [b"a"], [b"a", b""], [b"", b"", b"b"], [b"x" * 50, b"y", b"z" * 33, b""]])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_blocks_of_whole_lines(monkeypatch: pytest.MonkeyPatch, lines: list[bytes], size: int) -> None:
    monkeypatch.setattr("z1g.meshes.store._BLOCK", size)
    text = b"\n".join(lines)
    blocks = list(whole_lines(BytesIO(text)))
    assert b"".join(blocks) == text
    assert all(block.endswith(b"\n") for block in blocks[:-1])


def test_a_line_may_have_16_mib_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "x.obj"
    path.write_bytes(b"v 0 0 0\n" + b"1" * (LONGEST_LINE - 1) + b"\n")
    assert content_of(Disk(tmp_path), "x.obj").content
    path.write_bytes(b"v 0 0 0\n" + b"1" * (LONGEST_LINE + 5 * MIB))
    (entry,) = find_objects([str(path)])
    assert not entry.content
    with pytest.raises(Unusable, match="a line is longer than 16 MiB, so the file is not a text"):
        prepare(entry, tmp_path, FileLimits())


class Block(bytes):
    """A block that was read; counts the bytes that are copied to append it to a rest."""

    copied = 0

    def __radd__(self, rest: bytes) -> bytes:
        Block.copied += len(rest) + len(self)
        return bytes(rest) + bytes(self)


class Blocks(BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        return Block(super().read(size))


def test_a_line_is_not_copied_again_with_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a line grew with the square of its length."""
    monkeypatch.setattr("z1g.meshes.store._BLOCK", 1024)
    text = b"1" * MIB
    Block.copied = 0
    assert list(whole_lines(Blocks(text))) == [text]
    assert Block.copied <= 2 * len(text)


def test_an_archive_with_a_directory_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(tmp_path / "x.zip", {f"{i}.obj": [b"v 0 0 0\n", str(i).encode()] for i in range(40)})
    with Archive(archive) as opened:
        assert len(models(opened)) == 40
    monkeypatch.setattr("z1g.meshes.store.LARGEST_DIRECTORY", 1000)
    with pytest.raises(NotChecked, match="its directory has 0 MiB"):
        Archive(archive)
    with pytest.raises(Unusable, match="unpack it into a folder and list that"):
        prepare(ObjectEntry("x", f"{archive}!/0.obj"), tmp_path / "out", FileLimits())


@pytest.mark.parametrize("size", [20, 64, 2**20])
def test_embedded_data_is_skipped_and_what_follows_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Against the standard JSON reader, with URIs across blocks."""
    monkeypatch.setattr("z1g.meshes.references._BLOCK", size)
    document = {
        "a": 'quoted "data:x/y;base64,',
        "buffers": [{"uri": "data:application/gltf-buffer;base64," + "QUJD" * 300}, {"uri": "points%20.bin"}],
        "images": [{"uri": "data:image/png;base64,"}, {"uri": "data:,plain"}, {"uri": "wood.png"}, {"bufferView": 0}],
    }
    (tmp_path / "x.gltf").write_text(json.dumps({**document, "a": "b"}))
    uris = [part["uri"] for key in ("buffers", "images") for part in document[key] if "uri" in part]
    expected = [uri.replace("%20", " ") for uri in uris if not uri.startswith("data:")]
    assert [item.uri for item in references(Disk(tmp_path), "x.gltf")] == expected
    # A string that only looks like embedded data has an escaped quote.
    (tmp_path / "x.gltf").write_text(json.dumps(document | {"a": 'data:;base64,"'}))
    with pytest.raises(NotChecked, match="backslash"):
        references(Disk(tmp_path), "x.gltf")
