"""Public evaluation sets, in the folders that their authors publish, with a fixed list of objects by content."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from z1g.core.errors import UserError
from z1g.core.names import counted
from z1g.core.needs import require_file, require_folder
from z1g.core.slots import FileContent
from z1g.data.manifest import ObjectEntry
from z1g.geometry.camera import CameraOptions
from z1g.meshes.listing import MeshFile, known_objects
from z1g.meshes.lists import read_list
from z1g.meshes.share import Share
from z1g.sources._evaluation_layouts import UP_AXES, SetName, items
from z1g.sources.meshes import MeshSource

MOST_NAMED = 5


class EvaluationSet(MeshSource):
    """Google Scanned Objects, Toys4K, OmniObject3D or the LVIS part of Objaverse, rendered here.

    Objects are known by the content of their files. `objects` fixes which of them a figure is about: a list with a
    column `content`, as `z1g list` writes it, of which every object has to be there, unchanged.
    """

    kind: Literal["evaluation_set"] = "evaluation_set"
    collection: SetName = Field("gso", description="the set, which says where in the folder its meshes are")
    root: str = Field("data/gso", description="folder of the set, as it was unpacked")
    objects: Annotated[str | None, FileContent()] = Field(
        None, description="list of the objects by content (.csv or .jsonl with a column `content`); null: all"
    )

    up_axis: Literal["set", "file", "y", "z"] = Field(
        "set", description="up axis of the meshes; set: z of gso, whose models are for Gazebo, and file of the others; "
        "file: of their format; y, z: of .obj files"
    )  # fmt: skip

    def _settings(self, camera: CameraOptions, share: Share) -> dict[str, Any]:
        axis = UP_AXES[self.collection][0] if self.up_axis == "set" else self.up_axis
        return {**super()._settings(camera, share), **({} if axis == "file" else {"up_axis": axis})}

    def check(self) -> None:
        require_folder("root", self.root, "give the folder of the set")
        if self.objects is not None:
            require_file("objects", self.objects, "null stands for all objects")
        super().check()

    def list_objects(self) -> list[ObjectEntry]:
        """The objects of the list, or all, by id. Raises UserError if some of the list are missing or changed."""
        root = Path(self.root)
        if not root.is_dir():
            raise UserError(f"data.root: {root} is not a folder (current folder: {Path.cwd()})")
        found = items(self.collection, root)
        others = [mesh for mesh, _, _ in found if mesh.suffix != ".obj"]
        if self.up_axis in ("y", "z") and others:
            raise UserError(f"data.up_axis {self.up_axis}: the format of {others[0]} says what is up; use `file`")
        files = [
            MeshFile(mesh.as_posix(), _about(name, category, self.collection), root=root.as_posix())
            for mesh, name, category in found
        ]
        entries = known_objects(root, files, self.limits, self.roots)
        return entries if self.objects is None else _listed(entries, Path(self.objects))


def _about(name: str, category: str, origin: str) -> tuple[tuple[str, str], ...]:
    said = {"name": name, "category": category, "origin": origin}
    return tuple((key, value) for key, value in said.items() if value)


def _listed(entries: list[ObjectEntry], path: Path) -> list[ObjectEntry]:
    """The entries of a list of contents. Raises UserError that names what is not there."""
    wanted: dict[str, str] = {}
    for row in read_list(path):
        if not row.get("content"):
            raise UserError(f"{path}: {row['path']} has no `content`; `z1g list` writes it")
        wanted[row["content"]] = row["path"]
    by_content: Mapping[str, ObjectEntry] = {entry.content: entry for entry in entries if entry.content}
    absent = [place for content, place in wanted.items() if content not in by_content]
    if absent:
        more = f" and {len(absent) - MOST_NAMED} more" if len(absent) > MOST_NAMED else ""
        raise UserError(
            f"{path}: {len(absent)} of {counted(len(wanted), 'object')} are not in the folder, or their files have "
            f"changed: {', '.join(absent[:MOST_NAMED])}{more}"
        )
    return [entry for entry in entries if entry.content in wanted]
