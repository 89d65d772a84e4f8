"""The ablation files of a folder: which there are, and what each and its set say in their headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from z1g.config.explain import explain, mistaken_truths, where_is
from z1g.config.header import HEADER_KEYS, Header, SetFile, header_values
from z1g.config.peers import PeerOptions
from z1g.config.run_names import FILE_NAME
from z1g.config.yaml_file import YamlFile, read_yaml
from z1g.core.errors import UserError
from z1g.core.names import did_you_mean
from z1g.core.slots import Section

ENDING = ".yaml"
SET_FILE = "_set.yaml"
OWN_KEYS = ("description", "tags", "peers")
"""Keys that an ablation does not take from its set as they are."""
H = TypeVar("H", bound=Section)


@dataclass(frozen=True)
class Entry:
    """An ablation file. `header` has what its set says, too; `said_in` is the file that says a key of the header."""

    name: str
    file: YamlFile
    header: Header
    set: str | None
    said_in: dict[str, YamlFile]
    peers: Mapping[str, PeerOptions] = field(default_factory=dict)
    """Other systems that its set measures."""

    def where(self, key: str) -> str:
        """`file:line` of a key of the header."""
        return self.said_in.get(key, self.file).where((key,))

    def place(self, key: str) -> tuple[Path, int]:
        """File and line of a key of the header."""
        file = self.said_in.get(key, self.file)
        return file.path, file.lines.get((key,), 1)

    @property
    def remarks(self) -> dict[str, Any]:
        """What is said about all runs alike."""
        shown = {name: getattr(self.header, name) for name in ("prune", "priority", "tags", "notes", "x")}
        of_set = "prune" in self.said_in and self.said_in["prune"] is not self.file
        cohort = self.set if of_set and self.set else self.name
        return {"set": self.set, "cohort": cohort, "peers": self.peers, **shown}


class Entries:
    """The ablation files of a folder by name, and the names in each set. Files are read when they are needed, once."""

    def __init__(self, folder: Path, files: dict[str, Path], sets: dict[str, list[str]]) -> None:
        self.folder, self.files, self.sets = folder, files, sets
        self._read: dict[Path, YamlFile] = {}
        self._entries: dict[str, Entry] = {}

    @classmethod
    def of_folder(cls, folder: Path, studies: Path | None = None) -> Entries:
        """All files of a folder and of its sets. Raises UserError if two files have the same name.

        studies: folder of `z1g search`, whose files `<study>/<name>.yaml` are found by name where no other has it.
        """
        files, sets = ablation_files(folder)
        written = {} if studies is None else {file.stem: file for file in sorted(studies.glob("*/*.yaml"))}
        return cls(folder, {**written, **files}, sets)

    @classmethod
    def around(cls, path: Path) -> Entries:
        """One file, and those that are beside it."""
        beside = {file.stem: file for file in sorted(path.parent.glob("*.yaml")) if file.name != SET_FILE}
        folder = path.parent.parent if (path.parent / SET_FILE).is_file() else path.parent
        return cls(folder, {**beside, path.stem: path}, {})

    def entry(self, name: str) -> Entry:
        """The ablation file of a name. Raises UserError if there is none, or if its header is wrong."""
        if name not in self._entries:
            path = self.files.get(name, self.folder / f"{name}.yaml")
            if not FILE_NAME.fullmatch(name):
                raise UserError(f'{path}: the name "{name}" must be a word of letters, digits, "_", "-" and "."')
            if name not in self.files:
                near = did_you_mean(name, [*self.files, *self.sets])
                raise UserError(f'ablation "{name}": there is no file {path}{near}')
            self._entries[name] = self._opened(name, path)
        return self._entries[name]

    def yaml(self, path: Path) -> YamlFile:
        """The content of a file. Raises UserError if it cannot be read."""
        if path not in self._read:
            self._read[path] = read_yaml(path)
        return self._read[path]

    def _opened(self, name: str, path: Path) -> Entry:
        file = self.yaml(path)
        header = read_header(file, Header, header_values(file.values))
        said_in = {key: file for key in HEADER_KEYS if key in file.values}
        shared = path.parent / SET_FILE
        if path.parent == self.folder or not shared.is_file():
            return Entry(name, file, header, None if path.parent == self.folder else path.parent.name, said_in)
        of_set = self.yaml(shared)
        given = {key: value for key, value in of_set.values.items() if value is not None}
        common = read_header(of_set, SetFile, given)
        # The ablation that a set builds on may be one of the set.
        inherited = [
            key
            for key in given
            if key not in said_in and key not in OWN_KEYS and not (key == "base" and common.base == name)
        ]
        update = {key: getattr(common, key) for key in inherited}
        update["tags"] = tuple(dict.fromkeys([*common.tags, *header.tags]))
        said_in |= dict.fromkeys(inherited, of_set)
        return Entry(name, file, header.model_copy(update=update), path.parent.name, said_in, common.peers)


def read_header(file: YamlFile, kind: type[H], values: dict[str, Any]) -> H:
    """Validate the values of a header. Raises UserError naming every mistake."""
    try:
        header = kind.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(explain(error, values, [file], kind))) from error
    compared = {key: value for key, value in values.items() if key != "seeds"}
    truths = list(mistaken_truths(compared, header.model_dump(mode="json")))
    if truths:
        lines = (f"{where_is([file], path)}: {'.'.join(path)}: expected a number, got true or false" for path in truths)
        raise UserError("\n".join(lines))
    return header


def ablation_files(folder: Path) -> tuple[dict[str, Path], dict[str, list[str]]]:
    """Ablation files by name, and the names in each set: `a.yaml`, and `set/b.yaml`, which is ablation b of `set`.

    Raises UserError if two files have the same name, if the folder itself has a file for a set, or if a file of YAML
    has another ending, with which it would be left out.
    """
    if (folder / SET_FILE).exists():
        raise UserError(f"{folder / SET_FILE}: only a subfolder is a set; move the file into one")
    for file in [*sorted(folder.glob("*.*")), *sorted(folder.glob("*/*.*"))]:
        if file.suffix != ENDING and file.suffix.lower() in (ENDING, ".yml"):
            raise UserError(f"{file}: ablations are files *{ENDING}; rename it to {file.stem}{ENDING}")
    files: dict[str, Path] = {}
    sets: dict[str, list[str]] = {}
    for file in [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*/*.yaml"))]:
        if file.name == SET_FILE:
            continue
        if file.stem in files:
            raise UserError(
                f"{files[file.stem]} and {file} have the same name; results are kept by name, so rename one"
            )
        files[file.stem] = file
        if file.parent != folder:
            sets.setdefault(file.parent.name, []).append(file.stem)
    return files, sets
