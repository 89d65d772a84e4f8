"""`python -m z1g` whose stages count to ten instead of working, and write empty outputs.

A stage pauses at four while the file `hold-<stage>` is in the current folder. Real are the command line, locks, leases,
records and signs of life; the latter come twenty times a second.
"""

import functools
import sys
import time
from pathlib import Path
from typing import Any

from z1g.cli import main as cli
from z1g.cli import stage
from z1g.core import heartbeat
from z1g.core.progress import Meter


def run(verb: str, folder: Path, threads: int, chunk: dict[str, int]) -> None:
    with Meter(verb, 10) as meter:
        for i in range(10):
            while i == 4 and Path(f"hold-{verb}").exists():
                time.sleep(0.02)
            meter.advance(loss=1 / (i + 1))
    words = sys.argv[sys.argv.index("--outputs") + 1 :]
    for path in (Path(word) for word in words if not word.startswith("--")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else path.mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    quick: Any = functools.partial(heartbeat.beating, every_s=0.05)
    heartbeat.beating = quick
    stage._run = run
    sys.exit(cli.main())
