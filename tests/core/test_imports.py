"""Imports without some modules, and what is left in order afterwards."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from z1g.core.imports import missing, postponed, replaced, uncrowded

NAME = "package_of_the_test"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose `inner` package counts how often it is imported, and has a module `part`."""
    inner = tmp_path / NAME / "inner"
    inner.mkdir(parents=True)
    (tmp_path / NAME / "__init__.py").write_text("imported = []\n")
    (inner / "__init__.py").write_text(f"import {NAME}\n{NAME}.imported.append('inner')\nanswer = 42\n")
    (inner / "part.py").write_text("answer = 43\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield NAME
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


def count(package: str) -> int:
    return len(importlib.import_module(package).imported)


def test_missing_modules_cannot_be_imported_until_the_end_of_the_block(package: str) -> None:
    inner = importlib.import_module(f"{package}.inner")
    with missing([f"{package}.inner"]), pytest.raises(ImportError):
        importlib.import_module(f"{package}.inner")
    assert importlib.import_module(f"{package}.inner") is inner


def test_modules_of_an_uncrowded_package_do_not_run_it(package: str) -> None:
    with uncrowded([f"{package}.inner"]):
        part = importlib.import_module(f"{package}.inner.part")
    assert (part.answer, count(package)) == (43, 0)
    assert importlib.import_module(f"{package}.inner").answer == 42


def test_a_postponed_module_is_imported_when_it_is_first_used(package: str) -> None:
    with postponed([f"{package}.inner"]):
        proxy = importlib.import_module(f"{package}.inner")
    assert not hasattr(proxy, "__file__"), "which is how inspect asks all modules"
    assert count(package) == 0
    assert [proxy.answer, proxy.answer] == [42, 42]
    assert count(package) == 1
    inner = importlib.import_module(f"{package}.inner")
    assert inner is not proxy
    assert count(package) == 1
    with pytest.raises(AttributeError, match="question"):
        proxy.question  # noqa: B018


def test_a_postponed_module_may_be_used_before_the_end_of_the_block(package: str) -> None:
    with postponed([f"{package}.inner"]):
        proxy = importlib.import_module(f"{package}.inner")
        assert proxy.answer == 42
        inner = importlib.import_module(f"{package}.inner")
    assert sys.modules[f"{package}.inner"] is inner is not proxy


def test_what_is_imported_already_is_not_postponed(package: str) -> None:
    inner = importlib.import_module(f"{package}.inner")
    with postponed([f"{package}.inner"]):
        assert importlib.import_module(f"{package}.inner") is inner
    assert importlib.import_module(f"{package}.inner") is inner


def test_a_replaced_attribute_returns() -> None:
    module = ModuleType("made_up")
    module.answer = 42  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="question"), replaced(module, "answer", 43):
        assert module.answer + module.question == 43
    assert module.answer == 42


def test_kept_libraries_are_not_searched_for_garbage() -> None:
    """In a process of its own: what is frozen stays so."""
    code = (
        "import gc\n"
        "from z1g.core.imports import are_kept, kept\n"
        "assert not are_kept() and gc.get_freeze_count() == 0\n"
        "with kept():\n"
        "    assert not gc.isenabled()\n"
        "    import json\n"
        "assert are_kept() and gc.isenabled() and gc.get_freeze_count() > 1000\n"
        "assert not any(held is vars(json) for held in gc.get_objects())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
