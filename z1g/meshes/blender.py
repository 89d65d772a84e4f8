"""Blender as a child process: finding it, running a list of objects through it, surviving its crashes.

Knows `z1g/blender/render_views.py` only by its job file, its result folders and its progress lines.
"""

import contextlib
import importlib.util
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from z1g.data.sources import Rejected
from z1g.errors import UserError

SCRIPT = Path(__file__).parents[1] / "blender" / "render_views.py"
CONFIG_KEY = "data.blender.python"
ENVIRONMENT_VARIABLE = "Z1G_BLENDER"
WHAT_SERVES = "a Python that can import bpy, or Blender's own executable"
VENV_PYTHON = Path(".venv-blender", "bin", "python")
STARTUP_S = 300.0
"""Blender itself may take this long to start: on a cold network file system that is minutes, and no object's fault."""
MAX_CRASHES = 2
"""An object that has ended Blender this often is quarantined; the first time may have been someone else's kill."""
TAIL_LINES = 4


def find_blender(configured: str | None) -> list[str]:
    """Command that runs the render script; the job file is its last argument, to be appended.

    In order: `configured`, the environment variable Z1G_BLENDER, this interpreter if it has bpy, the Python in
    `.venv-blender` of the current folder, `blender` on PATH. Raises UserError where none is there.
    """
    for name, asked in {CONFIG_KEY: configured, ENVIRONMENT_VARIABLE: os.environ.get(ENVIRONMENT_VARIABLE)}.items():
        if asked:
            found = shutil.which(asked)
            if found is None:
                raise UserError(f"{name}: {asked} is no executable; give {WHAT_SERVES}")
            return _command(found)
    if importlib.util.find_spec("bpy") is not None:
        return _command(sys.executable)
    if VENV_PYTHON.is_file():
        return _command(str(VENV_PYTHON.absolute()))
    on_path = shutil.which("blender")
    if on_path is not None:
        return _command(on_path)
    raise UserError(
        f"no Blender found to render the meshes. Looked at {CONFIG_KEY}, the environment variable "
        f"{ENVIRONMENT_VARIABLE}, bpy in {sys.executable}, {VENV_PYTHON} in {Path.cwd()} and `blender` on PATH. "
        "Run `make` to install one into .venv-blender, or name yours in one of these places"
    )


def _command(executable: str) -> list[str]:
    if Path(executable).name.startswith(("python", "pypy")):
        return [executable, str(SCRIPT)]
    flags = ["--background", "--factory-startup", "--disable-autoexec", "--python-exit-code", "1"]
    return [executable, *flags, "--python", str(SCRIPT), "--"]


def render(
    command: Sequence[str], objects: Sequence[dict[str, Any]], settings: dict[str, Any], scratch: Path, timeout_s: float
) -> Generator[Path | Rejected, None, None]:
    """Yield for each object of the job, in order, the folder that holds its `result.json`, or why there is none.

    `objects` and `settings` are those of the job file. An object that takes longer than `timeout_s` is rejected, and so
    is one in whose hands Blender dies MAX_CRASHES times; the others go on in a new process. Raises UserError where
    Blender does not start.
    """
    pending, crashes, runs = list(objects), 0, 0
    output = scratch / "objects"
    while pending:
        runs += 1
        job = scratch / f"job-{runs}.json"
        job.write_text(json.dumps({"output": str(output), "settings": settings, "objects": pending}), encoding="utf-8")
        with _Process([*command, str(job)], scratch / f"blender-{runs}.log") as process:
            process.await_start()
            reason = None
            while pending and reason is None:
                folder = output / pending[0]["id"]
                reason = process.await_object(pending[0]["id"], timeout_s)
                if (folder / "result.json").is_file():
                    reason = None
                    pending, crashes = pending[1:], 0
                    yield folder
        if reason is None:
            continue
        crashes += 1
        shutil.rmtree(folder, ignore_errors=True)
        if process.timed_out or crashes == MAX_CRASHES:
            yield Rejected(pending[0]["id"], reason)
            pending, crashes = pending[1:], 0


class _Process:
    """One run of Blender. A thread moves its output into a log, so that a full pipe never stops it."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.timed_out = False
        self._command, self._log = command, log
        self._marks: queue.Queue[tuple[float, str | None]] = queue.Queue()
        self._since = time.monotonic()

    def __enter__(self) -> "_Process":
        try:
            # A session of its own: whatever Blender starts is killed with it.
            self._child = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise UserError(f"{self._command[0]} cannot be run: {error.strerror}") from error
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._reader.join()

    def await_start(self) -> None:
        """Return when the script runs. Raises UserError where that never comes."""
        if self._next("", STARTUP_S):
            how = f"was not up after {STARTUP_S:.0f} s" if self.timed_out else f"ended at once ({self._ending()})"
            raise UserError(
                f"Blender {how}. Command: {' '.join(self._command)}. Last output: {self._tail()}. "
                f"Set {CONFIG_KEY} or {ENVIRONMENT_VARIABLE} to {WHAT_SERVES}"
            )

    def await_object(self, name: str, timeout_s: float) -> str | None:
        """Return None when the object is finished, else what went wrong."""
        if not self._next(name, timeout_s):
            return None
        if self.timed_out:
            return f"rendering took longer than {timeout_s:g} s (data.blender.timeout_s)"
        return f"Blender died on this object ({self._ending()}); its last words: {self._tail()}"

    def _next(self, name: str, limit_s: float) -> bool:
        """Wait for the line that announces `name`. True where the time is up or the process has ended."""
        self.timed_out = False
        while True:
            try:
                at, mark = self._marks.get(timeout=max(0.0, self._since + limit_s - time.monotonic()))
            except queue.Empty:
                self.timed_out = True
                return True
            # Counted from when the line came, not from when the caller had time for it: Blender does not wait for us.
            self._since = at
            if mark is None:
                self._marks.put((at, None))  # the end stays the end, however often one asks
                return True
            if mark == name:
                return False

    def _read(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as lines, self._log.open("wb") as log:
            for line in lines:
                words = line.split()
                if words[:1] == [b"z1g"]:
                    self._marks.put((time.monotonic(), b" ".join(words[1:]).decode(errors="replace")))
                elif words and not line.startswith(b"Fra:"):
                    log.write(line)
                    log.flush()
        self._marks.put((time.monotonic(), None))

    def _ending(self) -> str:
        try:
            code = self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _tail(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        return " | ".join(line.strip() for line in lines)[-600:] or "nothing"
