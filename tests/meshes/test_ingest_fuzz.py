"""Hostile and broken inputs with the real Blender: the job continues, writes nowhere else, and reports every reason."""

import random
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.meshes import ingest_folder
from support.paths import ROOT

from z1g.core.files import read_jsonl
from z1g.data.shards import read_objects, shard_path, table_path
from z1g.geometry.camera import CameraOptions
from z1g.meshes.formats import FORMATS
from z1g.meshes.limits import FileLimits
from z1g.meshes.renderers import Blender
from z1g.sources.meshes import Meshes
from z1g.stages.ingest import run

pytestmark = pytest.mark.blender
CAMERA = CameraOptions(train_views=1, validation_views=1, test_views=1)
BOX = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def obj(scale: float = 1.0, head: str = "", shift: float = 0.0, tail: str = "") -> str:
    points = "".join(f"v {x * scale + shift!r} {y * scale + shift!r} {z * scale + shift!r}\n" for x, y, z in BOX)
    return head + points + "".join(f"f {' '.join(str(i + 1) for i in quad)}\n" for quad in QUADS) + tail


def stl(points: list[tuple[float, float, float]], claimed: int) -> bytes:
    """A binary STL with one triangle and a header that claims `claimed` triangles."""
    corners = [value for point in points for value in point]
    return bytes(80) + struct.pack("<I", claimed) + struct.pack("<12fH", 0, 0, 1, *corners, 0)


def archive(path: Path, files: dict[str, str | bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)


def write_hostile(folder: Path) -> dict[str, str | None]:
    """Write inputs; return the expected words of their reasons by name, None for inputs that can be rendered."""
    for ending in FORMATS:
        (folder / f"zero{ending}").touch()
    expected: dict[str, str | None] = {f"zero{ending}": "0 bytes" for ending in FORMATS}

    def put(name: str, content: str | bytes, reason: str | None) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        expected[name] = reason

    put("fine.obj", obj(), None)
    put("large.obj", obj(1e10), None)
    put("small.obj", obj(1e-10), None)
    put("huge.obj", obj(1e30), "1e+30 units large")
    put("beyond.obj", obj(1e39), "not finite")
    put("tiny.obj", obj(1e-30), "1e-30 units large")
    put("far.obj", obj(1.0, shift=1e7), None)
    put("nan.obj", obj(head="v nan 0 0\n", tail="f 1 2 3\n"), "not finite")
    put("degenerate.obj", obj(tail="f 1 1 1\nf 1 2 2\nf 1 2 1 2\n"), None)
    put("only_degenerate.obj", "v 0 0 0\nv 1 1 1\nv 2 2 2\nf 1 1 1\nf 1 2 3\n", "no face has an area")
    put("no_such_vertex.obj", "v 0 0 0\nv 1 0 0\nv 0 1 1\nf 1 2 99\nf -9 -8 -7\nf 0 0 0\n", "")
    put("words.obj", "v a b c\nf x y z\n" * 50, "no faces")
    put("endless_line.obj", "v " + "1 " * 2_000_000, "no faces")
    put("deep.obj", obj(head="g a\n" * 20_000), None)
    put("liar.stl", stl([(0, 0, 0), (1, 0, 0), (0, 1, 1)], 2**31), "")
    put("nan.stl", stl([(0, 0, 0), (1, 0, 0), (0, float("inf"), 1)], 1), "not finite")
    put(
        "liar.ply",
        "ply\nformat binary_little_endian 1.0\nelement vertex 4000000000\nproperty float x\nend_header\n",
        "",
    )
    put("liar.glb", struct.pack("<4sIIII", b"glTF", 2, 2**32 - 1, 2**32 - 1, 0x4E4F534A), "")
    loop = '{"asset":{"version":"2.0"},"scene":0,"scenes":[{"nodes":[0]}],"nodes":[{"children":[0]}]}'
    put("loop.gltf", loop, "recursion")
    put("recursion.gltf", "[" * 100_000, "recursion")
    put("device.obj", obj(head="mtllib device.mtl\nusemtl a\n"), "a device or pipe")
    (folder / "device.mtl").write_text("newmtl a\nmap_Kd /dev/zero\n")
    put("endless_mtl.obj", obj(head="mtllib /dev/zero\n"), "a device or pipe")
    put("not_a_image.obj", obj(head="mtllib not.mtl\nusemtl a\n"), "texture missing")
    (folder / "not.mtl").write_text("newmtl a\nmap_Kd not.png\n")
    (folder / "not.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 2**31, 2**31, 8, 6, 0, 0, 0)
    )
    rng = random.Random(5)
    for side in ("crate.mtl", "crate.jpg"):
        shutil.copy(ROOT / "workflow/objects/crate" / side, folder)
    crate = (ROOT / "workflow/objects/crate/crate.obj").read_bytes()
    for i in range(4):
        noise = bytearray(crate)
        for _ in range(40):
            noise[rng.randrange(len(noise))] = rng.randrange(256)
        put(f"noise{i}.obj", bytes(noise), "")
    archive(folder / "bomb.zip", {"x.obj": "v 0 0 0\n" * 2_000_000})
    archive(folder / "inner.zip", {"x.obj": obj()})
    archive(folder / "russian.zip", {"again.zip": (folder / "inner.zip").read_bytes(), "y.obj": obj(3.0)})
    archive(folder / "escape.zip", {"../../escaped.obj": obj(4.0), "/escaped.obj": obj(5.0), "z.obj": obj(6.0)})
    shutil.copy(folder / "russian.zip", folder / "cut.zip")
    (folder / "cut.zip").write_bytes((folder / "cut.zip").read_bytes()[:150])
    return expected | {
        "bomb.zip!/x.obj": "exceed the limit when unpacked",
        "inner.zip!/x.obj": None,
        "russian.zip!/y.obj": None,
        "escape.zip!/z.obj": None,
        "cut.zip": "not a complete archive",
    }


def tree(folder: Path) -> dict[str, Any]:
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in folder.rglob("*")}


def test_hostile_inputs_are_rejected(blender: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, scratch, out = tmp_path / "deep/er/inputs", tmp_path / "scratch", tmp_path / "out"
    for folder in (inputs, scratch, out):
        folder.mkdir(parents=True)
    expected = write_hostile(inputs)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    data = Meshes(
        paths=(str(inputs),),
        limits=FileLimits(unpacked_mb=8),
        renderer=Blender(resolution=16, samples=1, python=blender, timeout_s=60),
    )
    manifest = data.manifest()
    stage = ingest_folder(out, data, CAMERA)
    listed = {Path(entry.source).relative_to(inputs).as_posix(): entry for entry in manifest.objects}
    copies = {Path(copy).relative_to(inputs).as_posix() for entry in manifest.objects for copy in entry.copies}
    assert listed.keys() | copies == expected.keys()
    before = tree(tmp_path / "deep")
    run(stage, 0, 2)
    assert tree(tmp_path / "deep") == before
    assert not list(scratch.iterdir())
    assert not list(tmp_path.rglob("*escaped*"))
    rows = {row["id"]: row for row in read_jsonl(table_path(out, 0))}
    assert list(rows) == [entry.id for entry in manifest.objects]
    for name, entry in listed.items():
        reason, words = rows[entry.id]["reason"], expected[name]
        if words is None:
            assert reason is None, (name, reason)
        elif words:
            assert words in (reason or "it was rendered"), (name, reason)
        assert "Traceback" not in (reason or "")
    for item in read_objects(shard_path(out, 0)):
        assert 0 < (item.rgba[..., 3] > 0).mean() < 0.9, item.id
