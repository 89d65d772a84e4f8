"""Meshes read only from their folder, their archive and the configured roots."""

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.meshes import CAMERA, cuboid, options

from z1g.cli.main import main
from z1g.core.files import read_jsonl
from z1g.data.manifest import ObjectEntry
from z1g.data.shards import Rejected
from z1g.meshes.files import Unusable, prepare
from z1g.meshes.limits import FileLimits
from z1g.meshes.listing import find_objects
from z1g.meshes.store import Disk
from z1g.sources.meshes import Meshes

TRIANGLE = struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0)
MESH = "mtllib {}\nusemtl a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"


def document(buffer: str, image: str | None = None) -> dict[str, object]:
    """A glTF triangle."""
    return {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3",
                       "min": [0, 0, 0], "max": [1, 1, 0]}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [{"uri": buffer, "byteLength": 36}],
        "images": [] if image is None else [{"uri": image}],
    }  # fmt: skip


def put(path: Path, content: str | bytes | dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content) if isinstance(content, dict) else content
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def glb(content: dict[str, object]) -> bytes:
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sII", b"glTF", 2, 20 + len(text)) + struct.pack("<I4s", len(text), b"JSON") + text


Make = Callable[[Path, str], Path]
"""Writes a mesh to a folder, which refers to a file by a name."""


def linked(folder: Path, name: str) -> Path:
    (folder / "inside.bin").symlink_to(folder / name)
    return put(folder / "x.gltf", document("inside.bin"))


def behind_a_linked_folder(folder: Path, name: str) -> Path:
    (folder / "inside").symlink_to((folder / name).parent)
    return put(folder / "x.gltf", document(f"inside/{Path(name).name}"))


def material(folder: Path, name: str) -> Path:
    put(folder / "x.mtl", f"newmtl a\nmap_Kd -s 1 1 1 {name}\n")
    return put(folder / "x.obj", MESH.format("x.mtl"))


CASES: dict[str, Make] = {
    "buffer": lambda folder, name: put(folder / "x.gltf", document(name)),
    "buffer_of_a_glb": lambda folder, name: put(folder / "x.glb", glb(document(name))),
    "glb_called_gltf": lambda folder, name: put(folder / "x.gltf", glb(document(name))),
    "gltf_called_glb": lambda folder, name: put(folder / "x.glb", document(name)),
    "with_a_damaged_image": lambda folder, name: put(folder / "x.gltf", document(name) | {"images": [{"uri": 5}, 3]}),
    "with_a_backslash": lambda folder, name: put(folder / "x.gltf", document("a\\b\\c\\..\\" + "../" * 2 + name)),
    "percent": lambda folder, name: put(folder / "x.gltf", document(name.replace(".", "%2e").replace("s", "%73"))),
    "like_embedded": lambda folder, name: put(folder / "x.gltf", document(f"%64ata:/../{name}")),
    "image": lambda folder, name: put(folder / "x.gltf", document("x.bin", name)),
    "link": linked,
    "linked_folder": behind_a_linked_folder,
    "library": lambda folder, name: put(folder / "x.obj", MESH.format(name)),
    "library_after_a_tab": lambda folder, name: put(folder / "x.obj", MESH.format(name).replace(" ", "\t", 1)),
    "map": material,
}
RELATIVE = ("with_a_backslash", "like_embedded")
"""Cases whose references cannot be absolute."""


def refused(entry: ObjectEntry, folder: Path, roots: tuple[str, ...] = ()) -> str:
    with pytest.raises(Unusable) as error:
        prepare(entry, folder, FileLimits(), roots)
    return str(error.value)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Resolved paths of the files opened from disk."""
    paths: list[str] = []
    inner = Disk.open
    monkeypatch.setattr(
        Disk, "open", lambda self, name: paths.append(os.path.realpath(self.root / name)) or inner(self, name)
    )
    return paths


@pytest.mark.parametrize(
    ("case", "absolute"),
    [(case, absolute) for case in CASES for absolute in (True, False) if not (absolute and case in RELATIVE)],
)
def test_a_reference_to_a_file_outside_is_a_quarantine(
    tmp_path: Path, opened: list[str], case: str, absolute: bool
) -> None:
    secret = put(tmp_path / "secrets/secret.bin", TRIANGLE)
    folder = tmp_path / "set/models"
    folder.mkdir(parents=True)
    name = str(secret) if absolute else "../../secrets/secret.bin"
    put(folder / "x.bin", TRIANGLE)
    CASES[case](folder, name)
    (entry,) = find_objects([str(tmp_path / "set")])
    assert not entry.content
    reason = refused(entry, tmp_path / "out")
    assert "it refers to" in reason
    assert f"{secret}, outside of its folder and of data.paths" in reason
    assert "add its folder to data.roots" in reason
    assert str(secret) not in opened
    # The user may allow it.
    (entry,) = find_objects([str(tmp_path / "set")], roots=[str(secret.parent)])
    assert entry.content
    assert prepare(entry, tmp_path / "out", FileLimits(), [str(secret.parent)])
    assert "data.roots" in refused(entry, tmp_path / "out")


def test_textures_beside_the_models_of_a_listed_folder_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`../textures` of a mesh, where the user named the folder above both, a pattern in it, or a list of it."""
    put(tmp_path / "set/textures/wood.png", "image")
    put(tmp_path / "set/models/alone.obj", "v 0 0 0\n")
    material(tmp_path / "set/models", "../textures/wood.png")
    monkeypatch.chdir(tmp_path)
    assert main(["list", "set", "--out", "lists/all.jsonl"]) == 0
    roots = {row["path"]: row.get("root") for row in read_jsonl(tmp_path / "lists/all.jsonl")}
    assert roots == {"../set/models/x.obj": "../set", "../set/models/alone.obj": None}
    contents = set()
    for path in ("set", "set/*/x.obj", "lists/all.jsonl", str(tmp_path / "set")):
        entry = next(entry for entry in find_objects([path]) if entry.id.startswith("x-"))
        assert entry.textures
        assert prepare(entry, tmp_path / "out", FileLimits()).samefile("set/models/x.obj")
        contents.add(entry.content)
    assert len(contents) == 1
    # Of the folder of models alone, they are outside.
    entry = next(entry for entry in find_objects(["set/models"]) if entry.id.startswith("x-"))
    assert "set/textures/wood.png, outside of its folder" in refused(entry, tmp_path / "out")
    (entry,) = find_objects(["set/models/x.obj"], roots=["set/textures"])
    assert prepare(entry, tmp_path / "out", FileLimits(), ["set/textures"])
    assert main(["list", "set/models", "--out", "lists/models.jsonl", "--root", "set/textures"]) == 0
    assert all("content" in row for row in read_jsonl(tmp_path / "lists/models.jsonl"))


def test_a_linked_set_is_read_where_it_is(tmp_path: Path) -> None:
    """A link to the whole set, and links inside of it that stay inside."""
    put(tmp_path / "store/shared/wood.png", "image")
    (tmp_path / "store/models").mkdir()
    (tmp_path / "store/models/wood.png").symlink_to("../shared/wood.png")
    material(tmp_path / "store/models", "wood.png")
    (tmp_path / "set").symlink_to("store")
    for path in ("set", "store"):
        (entry,) = find_objects([str(tmp_path / path)])
        assert entry.textures
        assert prepare(entry, tmp_path / "out", FileLimits())


@pytest.mark.parametrize("name", ["/home/somebody/wood.png", "../../wood.png", "C:\\Users\\somebody\\wood.png"])
def test_paths_of_another_machine_are_missing_as_before(tmp_path: Path, name: str) -> None:
    """Blender takes the file of that name beside the material, and reports it if there is none."""
    material(tmp_path, name)
    (entry,) = find_objects([str(tmp_path)])
    assert entry.content
    assert prepare(entry, tmp_path / "out", FileLimits())


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("case", ["buffer", "buffer_of_a_glb", "image", "library", "map"])
def test_an_archive_reads_only_from_itself(tmp_path: Path, opened: list[str], case: str, absolute: bool) -> None:
    """Blender would read the files that lie where the archive is unpacked."""
    out = tmp_path / "deep/out"
    secret = put(tmp_path / "deep/secret.bin", TRIANGLE)
    (tmp_path / "in").mkdir()
    mesh = CASES[case](tmp_path / "in", str(secret) if absolute else "../../secret.bin")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for file in (tmp_path / "in").iterdir():
            archive.write(file, f"models/{file.name}")
    (entry,) = find_objects([str(tmp_path / "x.zip")])
    assert entry.source.endswith(f"!/models/{mesh.name}")
    assert f"{secret}, outside of its folder" in refused(entry, out)
    assert str(secret) not in opened


def test_side_files_of_an_archive_may_lie_in_another_folder_of_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("models/x.gltf", json.dumps(document("../data/x.bin")))
        archive.writestr("data/x.bin", TRIANGLE)
    (entry,) = find_objects([str(tmp_path / "x.zip")])
    assert prepare(entry, tmp_path / "out", FileLimits()).name == "x.gltf"
    assert (tmp_path / "out/data/x.bin").read_bytes() == TRIANGLE


NAMED = ("buffer", "buffer_of_a_glb", "image", "library", "map")


# A link names a file in the folder only.
@pytest.mark.parametrize(
    ("case", "name"), [("link", "pipe.bin"), *((case, name) for case in NAMED for name in ("pipe.bin", "/dev/zero"))]
)
def test_a_device_or_pipe_is_not_read(tmp_path: Path, case: str, name: str) -> None:
    """Blender would read it until its time or memory is used up."""
    folder = tmp_path / "set"
    folder.mkdir()
    os.mkfifo(folder / "pipe.bin")
    entry = ObjectEntry("x", str(CASES[case](folder, name)))
    assert "a device or pipe" in refused(entry, tmp_path / "prepared")


def test_roots_are_checked_before_the_run(tmp_path: Path) -> None:
    from z1g.core.needs import Missing

    put(tmp_path / "x.obj", "v 0 0 0\n")
    Meshes(paths=(str(tmp_path),), roots=(str(tmp_path),)).check()
    with pytest.raises(Missing, match="gone: no such folder"):
        Meshes(paths=(str(tmp_path),), roots=(str(tmp_path / "gone"),)).check()


@pytest.mark.blender
def test_blender_reads_nothing_from_outside(blender: str, tmp_path: Path) -> None:
    """Formats whose references only Blender knows, with an image that exists."""
    from PIL import Image

    inputs, outside, scratch = tmp_path / "set", tmp_path / "outside", tmp_path / "scratch"
    for folder in (inputs, outside, scratch):
        folder.mkdir()
    Image.new("RGB", (4, 4), (200, 10, 10)).save(outside / "wood.png")
    shutil.copy(outside / "wood.png", inputs / "beside.png")
    points = "(0,0,0),(1,0,0),(0,1,0),(0,0,1)"
    for name, image in {"bad": "../outside/wood.png", "good": "beside.png"}.items():
        put(inputs / f"{name}.usda", USD.replace("POINTS", points).replace("IMAGE", image))
    # Blender tries underscores of a name as spaces, and reads a line of options that z1g does not know.
    put(inputs / "x.mtl", f"newmtl a\nmap_Kd -imfchan r {outside}/wood.png\n")
    put(inputs / "obj.obj", "mtllib x.mtl\nusemtl a\n" + cuboid((0, 0, 0), (1, 1, 1)))
    layer = USD.replace("POINTS", points).replace("IMAGE", "beside.png")
    for name, arc in {
        "layered": "#usda 1.0\n(subLayers = [@{}/layer.usda@])\n",
        "referring": '#usda 1.0\ndef Xform "other" (references = @{}/layer.usda@</root>) {{}}\n',
        "payload": '#usda 1.0\ndef Xform "other" (payload = @{}/layer.usda@</root>) {{}}\n',
    }.items():
        put(inputs / f"{name}.usda", arc.format("../outside"))
        put(inputs / f"{name}-inside.usda", arc.format("layers"))
    # Folders of layers are listed too; this one is a mesh of its own.
    for folder in (inputs / "layers", outside):
        put(folder / "layer.usda", layer)
    shutil.copy(outside / "wood.png", inputs / "layers/beside.png")
    shutil.copy(outside / "wood.png", outside / "beside.png")
    source = Meshes(paths=(str(inputs),), renderer=options(blender))
    listed = source.list_objects()
    reasons = {
        Path(entry.source).name: item.outcome.reason if isinstance(item.outcome, Rejected) else None
        for entry, item in zip(listed, source.ingest(listed, CAMERA, scratch, 1), strict=True)
    }
    assert reasons["good.usda"] is None
    assert "outside of its folder and of data.paths" in str(reasons["bad.usda"])
    assert "outside of its folder and of data.paths" in str(reasons["obj.obj"])
    for name in ("layered", "referring", "payload"):
        assert f"the layer {outside}/layer.usda, outside of its folder" in str(reasons[f"{name}.usda"])
        assert reasons[f"{name}-inside.usda"] is None


USD = """#usda 1.0
(
    defaultPrim = "root"
)
def Xform "root"
{
    def Mesh "mesh" (
        prepend apiSchemas = ["MaterialBindingAPI"]
    )
    {
        int[] faceVertexCounts = [3, 3, 3, 3]
        int[] faceVertexIndices = [0, 2, 1, 0, 1, 3, 1, 2, 3, 0, 3, 2]
        point3f[] points = [POINTS]
        rel material:binding = </root/wood>
    }
    def Material "wood"
    {
        token outputs:surface.connect = </root/wood/shader.outputs:surface>
        def Shader "shader"
        {
            uniform token info:id = "UsdPreviewSurface"
            color3f inputs:diffuseColor.connect = </root/wood/image.outputs:rgb>
            token outputs:surface
        }
        def Shader "image"
        {
            uniform token info:id = "UsdUVTexture"
            asset inputs:file = @IMAGE@
            float3 outputs:rgb
        }
    }
}
"""
