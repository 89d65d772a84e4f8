"""Calls of the command line in worker processes that are watched: output, exit code, hangs, memory.

Starting Python and torch takes seconds. Workers are forked by a server that has imported everything and run nothing,
and make a call in milliseconds. Where there is a GPU they are processes of their own, see `prepared`.
"""

import contextlib
import ctypes
import gc
import importlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

import psutil
import torch

HANG_S = 20.0
"""Time without any CPU time after which a call hangs. A busy machine is no hang."""
BUSY_S = 60.0
"""Limit of a call's CPU time; the first ones compile."""
PRELOADED = (
    "z1g.cli.main", "z1g.stages.fit", "z1g.stages.autodecoder", "z1g.stages.unet", "z1g.stages.infer",
    "z1g.stages.metrics", "z1g.stages.report", "z1g.inference.batch", "z1g.bench.render", "diffusers",
    "z1g.data.png_filters", "trimesh", "networkx",
)  # fmt: skip
"""What calls import, in the last line what they import late."""
_CAPABILITY_VERSION = 0x20080522
_OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: root's rights to ignore permissions."""


@dataclass(frozen=True)
class Ended:
    """How a call ended. `code` None: it hung and was killed, or its process died (`what` says so)."""

    code: int | None
    output: str
    peak_mb: float = 0.0
    """Peak of resident memory during the call, above that before it."""
    what: str = ""


def run_all(calls: Sequence[Sequence[str]], folders: Sequence[Path], before: Callable[[], None]) -> Iterator[Ended]:
    """Make each call by `z1g.cli.main.main` in one of several workers, one per folder, its current folder.

    `before` is called in each new worker. Ends are yielded in the order of the calls. A worker that hangs is killed and
    replaced.
    """
    shares = [list(range(i, len(calls), len(folders))) for i in range(len(folders))]
    ends: dict[int, Ended] = {}
    active = [_Worker(folder, before, share) for folder, share in zip(folders, shares, strict=True)]
    try:
        for worker in active:
            worker.next(calls)
        while any(worker.current is not None for worker in active):
            busy = [worker for worker in active if worker.current is not None]
            multiprocessing.connection.wait([worker.pipe for worker in busy], timeout=0.5)
            for worker in busy:
                ended = worker.ended()
                if ended is not None and worker.current is not None:
                    ends[worker.current] = ended
                    worker.next(calls)
    finally:
        for worker in active:
            worker.kill()
    yield from (ends[i] for i in range(len(calls)))


def prepared() -> ForkServerContext | SpawnContext:
    """How processes start that run z1g: as forks of a server that has imported everything.

    Where there is a GPU they start anew, which takes seconds: some import asks torch for GPUs, and torch then refuses
    them to all forks of the server.
    """
    if torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


class _Worker:
    """A forked process that makes calls one by one."""

    def __init__(self, folder: Path, before: Callable[[], None], share: list[int]) -> None:
        self.folder, self.before, self.share = folder, before, share
        self.current: int | None = None
        self._start()

    def _start(self) -> None:
        context = prepared()
        self.pipe, theirs = context.Pipe()
        self._output = Path(tempfile.mkstemp(dir=self.folder.parent)[1])
        self._process = context.Process(target=_serve, args=(theirs, self.folder, self._output, self.before))
        self._process.start()
        theirs.close()

    def next(self, calls: Sequence[Sequence[str]]) -> None:
        self.current = self.share.pop(0) if self.share else None
        if self.current is not None:
            self.pipe.send(list(calls[self.current]))
            self._watch = _Watch(self._process.pid)

    def ended(self) -> Ended | None:
        """The end of the current call, None while it runs."""
        if self.pipe.poll():
            try:
                code, peak_mb = self.pipe.recv()
                return Ended(code, self._read(), peak_mb)
            except EOFError:
                self._process.join()
                what = f"its process died with exit code {self._process.exitcode}"
        elif hung := self._watch.hung():
            what = hung
        else:
            return None
        ended = Ended(None, self._read(), what=what)
        self.kill()
        self._start()
        return ended

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _read(self) -> str:
        return self._output.read_bytes().decode(errors="backslashreplace")


class _Watch:
    """Whether a process hangs, by the CPU time that it gets."""

    def __init__(self, pid: int | None) -> None:
        self._process = psutil.Process(pid)
        self._moved = time.monotonic()
        self._first = self._cpu = self._used()

    def hung(self) -> str:
        """A complaint, empty if the process does not hang."""
        now = time.monotonic()
        cpu = self._used()
        if cpu > self._cpu + 0.05:
            self._cpu, self._moved = cpu, now
        if cpu - self._first > BUSY_S:
            return f"it hung: {cpu - self._first:.0f} s of CPU time"
        return f"it hung: no CPU time for {now - self._moved:.0f} s" if now - self._moved > HANG_S else ""

    def _used(self) -> float:
        with contextlib.suppress(psutil.Error):
            times = self._process.cpu_times()
            return float(times.user + times.system)
        return 0.0


def _serve(pipe: Connection, folder: Path, output: Path, before: Callable[[], None]) -> None:
    """Make calls until the pipe is closed. Nothing of pytest is left in this process: it ends without cleanup."""
    from z1g.cli.main import main

    # In a fork they are there; in a process of its own, no call's memory and time are to have them.
    for name in PRELOADED:
        importlib.import_module(name)
    os.chdir(folder)
    descriptor = served(output)
    without_override()
    before()
    with contextlib.suppress(EOFError):
        while True:
            words = pipe.recv()
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.ftruncate(descriptor, 0)
            resident = _peak(reset=True)
            try:
                code = main(words)
            except SystemExit as end:  # of argparse
                code = int(end.code or 0)
            except BaseException:
                # As the interpreter would print it.
                traceback.print_exc()
                code = 1
            os.chdir(folder)
            pipe.send((code, _peak() - resident))
    os._exit(0)


def served(output: Path) -> int:
    """Let this fork write to a file, read nothing and handle Ctrl-C; returns the file's descriptor."""
    # A garbage collection looks at all that is imported, which takes longer than many calls.
    gc.freeze()
    descriptor = os.open(output, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, number in (("stdout", 1), ("stderr", 2)):
        # Python's own stderr replaces what it cannot encode; its stdout does not.
        errors = {"errors": "backslashreplace"} if number == 2 else {}
        setattr(sys, stream, os.fdopen(number, "w", buffering=1, closefd=False, encoding="utf-8", **errors))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return descriptor


def _peak(reset: bool = False) -> float:
    """Peak of this process's resident memory, MB; `reset` starts it again."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


def without_override() -> None:
    """Give up root's rights to ignore the permissions of files, in this process and its children."""
    if os.geteuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    data = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, data) == 0
    for i in (0, 1):  # effective, permitted
        data[i] &= ~_OVERRIDES
    assert libc.capset(header, data) == 0, os.strerror(ctypes.get_errno())
