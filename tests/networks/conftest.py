"""Folders with the public layout of Zero123++ and small random weights."""

import shutil
from pathlib import Path

import pytest
from support.published_weights import write_published


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that tests only read."""
    folder = tmp_path_factory.mktemp("hub") / "zero123plus"
    write_published(folder)
    return folder


@pytest.fixture
def copied(published: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "weights"))
