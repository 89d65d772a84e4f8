"""The rasterizer is compiled in another process, once, whoever else compiles it."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from z1g.render import _kernels, compiled

WITHOUT_SCIPY = """
import sys
from z1g.render import compiled
compiled.compile_beside()
compiled._draw_once()
assert not compiled._compiler and 'scipy' not in sys.modules
import numba, numpy, scipy.stats
product = numba.njit(lambda a, b: numpy.dot(a, b))
assert (product(numpy.eye(2), numpy.eye(2)) == numpy.eye(2)).all()
"""
"""The kernels of a full cache do without scipy; another user of numba then has it all the same."""


class Done:
    """Stands for a process that ends when it is waited for."""

    def __init__(self, command: list[str], **_: object) -> None:
        self.command, self.waited = command, 0

    def wait(self) -> int:
        assert compiled._waiting.locked(), "another thread that renders waits, too"
        self.waited += 1
        return 1


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Done]:
    processes: list[Done] = []

    def start(command: list[str], **options: object) -> Done:
        processes.append(Done(command, **options))
        return processes[-1]

    monkeypatch.setattr(compiled.subprocess, "Popen", start)
    monkeypatch.setattr(compiled, "_compiler", [])
    return processes


def test_one_compiler_is_started_and_waited_for(started: list[Done], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "is_compiled", lambda: False)
    compiled.compile_beside()
    compiled.compile_beside()
    assert [process.command for process in started] == [[sys.executable, "-m", "z1g.render.compiled"]]
    compiled.wait()
    compiled.wait()
    assert started[0].waited == 1


@pytest.mark.parametrize("without", ["numba", "compiler"])
def test_none_is_started_without_need(started: list[Done], monkeypatch: pytest.MonkeyPatch, without: str) -> None:
    monkeypatch.setattr(compiled, "is_compiled", lambda: without == "compiler")
    monkeypatch.setattr(compiled, "NUMBA", "no_such_package" if without == "numba" else "numba")
    compiled.compile_beside()
    assert started == []


def without_forward(cache: Path) -> None:
    """Copy the kernels of this machine's cache but the main one, which takes half of the compiler's time."""
    folder = os.path.dirname(_kernels.__file__)
    below = cache / f"{os.path.basename(folder)}_{hashlib.sha1(folder.encode()).hexdigest()}"
    below.mkdir()
    for file in Path(_kernels.forward.stats.cache_path).glob("_*.nb[ic]"):
        if not file.name.startswith("_kernels.forward-"):
            shutil.copy2(file, below)


@pytest.mark.slow
def test_two_processes_fill_one_cache_and_a_read_only_package_is_no_error(tmp_path: Path) -> None:
    """Both compile into a cache without the main kernel at once; a third finds what they left."""
    without_forward(tmp_path)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "z1g.render.compiled"]
    seen = [sys.executable, "-c", "from z1g.render import compiled; assert compiled.is_compiled()"]
    assert subprocess.run(seen, env=environment, capture_output=True, timeout=120).returncode == 1
    both = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(timeout=600) for process in both] == [0, 0]
    assert len(list(tmp_path.rglob("_kernels.forward-*.nbi"))) == 1
    subprocess.run(seen, env=environment, check=True, timeout=120)
    subprocess.run([sys.executable, "-c", WITHOUT_SCIPY], env=environment, check=True, timeout=120)
    for folder in (tmp_path, *tmp_path.rglob("*")):
        folder.chmod(0o555 if folder.is_dir() else 0o444)
    subprocess.run(command, env=environment, check=True, timeout=120)
