"""Copies of buckets, with fsspec's files in memory instead of a server."""

import errno
from pathlib import Path
from typing import Any

import fsspec
import pytest

from z1g.cli.main import main
from z1g.core import s3
from z1g.core.errors import UserError
from z1g.core.needs import Missing
from z1g.inference.method import ImageToSplats
from z1g.plan.plan import Plan
from z1g.sources.meshes import Meshes


class Memory:
    """A client of files in memory; `asked` has the keys that were fetched, `fails` the one that cannot be."""

    def __init__(self) -> None:
        self.store = fsspec.filesystem("memory", skip_instance_cache=True)
        self.store.store = {}
        self.asked: list[str] = []
        self.fails: tuple[str, OSError] | None = None

    def put(self, key: str, content: bytes) -> None:
        self.store.pipe_file(key, content)

    def find(self, key: str, detail: bool = False) -> Any:
        found = {
            name.lstrip("/"): {"name": name.lstrip("/"), "size": file.size, "ETag": str(hash(file.getvalue()))}
            for name, file in self.store.store.items()
            if name.lstrip("/") == key or name.lstrip("/").startswith(f"{key}/")
        }
        return found if detail else list(found)

    def get_file(self, key: str, path: str) -> None:
        self.asked.append(key)
        if self.fails is not None and self.fails[0] == key:
            Path(path).write_bytes(b"ha")
            raise self.fails[1]
        Path(path).write_bytes(self.store.cat_file(key))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Memory:
    client = Memory()
    monkeypatch.setattr(s3, "_client", lambda: client)
    client.put("b/set/one.obj", b"one")
    client.put("b/set/below/two.mtl", b"two")
    client.put("b/settled/other", b"not below b/set")
    return client


def files(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(".")}


def test_only_what_changed_is_copied(bucket: Memory, tmp_path: Path) -> None:
    s3.copy_from("s3://b/set/", tmp_path / "c")
    assert files(tmp_path / "c") == {"one.obj": b"one", "below/two.mtl": b"two"}
    bucket.asked.clear()
    s3.copy_from("s3://b/set", tmp_path / "c")
    assert bucket.asked == []
    # Of the same size, changed here, gone, new.
    bucket.put("b/set/one.obj", b"ONE")
    (tmp_path / "c/below/two.mtl").write_bytes(b"edited")
    bucket.put("b/set/three", b"")
    s3.copy_from("s3://b/set", tmp_path / "c")
    assert files(tmp_path / "c") == {"one.obj": b"ONE", "below/two.mtl": b"two", "three": b""}
    bucket.store.rm_file("b/set/one.obj")
    bucket.asked.clear()
    s3.copy_from("s3://b/set", tmp_path / "c")
    assert files(tmp_path / "c") == {"below/two.mtl": b"two", "three": b""}
    assert bucket.asked == []


def test_an_interrupted_copy_goes_on(bucket: Memory, tmp_path: Path) -> None:
    for number in range(40):
        bucket.put(f"b/set/{number:02d}", b"more")
    bucket.fails = ("b/set/20", OSError("the line is cut"))
    with pytest.raises(UserError, match=r"s3://b/set: the line is cut; check the name, the credentials"):
        s3.copy_from("s3://b/set", tmp_path / "c")
    assert "20" not in files(tmp_path / "c")
    assert not list((tmp_path / "c").glob("*.tmp"))
    there = {f"b/set/{name}" for name in files(tmp_path / "c")}
    bucket.fails = None
    bucket.asked.clear()
    s3.copy_from("s3://b/set", tmp_path / "c")
    assert "b/set/20" in bucket.asked
    assert there.isdisjoint(bucket.asked), "what has come is kept"
    assert len(files(tmp_path / "c")) == 42


def test_a_truncated_file_is_not_taken(bucket: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "get_file", lambda key, path: Path(path).write_bytes(b"o"))
    with pytest.raises(UserError, match="3 bytes, of which 1 came"):
        s3.copy_from("s3://b/set", tmp_path / "c")
    assert files(tmp_path / "c") == {}


def test_a_full_disk_is_not_the_fault_of_the_bucket(bucket: Memory, tmp_path: Path) -> None:
    bucket.fails = ("b/set/one.obj", OSError(errno.ENOSPC, "No space left on device", "one.obj"))
    with pytest.raises(OSError, match="No space left"):
        s3.copy_from("s3://b/set", tmp_path / "c")


@pytest.mark.parametrize("name", ["../out", "a/../../out", "a//b", "./a", "a/."])
def test_names_stay_in_the_folder(bucket: Memory, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = f"b/set/{name}"
    monkeypatch.setattr(bucket, "find", lambda *_, **__: {key: {"name": key, "size": 1, "ETag": "x"}})
    with pytest.raises(UserError, match="cannot be the name of a file here; rename it in the bucket"):
        s3.copy_from("s3://b/set", tmp_path / "c")
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("record", ['{"../kept": ["t", 1, 1]}', "[]", "{", '{"a": 3}'])
def test_a_damaged_record_removes_nothing(bucket: Memory, tmp_path: Path, record: str) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / s3.STAMPS).write_text(record)
    s3.copy_from("s3://b/set", tmp_path / "c")
    assert (tmp_path / "kept").is_file()
    assert len(files(tmp_path / "c")) == 2


@pytest.mark.parametrize("url", ["s3://", "s3://b", "s3:///a", "s3://b/../a", "s3://b//a", "s3://b/a/."])
def test_what_is_no_place_in_a_bucket(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a place in a bucket is s3://BUCKET/PATH"):
        s3.copy_from(url, tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["infer", "photo.png", "--out", "s3://b/splats"], "s3://b/splats is in a bucket; this must be on a disk"),
        (["infer", "s3://b/photo.png"], "this must be on a disk"),
        (["list", "x", "--out", "s3://b/objects.jsonl"], "this must be on a disk"),
        (["publish", "base", "--to", "s3://b/a", "--private"], "setting of its bucket"),
        (["publish", "base", "--to", "s3://b"], "a place in a bucket is s3://BUCKET/PATH"),
    ],
)
def test_what_must_be_on_a_disk_is_said(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code: Any = main(words)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_results_and_objects_of_runs_are_on_a_disk() -> None:
    with pytest.raises(UserError, match=r"results=: s3://… is in a bucket"):
        Plan.from_options({}, Path("s3://b/results"))
    with pytest.raises(UserError, match=r"data.paths: s3://b/a: .*z1g list"):
        Meshes(paths=("s3://b/a",)).list_objects()
    with pytest.raises(Missing, match=r"paths: s3://b/a: .*z1g list"):
        Meshes(paths=("s3://b/a",)).check()


def test_buckets_have_no_revisions() -> None:
    with pytest.raises(UserError, match="only models of the hub have revisions"):
        ImageToSplats.from_pretrained("s3://b/a", revision="main")


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent() -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(s3, "_client", absent)
    with pytest.raises(UserError, match=r"pip install 'z1g\[s3\]'"):
        s3.copy_from("s3://b/a", tmp_path)
