"""Folders and archives with meshes of games: listed with their images, and read from nowhere else."""

import zipfile
from pathlib import Path

import numpy as np
from support.games import ac3d, ac3d_cube, checker, g3d, image, md2, pmd
from support.raster import drawn, rasterizer

from z1g.meshes.files import problem
from z1g.meshes.limits import FileLimits
from z1g.meshes.listing import find_objects
from z1g.meshes.raster.reading import read_mesh
from z1g.meshes.raster.scene import normalized
from z1g.meshes.references import references
from z1g.meshes.store import Disk


def game(folder: Path) -> Path:
    """A folder of a mesh of each format, with images in places that games use."""
    (folder / "cars").mkdir(parents=True)
    image(folder / "cars/Paint.png", checker())
    image(folder / "textures/wood.png", checker(cells=2))
    (folder / "cars/box.ac").write_text(ac3d(ac3d_cube("Paint.png") + "\n" + ac3d_cube("../textures/wood.png")))
    (folder / "cars/truck.md2").write_bytes(md2(["textures/none", "textures/wood"]))
    (folder / "cars/unit.g3d").write_bytes(g3d([{"color": (1, 0, 0), "size": 0.5}, {"texture": "Paint.bmp"}]))
    (folder / "cars/stone.pmd").write_bytes(pmd())
    return folder


def test_every_format_is_listed_with_its_images(tmp_path: Path) -> None:
    folder = game(tmp_path / "game")
    entries = {Path(entry.source).suffix: entry for entry in find_objects([str(folder)])}
    assert entries.keys() == {".ac", ".md2", ".g3d", ".pmd"}
    assert [ending for ending, entry in sorted(entries.items()) if entry.textures] == [".ac", ".g3d", ".md2"]
    store = Disk(folder / "cars", [folder])
    assert [side.name for side in references(store, "box.ac")] == ["Paint.png", "../textures/wood.png"]
    assert [side.name for side in references(store, "truck.md2")] == ["../textures/wood.png"]
    assert [side.name for side in references(store, "unit.g3d")] == ["Paint.png"]
    image(folder / "textures/wood.png", checker(cells=8))
    changed = {Path(entry.source).suffix: entry for entry in find_objects([str(folder)])}
    differ = [ending for ending in sorted(entries) if entries[ending].content != changed[ending].content]
    assert differ == [".ac", ".md2"]


def test_every_format_is_drawn(tmp_path: Path) -> None:
    folder, gl = game(tmp_path / "game"), rasterizer(32)
    for file in sorted((folder / "cars").glob("*.*")):
        if file.suffix != ".png":
            parts, _ = normalized(*read_mesh(file))
            image = drawn(gl, parts, azimuth_deg=30)
            assert 0.1 < (image[..., 3] > 0).mean() < 0.9
            colors = np.unique(image[image[..., 3] == 255][:, :3], axis=0)
            assert (len(colors) > 1) == (file.suffix != ".pmd")


def test_images_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    game(tmp_path / "game")
    outside = Disk(tmp_path / "game/cars")
    for name in ("box.ac", "truck.md2"):
        reason = problem(tmp_path / "game/cars" / name, FileLimits(), outside)
        assert reason is not None
        assert "outside of its folder" in reason
    assert problem(tmp_path / "game/cars/unit.g3d", FileLimits(), outside) is None


def test_archives_are_unpacked_with_images(tmp_path: Path) -> None:
    folder = game(tmp_path / "game")
    with zipfile.ZipFile(tmp_path / "game.zip", "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, file.relative_to(folder).as_posix())
    inside, outside = (
        {Path(entry.source).suffix: entry.content for entry in find_objects([str(path)])}
        for path in (tmp_path / "game.zip", folder)
    )
    assert inside == outside
    assert np.unique(list(inside.values())).size == 4
