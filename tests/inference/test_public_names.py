"""What `from z1g import …` offers says everything: types of all arguments, shapes of tensors, errors."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import z1g

SPECIAL = {"__call__", "__init__"}
SHAPE = re.compile(r"\[[A-Z*\d][^\]]*\]")


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public functions and methods, also those of properties and class methods, with their names."""
    for name in sorted(set(z1g.__all__) - {"__version__", "render"}):
        for member, value in vars(getattr(z1g, name)).items():
            function = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
            function = inspect.unwrap(function)
            written = inspect.isfunction(function) and function.__module__.startswith("z1g")
            if written and (member in SPECIAL or not member.startswith("_")):
                yield f"{name}.{member}", function
    yield "render", importlib.import_module("z1g.render.pictures").render


FUNCTIONS = dict(functions())
EACH = pytest.mark.parametrize("name", sorted(FUNCTIONS))


def document(name: str) -> str:
    """Its docstring; a generated `__init__` has that of its class."""
    owner, _, member = name.partition(".")
    function = FUNCTIONS[name]
    generated = member == "__init__" and "<string>" in function.__code__.co_filename
    return inspect.getdoc(getattr(z1g, owner) if generated else function) or ""


def test_the_functions_are_found() -> None:
    of_the_model = {f"ImageToSplats.{name}" for name in ("from_pretrained", "reconstruct", "__call__", "device")}
    of_splats = {f"Splats.{name}" for name in ("__init__", "load", "mapped", "rgb")}
    assert of_the_model | of_splats | {"render"} <= FUNCTIONS.keys()


@EACH
def test_types_are_complete(name: str) -> None:
    signature = inspect.signature(FUNCTIONS[name])
    untyped = {p.name for p in signature.parameters.values() if p.annotation is p.empty}
    assert untyped <= {"self", "cls"}
    assert signature.return_annotation is not signature.empty
    assert "Any" not in str(signature)


@EACH
def test_a_docstring_has_arguments_shapes_and_errors(name: str) -> None:
    text, signature = document(name), inspect.signature(FUNCTIONS[name])
    assert text, "no docstring"
    assert text[0].isupper()
    assert text.rstrip().endswith((".", ":"))
    arguments = [p for p in signature.parameters if p not in {"self", "cls"}]
    # One or two are what the sentence is about.
    if len(arguments) > 2:
        assert [p for p in arguments if not re.search(rf"\b{p}\b", text)] == []
    if "Tensor" in str(signature):
        assert SHAPE.search(text), "a tensor without its shape"
    assert [error for error in raised(name) if error not in text] == []


def raised(name: str) -> set[str]:
    """Errors that the function itself raises."""
    if "<string>" in FUNCTIONS[name].__code__.co_filename:
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(FUNCTIONS[name])))
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc]
    return {getattr(call.func, "id", "") for call in calls if isinstance(call, ast.Call)}


def test_types_for_checkers_are_those_of_the_package() -> None:
    """`__init__.pyi` names what is imported on first use."""
    folder = Path(z1g.__file__).parent
    assert (folder / "py.typed").is_file()
    stub = ast.parse((folder / "__init__.pyi").read_text())
    named = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname == alias.name for alias in node.names), "a checker sees `import x as x` only"
            module = importlib.import_module(str(node.module))
            named |= {alias.name: getattr(module, alias.name) for alias in node.names}
    (listed,) = [ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign)]
    assert sorted(listed) == sorted(z1g.__all__)
    assert named.keys() | {"__version__"} == set(z1g.__all__)
    assert [name for name in named if name != "render" and getattr(z1g, name) is not named[name]] == []
    assert inspect.signature(z1g.render) == inspect.signature(named["render"])
