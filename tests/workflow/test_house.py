"""The house: rooms of the package, and who imports whom, types and imports inside of functions included."""

from __future__ import annotations

import ast
import graphlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from support.paths import ROOT

PACKAGE = ROOT / "z1g"
MOST_ROOMS = 28


@dataclass(frozen=True)
class Import:
    """One name that a file imports: `module` is a module of the package, `name` what is taken out of it, if anything."""

    file: Path
    line: int
    module: str
    name: str | None

    @property
    def words(self) -> str:
        """Where it stands and what it is."""
        where = f"{self.file.relative_to(ROOT)}:{self.line}"
        return f"{where} imports {self.module}" + (f".{self.name}" if self.name else "")


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    return {module_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """Its folder in the package; empty for the package itself."""
    return (module.split(".") + [""])[1]


def imports_of(text: str, file: Path, known: dict[str, Path]) -> Iterator[Import]:
    """Imports of the package's own modules, wherever in the file they stand."""
    package = module_of(file) if file.name == "__init__.py" else module_of(file).rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, a.name, None) for a in node.names if a.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            if base in known:
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    yield Import(file, node.lineno, *((inner, None) if inner in known else (base, alias.name)))


@cache
def all_imports() -> list[Import]:
    known = modules()
    return [found for file in known.values() for found in imports_of(file.read_text(), file, known)]


def a_circle(imports: list[Import]) -> list[str]:
    """The modules of one circle, the first once more at the end; empty where there is none."""
    graph: dict[str, set[str]] = {}
    for found in imports:
        graph.setdefault(module_of(found.file), set()).add(found.module)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def floors() -> list[str]:
    """Rooms as the contract in pyproject.toml orders them, the lowest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = settings["contracts"]
    return contract["layers"][::-1]


def test_there_are_few_rooms_and_each_is_on_a_floor() -> None:
    rooms = {room(name) for name in modules()} - {"", "__main__"}
    assert len(rooms) <= MOST_ROOMS, "a new idea goes into a room that is there"
    assert sorted(rooms) == sorted(floors()), "place the new room in [tool.importlinter] of pyproject.toml"


def test_no_room_imports_from_a_floor_above() -> None:
    """The contract that `make lint` checks, for whoever runs the tests only."""
    height = {name: i for i, name in enumerate(floors())}
    wrong = [
        found.words
        for found in all_imports()
        if (mine := room(module_of(found.file))) in height and height.get(room(found.module), -1) > height[mine]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_imports_itself_through_others() -> None:
    circle = a_circle(all_imports())
    assert not circle, " -> ".join(circle)


def test_no_room_imports_what_another_keeps_to_itself() -> None:
    wrong = []
    for found in all_imports():
        private = [part for part in [*found.module.split("."), found.name or ""] if part[:1] == "_" and part[:2] != "__"]
        if private and room(found.module) != room(module_of(found.file)):
            wrong.append(found.words)
    assert not wrong, "\n".join(wrong)


def test_imports_are_found_wherever_they_stand() -> None:
    known = {name: PACKAGE / f"{name}.py" for name in ("z1g", "z1g.a", "z1g.a.b", "z1g.c", "z1g.c._d")}
    text = (
        "import os\nimport z1g.a\nfrom z1g.a import b, other\nfrom .b import thing\n"
        "if TYPE_CHECKING:\n    from z1g.c import _hidden\n\ndef f():\n    from ..c import _d\n"
    )
    found = [(x.line, x.module, x.name) for x in imports_of(text, PACKAGE / "a/__init__.py", known)]
    assert sorted(found, key=str) == [
        (2, "z1g.a", None),
        (3, "z1g.a", "other"),
        (3, "z1g.a.b", None),
        (4, "z1g.a.b", "thing"),
        (6, "z1g.c", "_hidden"),
        (9, "z1g.c._d", None),
    ]


def test_circles_are_found() -> None:
    def imports(*pairs: tuple[str, str]) -> list[Import]:
        return [Import(PACKAGE / f"{a}.py", 1, f"z1g.{b}", None) for a, b in pairs]

    assert a_circle(imports(("a", "b"), ("b", "c"), ("a", "c"))) == []
    assert set(a_circle(imports(("a", "b"), ("b", "c"), ("c", "b")))) == {"z1g.b", "z1g.c"}
    assert a_circle(imports(("a", "a"))) == ["z1g.a", "z1g.a"]
