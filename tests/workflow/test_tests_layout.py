"""Tests mirror the package: folders have the names of its rooms, and shared helpers are in support modules."""

import ast
import contextlib
import multiprocessing
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT, TESTS

OTHER_FOLDERS = {"support", "slurm", "workflow", "adversarial", "golden"}
MODULES = sorted(TESTS.rglob("*.py"))
IMPORT_IN_CODE = re.compile(r"\b(?:import|from)\s+(test_\w+)")


def imported_tests(source: str) -> Iterator[str]:
    """Test modules that Python source imports, including imports by name and in strings of code."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names if node.module is None or node.level)]
        elif isinstance(node, ast.Call) and _called(node.func) in {"import_module", "__import__"}:
            names = [argument.value for argument in node.args if _is_text(argument)]
        elif _is_text(node):
            names = IMPORT_IN_CODE.findall(node.value)
        yield from (part for name in names for part in name.split(".") if part.startswith("test_"))


def _called(function: ast.expr) -> str:
    """The name of a called function, without the object that it belongs to."""
    return getattr(function, "attr", getattr(function, "id", ""))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_no_test_module_is_imported() -> None:
    """Shared helpers belong in `tests/support`, or in `tests/slurm` if only the tests of SLURM use them."""
    imports = {str(file.relative_to(TESTS)): sorted(imported_tests(file.read_text())) for file in MODULES}
    assert {file: names for file, names in imports.items() if names} == {}


@pytest.mark.parametrize(
    "form",
    [
        "import {}",
        "import {} as helpers",
        "from {} import helper",
        "from core.{} import helper",
        "from . import {}",
        "from .{} import helper",
        "def late():\n    from {} import helper",
        "import importlib\nimportlib.import_module('{}')",
        "import subprocess\nsubprocess.run(['python', '-c', 'import {}; {}.helper()'])",
    ],
)
def test_an_import_of_a_test_module_is_noticed(form: str) -> None:
    name = "_".join(["test", "files"])
    assert set(imported_tests(form.replace("{}", name))) == {name}


def test_folders_are_named_like_rooms() -> None:
    rooms, folders = (
        {folder.name for folder in parent.iterdir() if any(folder.rglob("*.py"))} for parent in (ROOT / "z1g", TESTS)
    )
    assert folders - OTHER_FOLDERS <= rooms


def test_test_modules_are_in_folders_and_have_unique_names() -> None:
    """Pytest imports test modules by their file name."""
    files = [file for file in MODULES if file.name.startswith("test_")]
    assert [file for file in files if len(file.relative_to(TESTS).parts) != 2] == []
    assert [name for name, n in Counter(file.name for file in files).items() if n > 1] == []


def listed(markers: str, out: Path) -> None:
    """Write what pytest collects for an expression of markers to a file."""
    with out.open("w") as stream, contextlib.redirect_stdout(stream), contextlib.chdir(ROOT):
        raise SystemExit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-m", markers]))


@pytest.mark.slow
def test_the_fast_tests_cover_every_folder(tmp_path: Path) -> None:
    """With the markers of `make test-fast`; the cluster's tests alone have a target of their own."""
    chosen = re.search(r"(?s)\ntest-fast:.*?-m '([^']+)'", (ROOT / "Makefile").read_text())
    assert chosen is not None
    # A fork of this process, which has imported all tests if it runs all.
    child = multiprocessing.get_context("fork").Process(target=listed, args=(chosen[1], tmp_path / "listing"))
    child.start()
    child.join()
    listing = (tmp_path / "listing").read_text()
    assert child.exitcode == 0, listing[-2000:]
    covered = set(re.findall(r"(?m)^tests/(\w+)/test_\w+\.py::", listing))
    assert covered == {file.parent.name for file in MODULES if file.name.startswith("test_")} - {"slurm"}
