"""A pool of processes that renders a queue of objects and survives crashes, hangs and memory growth."""

import json
import queue
import shutil
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from z1g.data.shards import Rejected
from z1g.meshes.files import Unusable
from z1g.meshes.process import Process
from z1g.meshes.renderers.base import Renderer

MAX_CRASHES = 2
"""Number of crashes after which an object is quarantined; a single crash may have another cause than the object."""
PREPARED_AHEAD = 2
"""Number of objects whose files are prepared before a process is free."""
DRAWN_AHEAD = 8
"""Number of finished objects per process that may wait on disk for a slower object before them."""


@dataclass(frozen=True)
class Task:
    """An object to render. `prepare` writes its files to a folder and returns the mesh file; it may raise Unusable."""

    id: str
    prepare: Callable[[Path], Path]
    cameras: list[Any]
    """Poses in the render script's format."""
    readable: Callable[[Path], Sequence[Path]] = lambda folder: [folder]
    """Folders besides the mesh's own from which it may read, by the folder of `prepare`."""


@dataclass(frozen=True)
class Drawn:
    """A folder with an object's images, and the content of `result.json`. The consumer deletes the folder."""

    folder: Path
    result: dict[str, Any]


def draw(
    command: Sequence[str], settings: Mapping[str, Any], tasks: Iterable[Task], scratch: Path,
    options: Renderer, processes: int,
) -> Generator[Drawn | Rejected, None, None]:  # fmt: skip
    """Yield the rendered object of each task, in order, or the reason why it was rejected.

    `settings` are those of the render script. An object is rejected if it takes longer than `options.timeout_s` or
    crashes the renderer MAX_CRASHES times; the others continue in a new process. Raises UserError if it does not
    start. Closing the generator ends all processes.
    """
    pool = _Pool(command, settings, scratch, options, processes)
    try:
        yield from pool.run(tasks)
    finally:
        pool.close()


class _Pool:
    def __init__(
        self,
        command: Sequence[str],
        settings: Mapping[str, Any],
        scratch: Path,
        options: Renderer,
        processes: int,
    ) -> None:
        self._scratch, self._most = scratch, PREPARED_AHEAD + DRAWN_AHEAD * processes
        self._workers = [_Worker(command, settings, scratch, options, i) for i in range(processes)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._ahead = threading.Semaphore(processes + PREPARED_AHEAD)
        self._preparing = ThreadPoolExecutor(1, "prepare")
        self._drawing = ThreadPoolExecutor(processes, "draw")

    def run(self, tasks: Iterable[Task]) -> Generator[Drawn | Rejected, None, None]:
        pending: deque[Future[Drawn | Rejected]] = deque()
        for task in tasks:
            prepared = self._preparing.submit(self._prepare, task)
            pending.append(self._drawing.submit(self._draw, task, prepared))
            if len(pending) == self._most:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def close(self) -> None:
        self._preparing.shutdown(wait=False, cancel_futures=True)
        self._drawing.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        self._drawing.shutdown()
        self._ahead.release()  # unblocks a pending _prepare
        self._preparing.shutdown()

    def _files(self, task: Task) -> Path:
        return self._scratch / "files" / task.id

    def _prepare(self, task: Task) -> Path | Rejected:
        self._ahead.acquire()
        try:
            return task.prepare(self._files(task))
        except Unusable as error:
            return Rejected(task.id, str(error))

    def _draw(self, task: Task, prepared: Future[Path | Rejected]) -> Drawn | Rejected:
        try:
            path = prepared.result()
            if isinstance(path, Rejected):
                return path
            worker = self._idle.get()
            try:
                return worker.draw(task, path.absolute(), task.readable(self._files(task)))
            finally:
                self._idle.put(worker)
        finally:
            shutil.rmtree(self._files(task), ignore_errors=True)
            self._ahead.release()


class _Worker:
    """Runs one process at a time and replaces it when necessary."""

    def __init__(
        self, command: Sequence[str], settings: Mapping[str, Any], scratch: Path, options: Renderer, index: int
    ) -> None:
        self._first_core = index * settings["threads"]
        self._command, self._settings, self._scratch, self._options = command, settings, scratch, options
        self._restart_above_mb = options.restart_above_mb or settings["memory_mb"] / 2
        self._process: Process | None = None
        self._drawn, self._closed, self._lock = 0, False, threading.Lock()

    def draw(self, task: Task, path: Path, readable: Sequence[Path]) -> Drawn | Rejected:
        folder, reason = self._scratch / "objects" / task.id, None
        roots = [str(root.absolute()) for root in (path.parent, *readable)]
        item = {"id": task.id, "path": str(path), "roots": roots, "folder": str(folder), "cameras": task.cameras}
        for _ in range(MAX_CRASHES):
            process = self._running()
            reason = process.draw(item, self._options.timeout_s)
            file = folder / "result.json"
            result = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
            self._drawn += 1
            grown = result is not None and result["resident_mb"] > self._restart_above_mb
            if reason is not None or grown or self._drawn >= self._options.restart_after:
                self._end()
            if result is not None:
                return Drawn(folder, result)
            shutil.rmtree(folder, ignore_errors=True)
            if process.timed_out:
                break
        return Rejected(task.id, str(reason))

    def close(self) -> None:
        """End the process, from another thread than the rendering one, and start no new process."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.end()

    def _running(self) -> Process:
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            if self._process is not None:
                return self._process
            process = Process(self._command, self._settings, self._scratch, self._first_core, self._options)
            self._process, self._drawn = process, 0
        self._process.await_start()
        return self._process

    def _end(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.end()
            self._process = None
