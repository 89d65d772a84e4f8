"""gsplat's kernels are compiled by one process at a time: a stand-in whose compilation the test starts and ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BACKEND = """
import os, sys
from pathlib import Path
folder = Path(os.environ["BUILD"])
(folder / "building").touch(exist_ok=False)
if sys.argv[1] == "first":
    print("building", flush=True)
    sys.stdin.readline()
(folder / "building").unlink()
"""
PROGRAM = """
import logging, sys
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
from z1g.render.gsplat import compiled
compiled()
compiled()
print("compiled", flush=True)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    package = tmp_path / "packages" / "gsplat" / "cuda"
    package.mkdir(parents=True)
    for file in (package.parent / "__init__.py", package / "__init__.py"):
        file.touch()
    (package / "_backend.py").write_text(BACKEND)
    paths = os.pathsep.join([str(tmp_path / "packages"), *sys.path])
    return {**os.environ, "PYTHONPATH": paths, "BUILD": str(tmp_path), "TORCH_EXTENSIONS_DIR": str(tmp_path / "root")}


def start(name: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, name],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_second_process_waits(environment: dict[str, str], tmp_path: Path) -> None:
    first = start("first", environment)
    assert first.stdout is not None
    assert first.stdout.readline() == "building\n"
    second = start("second", environment)
    assert second.stdout is not None
    assert "waiting" in second.stdout.readline()
    assert (tmp_path / "building").exists()
    assert first.communicate("go\n")[0] == "compiled\n"
    assert second.communicate()[0] == "compiled\n"
    assert (first.returncode, second.returncode) == (0, 0)
    assert (tmp_path / "root" / ".z1g-gsplat.lock").is_file()


@pytest.mark.slow
def test_without_a_place_for_locks_installed_kernels_are_used(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    only = start("only", {**environment, "TORCH_EXTENSIONS_DIR": str(tmp_path / "file" / "root")})
    assert only.communicate()[0] == "compiled\n"
