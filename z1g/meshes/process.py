"""One process of a renderer: started, given objects line by line, monitored, ended.

It communicates with its program (`z1g/meshes/blender/render_views.py` documents the protocol) only by lines on stdin
and stdout and by result folders.
"""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.meshes.renderers.base import KEY, Renderer

STARTUP_S = 300.0
"""Time limit for a renderer's start, separate from the objects' limit: a cold network file system takes minutes."""
TAIL_LINES = 4
OUT_OF_MEMORY = re.compile(
    r"MemoryError|bad_alloc|[MC]alloc(_array)? returns null|out of memory|Cannot allocate"
    "|Resource temporarily unavailable",  # no memory for a thread's stack
    re.IGNORECASE,
)


@contextlib.contextmanager
def _few_cores(first: int, count: int) -> Iterator[None]:
    """Limit the cores of child processes started in the block; the render script removes the limit after startup.

    Blender creates a worker thread for each available core, and idle workers spin: one thread would use two cores.
    """
    if sys.platform != "linux":
        yield
        return
    cores = os.sched_getaffinity(0)  # of this thread alone
    ordered = sorted(cores)
    os.sched_setaffinity(0, {ordered[(first + i) % len(ordered)] for i in range(count)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


class Process:
    """A renderer as a child process. A thread reads its output, so that a full pipe never blocks it."""

    def __init__(
        self, command: Sequence[str], settings: Mapping[str, Any], scratch: Path, first_core: int, options: Renderer
    ) -> None:
        """Start it, with log and temporary files in `scratch`. Raises UserError if it cannot be run."""
        self.timed_out = False
        self._command, self._settings, self._options = command, settings, options
        self._folder = Path(tempfile.mkdtemp(prefix="renderer-", dir=scratch))
        self._log = self._folder / "log"
        self._lines: queue.Queue[str | None] = queue.Queue()
        try:
            with _few_cores(first_core, settings["threads"]):
                # A new session, so that Blender's own children are killed with it.
                self._child = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    start_new_session=True, env={**os.environ, "TMPDIR": str(self._folder)},
                )  # fmt: skip
        except OSError as error:
            raise UserError(f"{command[0]} cannot be run: {error.strerror}") from error
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def await_start(self) -> None:
        """Wait until it is ready for objects. Raises UserError if it does not start."""
        self._send(self._settings)
        word, _, text = (self._await(("up", "unable"), STARTUP_S) or "").partition(" ")
        if word == "unable":
            raise UserError(f"{KEY}: {text}")
        if not word:
            how = f"did not start within {STARTUP_S:.0f} s" if self.timed_out else f"ended at once ({self._ending()})"
            raise UserError(
                f"{self._name} {how}. Command: {' '.join(self._command)}. Last output: {self._tail()}. "
                f"{self._options.advice}"
            )

    def draw(self, item: Mapping[str, Any], timeout_s: float) -> str | None:
        """Render an object. Return None on success, else the error, after which this process cannot be used again."""
        self._send(item)
        if self._await((f"done {item['id']}",), timeout_s):
            return None
        if self.timed_out:
            return f"rendering took longer than {timeout_s:g} s ({KEY}.timeout_s)"
        how, output = self._ending(), self._tail()
        if OUT_OF_MEMORY.search(output):
            limit = f"its limit is {self._settings['memory_mb']} MiB ({KEY}.memory_mb)"
            return f"{self._name} ran out of memory on this object; {limit}; last output: {output}"
        return f"{self._name} crashed on this object ({how}); last output: {output}"

    def end(self) -> None:
        """Kill the process; its results are on disk, and its temporary files are deleted with the scratch folder."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._reader.join()
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()  # type: ignore[union-attr]

    @property
    def _name(self) -> str:
        program = self._options.program
        return program[:1].upper() + program[1:]

    def _send(self, line: Mapping[str, Any]) -> None:
        stdin = self._child.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # detected by the end of its output
            stdin.write(json.dumps(line).encode() + b"\n")
            stdin.flush()

    def _await(self, prefixes: tuple[str, ...], limit_s: float) -> str | None:
        """The next line with one of these prefixes; None after the time limit or if the process has ended."""
        deadline = time.monotonic() + limit_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.timed_out = True
                return None
            if line is None or line.startswith(prefixes):
                return line

    def _read(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as lines, self._log.open("wb") as log:
            for line in lines:
                if line.startswith(b"z1g "):
                    self._lines.put(line[4:].decode(errors="replace").strip())
                elif line.strip() and not line.startswith(b"Fra:"):
                    log.write(line)
                    log.flush()
        self._lines.put(None)

    def _ending(self) -> str:
        try:
            code = self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        if code == -signal.SIGKILL:
            return "killed by SIGKILL, probably because memory ran out"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _tail(self) -> str:
        if not self.timed_out:
            self._reader.join(timeout=10)
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        return " | ".join(line.strip() for line in lines)[-600:] or "nothing"
