"""Container recipes: in step with the lock, the package and each other."""

import re
import shlex
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from support.paths import ROOT

FOLDER = ROOT / "workflow/containers"
RECIPES = ("Containerfile", "z1g.def")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHON = {"debian:bookworm-slim": "3.11", "nvidia/cuda:13.0.0-devel-ubuntu24.04": "3.12"}
"""Version of the package python3 of the distributions that the bases are."""
APT = re.compile(r"--no-install-recommends\s+(?:\\\n\s*)?([\w. \n\\-]+?)\s*(?:\\?\n\s*&&|\n\s*rm)")


def recipe(name: str) -> str:
    return (FOLDER / name).read_text()


def copied(name: str) -> set[str]:
    """Files and folders of the repository that a recipe copies."""
    text = recipe(name)
    if name == "Containerfile":
        return {word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]}
    section = text.split("%files\n")[1].split("\n\n")[0]
    return {line.split()[0] for line in section.splitlines()}


@pytest.mark.parametrize("name", RECIPES)
def test_bases_have_a_python_of_the_project(name: str) -> None:
    text = recipe(name)
    named = set(re.findall(r"\bBASE=([\w./:-]+)", text))
    assert named == set(PYTHON)
    assert all(PYTHON[base] in SpecifierSet(PROJECT["requires-python"]) for base in named)


@pytest.mark.parametrize("name", RECIPES)
def test_packages_are_those_of_the_lock(name: str) -> None:
    text = recipe(name)
    assert "environment.py /opt/z1g /opt/build/requirements.lock" in text
    lines = [line for line in text.splitlines() if "pip install" in line and not line.startswith("#")]
    own = [line for line in lines if line.rstrip(" \\").endswith(" /opt/build")]
    assert len(own) == 1
    assert {"--no-deps", "--no-build-isolation"} <= {*own[0].split()}
    for line in set(lines) - {*own}:
        assert "--constraint /opt/build/requirements.lock" in line
    assert re.search(r"^setuptools==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_copied_is_there_and_enough(name: str) -> None:
    sources = copied(name)
    assert all((ROOT / source).exists() for source in sources)
    assert sources >= {"requirements.lock", "workflow/environment.py", "pyproject.toml", "z1g", PROJECT["readme"]}
    assert sources >= {*PROJECT["license-files"]}


def test_both_make_the_same() -> None:
    assert copied("Containerfile") == copied("z1g.def")
    libraries = [{*APT.findall(recipe(name))[0].replace("\\", " ").split()} for name in RECIPES]
    assert libraries[0] == libraries[1]
    assert {"python3", "python3-venv", "libegl1"} <= libraries[0]


def test_they_start_the_command() -> None:
    assert "z1g" in PROJECT["scripts"]
    assert recipe("Containerfile").splitlines()[-1] == 'ENTRYPOINT ["z1g"]'
    assert shlex.split(recipe("z1g.def").splitlines()[-1]) == ["exec", "z1g", "$@"]


@pytest.mark.parametrize("name", RECIPES)
def test_gsplat_is_one_that_z1g_knows(name: str) -> None:
    (version,) = re.findall(r"GSPLAT=(\d[\d.]*)", recipe(name))
    (needed,) = (Requirement(text) for text in PROJECT["optional-dependencies"]["gpu"])
    assert needed.name == "gsplat"
    assert version in needed.specifier
