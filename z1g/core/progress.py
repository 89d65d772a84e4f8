"""Progress reports: a bar on a terminal, one line per minute in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from z1g.core import heartbeat

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
Check = Callable[[], None]
"""Called between parts of a long task; an exception in it ends the task."""
log = logging.getLogger("z1g")
LINE_EVERY_S = 60.0


class Meter:
    """Progress of a task. Use as a context manager; call `advance` after each unit, with figures to show.

    Nothing is shown before `quiet_s` seconds have passed, so that short tasks show nothing.
    """

    def __init__(
        self, label: str, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic, quiet_s: float = 0.0
    ) -> None:
        self.label, self.total, self.done, self.clock, self.quiet_s = label, total, done, clock, quiet_s
        self._first = done
        self._start = self._last_line = clock()
        self._bar: Progress | None = None

    def __enter__(self) -> Meter:
        heartbeat.report(self.label, self.done, self.total, 0.0, {})
        if not self.quiet_s:
            self._show()
        return self

    def _show(self) -> None:
        if sys.stderr.isatty():
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(
                *columns, TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}")
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, note="")

    def advance(self, n: int = 1, further: Mapping[str, float] | None = None, **figures: float) -> None:
        """Report `n` more completed units. `further` figures are for the job's sign of life only, see `heartbeat`."""
        self.done += n
        heartbeat.report(self.label, self.done, self.total, self._rate(), figures if further is None else further)
        note = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if self._bar is None and self.quiet_s and self.clock() - self._start >= self.quiet_s:
            self._show()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=f"{self._rate():.3g}/s  {note}".rstrip())
        elif self.clock() - self._last_line >= LINE_EVERY_S:
            self._last_line = self.clock()
            log.info("%s", self.line(note))

    def _rate(self) -> float:
        return (self.done - self._first) / max(self.clock() - self._start, 1e-9)

    def line(self, note: str = "") -> str:
        """Label, count, rate, remaining time and the latest figures in one line."""
        rate = self._rate()
        left = f"{(self.total - self.done) / rate:.0f}" if rate > 0 else "?"
        return f"{self.label} {self.done}/{self.total}  {rate:.3g}/s  {left} s left  {note}".rstrip()

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif exc[0] is None and self.clock() - self._start >= self.quiet_s:
            log.info(
                "%s %d/%d in %.1f s, %.3g/s",
                self.label, self.done, self.total, self.clock() - self._start, self._rate(),
            )  # fmt: skip


def no_check() -> None:
    """The `Check` of a task that goes on to its end."""


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Iterate over `items` with a progress meter."""
    with Meter(label, total) as meter:
        for item in items:
            yield item
            meter.advance()
