"""Commands in processes of their own that a signal hits in the moment before a chosen event.

Events are what a command does to files below a folder: `open` for writing, and `change`: a folder is made, a path is
renamed or removed. A fork of a server that has imported everything takes a second, `python -m z1g` many.
"""

import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.watched import prepared, served

SENT = "sent"
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")


@dataclass(frozen=True)
class Moment:
    """Before the `number`-th event of a kind, counted from 1."""

    kind: str
    number: int


@dataclass(frozen=True)
class Appearance:
    """When a path below the folder matches a pattern, as of a file that a child of the command has written."""

    pattern: str


@dataclass(frozen=True)
class Ended:
    """Exit code, negative for a signal that ended the process, output, and the number of events by kind.

    reached: whether the moment came and the signal was sent.
    """

    code: int | None
    output: str
    events: dict[str, int]
    reached: bool = True


def run(
    words: Sequence[str], watched: Path, sent: signal.Signals | None = None, at: Moment | Appearance | None = None
) -> Ended:
    """Run `z1g words...`, with temporary files in `watched/scratch`, and send the signal `sent` in the moment `at`."""
    context = prepared()
    output, events = watched / "output.txt", watched / "events.json"
    (watched / "scratch").mkdir(exist_ok=True)
    own = at if isinstance(at, Moment) else None
    process = context.Process(target=_main, args=(list(words), watched, sent, own, output, events))
    process.start()
    outside = isinstance(at, Appearance) and sent is not None
    if isinstance(at, Appearance) and sent is not None:
        while process.is_alive() and not list(watched.glob(at.pattern)):
            process.join(0.002)
        outside = process.is_alive()
        if outside:
            os.kill(process.pid or 0, sent)
    process.join()
    counted = json.loads(events.read_text()) if events.exists() else {}
    events.unlink(missing_ok=True)
    reached = outside or bool(counted.pop(SENT, 0)) or (process.exitcode or 0) < 0
    return Ended(process.exitcode, output.read_text(), counted, reached)


def _main(
    words: list[str], folder: Path, sent: signal.Signals | None, at: Moment | None, output: Path, events: Path
) -> None:
    from z1g.cli.main import main

    below, seen, watching = os.path.realpath(folder) + "/", Counter[str](), [True]

    def watch(event: str, values: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event == "open":
            kind = "open" if isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR) else ""
        else:
            kind = "change" if event in CHANGES else ""
        if not kind or not isinstance(values[0], str | bytes | os.PathLike):
            return
        if os.path.realpath(os.fsdecode(values[0])).startswith(below):
            seen[kind] += 1
            if at is not None and sent is not None and (kind, seen[kind]) == (at.kind, at.number):
                seen[SENT] += 1
                os.kill(os.getpid(), sent)

    served(output)
    tempfile.tempdir = str(folder / "scratch")
    sys.addaudithook(watch)
    code = main(words)
    watching.clear()  # an audit hook cannot be removed
    counted = json.dumps(seen)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    events.write_text(counted)
    sys.exit(code)
