"""Versions in records."""

import platform
import re
from importlib.metadata import distributions

import pytest

from z1g.jobs import records


def normalized(name: str) -> str:
    """Names of packages as in PEP 503: their metadata may have other punctuation."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_versions_are_those_of_all_packages_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PACKAGES", (*records.PACKAGES, "no-such-package"))
    installed = {normalized(found.name): found.version for found in distributions()}
    expected = {name: installed[name] for name in records.PACKAGES if name in installed}
    assert {"torch", "stlpips-pytorch"} <= expected.keys()
    records.provenance.cache_clear()
    assert records.provenance()["versions"] == {"python": platform.python_version(), **expected}
