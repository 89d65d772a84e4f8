"""Which meshes are listed, their ids, and which Blender renders them. Needs no Blender."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT

from z1g.core.errors import UserError
from z1g.data.manifest import ObjectEntry
from z1g.geometry.camera import Y_UP_TO_Z_UP, from_blender, orbit_c2w, to_blender
from z1g.meshes import executable as blender_process
from z1g.meshes import files, limits
from z1g.meshes.renderers import Blender
from z1g.sources.meshes import Meshes

LIMITS = limits.FileLimits()


def put(folder: Path, *names: str) -> None:
    """Files with different contents."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}\nv 0 0 0\n")


def entries(*paths: Path | str) -> list[ObjectEntry]:
    return Meshes(paths=tuple(str(path) for path in paths)).list_objects()


def ids(*paths: Path | str) -> list[str]:
    return [entry.id for entry in entries(*paths)]


def words(*paths: Path | str) -> list[str]:
    """Ids without the content hash."""
    return [name.rpartition("-")[0] for name in ids(*paths)]


def test_the_eight_objects(monkeypatch):
    monkeypatch.chdir(ROOT)
    objects = Meshes().list_objects()
    eight = ["barrel", "basketball", "bread", "chair2", "chicken", "crate", "deckChair", "horse2"]
    assert words("workflow/objects") == eight
    assert objects[5].source == "workflow/objects/crate/crate.obj"
    assert len({entry.textures for entry in objects}) == 8
    assert all(entry.id.endswith(entry.content[:10]) for entry in objects)


def test_folders_globs_and_files_each_object_once(tmp_path, monkeypatch):
    put(tmp_path, "a/one.obj", "a/deep/two.GLB", "b/three.ply", "b/notes.txt", "a/._one.obj", ".git/four.obj")
    monkeypatch.chdir(tmp_path)
    assert words(".") == ["one", "three", "two"]
    assert words("a") == ["one", "two"]
    assert words("*/*.ply", "b/three.ply") == ["three"]
    assert words("**/*.GLB") == ["two"]
    assert words(tmp_path / "b") == ["three"]


def test_ids_are_unique_words_without_dots(tmp_path):
    put(tmp_path, "x/model.obj", "y/model.obj", "z/model.obj", "z/model.stl", "very.old chair.obj", "é.obj", "à.obj")
    names = ids(tmp_path)
    assert names == sorted(names)
    assert len(set(names)) == 7
    assert words(tmp_path) == ["_", "_", "very_old_chair", "x", "y", "z", "z"]
    assert all(c.isascii() and (c.isalnum() or c in "-_") for name in names for c in name)
    assert names == ids(tmp_path)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere", "no such file or folder"),
        ("empty", "has no mesh"),
        ("a.txt", "not a mesh file"),
        ("*.obj", "no mesh"),
    ],
)
def test_paths_without_meshes_are_errors_that_name_the_path(tmp_path, monkeypatch, path, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words) as error:
        ids(path)
    assert path in str(error.value)


def test_listing_imports_neither_torch_nor_bpy():
    code = (
        "import sys; from z1g.sources.meshes import Meshes; assert len(Meshes().list_objects()) == 8;"
        "import z1g.stages.ingest; assert not {'torch', 'bpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_file_checks(tmp_path):
    def problem(name: str, content: str) -> str | None:
        (tmp_path / name).write_text(content)
        return files.problem(tmp_path / name, LIMITS)

    assert "0 bytes" in (problem("a.glb", "") or "")
    assert "cannot be read" in (files.problem(tmp_path / "gone.obj", LIMITS) or "")
    assert "NaN" in (problem("a.obj", "v 1 2 3\nv 1 -nan 3\n") or "")
    assert "NaN" in (problem("a.obj", "v\t1 2 inf\n") or "")
    assert problem("a.obj", "o v nan\n# inf\nvn nan 0 0\nv 1 2 3\n") is None
    header = "ply\nformat ascii 1.0\nelement vertex 2\nproperty uchar red\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "element face 0\nend_header\n"
    assert "NaN" in (problem("a.ply", header + "255 1 2 3\n255 1 nan 3\n") or "")
    assert problem("a.ply", header + "255 1 2 3\n255 1 2 3\n") is None
    assert problem("a.ply", "ply\nnonsense") is None
    assert problem("b.obj", "mtllib my colors.mtl\nv 1 2 3\n") == "material file missing: my colors.mtl"
    (tmp_path / "my colors.mtl").touch()
    assert problem("b.obj", "mtllib my colors.mtl\nv 1 2 3\n") is None


def test_blender_is_searched_in_order(tmp_path, monkeypatch):
    for name in ("configured/python3", "variable/blender", "path/blender", ".venv-blender/bin/python"):
        put(tmp_path, name)
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(blender_process.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("Z1G_BLENDER", str(tmp_path / "variable/blender"))
    script = str(blender_process.SCRIPT)
    configured = str(tmp_path / "configured/python3")
    assert blender_process.find_blender(configured) == [configured, script]
    assert blender_process.find_blender(None)[0] == str(tmp_path / "variable/blender")
    monkeypatch.delenv("Z1G_BLENDER")
    assert blender_process.find_blender(None) == [str(tmp_path / ".venv-blender/bin/python"), script]
    (tmp_path / ".venv-blender/bin/python").unlink()
    command = blender_process.find_blender(None)
    assert command[0] == str(tmp_path / "path/blender")
    assert command[-2:] == ["--python", script]
    assert "--factory-startup" in command
    (tmp_path / "path/blender").unlink()
    with pytest.raises(UserError, match="no Blender found") as error:
        blender_process.find_blender(None)
    assert "Z1G_BLENDER" in str(error.value)
    with pytest.raises(UserError, match=r"data\.renderer\.python: nothing/here"):
        blender_process.find_blender("nothing/here")


def test_this_interpreter_is_used_if_it_has_bpy(monkeypatch):
    monkeypatch.delenv("Z1G_BLENDER", raising=False)
    monkeypatch.setattr(blender_process.importlib.util, "find_spec", lambda name: object())
    assert blender_process.find_blender(None) == [sys.executable, str(blender_process.SCRIPT)]


def test_only_values_that_change_images_are_in_the_identity():
    from z1g.core.slots import Runtime

    runtime = {
        name for name, field in Blender.model_fields.items() if any(isinstance(m, Runtime) for m in field.metadata)
    }
    elsewhere = {"device", "processes", "restart_after", "restart_above_mb", "memory_mb"}
    assert runtime == {"timeout_s", "python", *elsewhere}


def test_blender_poses_by_hand():
    # Front view: z1g's camera is at z = 1.5 and looks along -z; in Blender's z-up world it is at y = -1.5 along +y.
    front = [[1, 0, 0, 0], [0, 0, -1, -1.5], [0, 1, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(to_blender(orbit_c2w(0, 0, 1.5)), front, atol=1e-12)
    # From the right (azimuth 90): at x = 1.5 in both; the camera's right axis is z1g's -z, which is Blender's +y.
    right = [[0, 0, 1, 1.5], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(to_blender(orbit_c2w(0, 90, 1.5)), right, atol=1e-12)
    np.testing.assert_allclose(Y_UP_TO_Z_UP @ [1, 2, 3, 1], [1, -3, 2, 1])
    poses = np.stack([orbit_c2w(-20, 210, 1.5), orbit_c2w(55, 10, 2.0)])
    np.testing.assert_allclose(from_blender(to_blender(poses)), poses, atol=1e-12)


def glb(points: np.ndarray) -> bytes:
    document = {
        "asset": {"version": "2.0"},
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": len(points), "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": points.nbytes}],
        "buffers": [{"byteLength": points.nbytes}],
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + points.nbytes)
    chunk = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", points.nbytes, b"BIN\0")
    return head + chunk + points.tobytes()


def test_nan_in_binary_files(tmp_path):
    points = np.arange(9, dtype="<f4").reshape(3, 3)
    header = "ply\nformat binary_{}_endian 1.0\nelement vertex 3\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"

    def problems() -> list[bool]:
        (tmp_path / "a.glb").write_bytes(glb(points))
        (tmp_path / "little.ply").write_bytes(header.format("little").encode() + points.tobytes())
        (tmp_path / "big.ply").write_bytes(header.format("big").encode() + points.astype(">f4").tobytes())
        return [files.problem(tmp_path / name, LIMITS) is not None for name in ("a.glb", "little.ply", "big.ply")]

    assert problems() == [False] * 3
    points[1, 2] = np.inf
    assert problems() == [True] * 3
    # Blender reports truncated files.
    (tmp_path / "a.glb").write_bytes(glb(points)[:-20])
    assert files.problem(tmp_path / "a.glb", LIMITS) is None
