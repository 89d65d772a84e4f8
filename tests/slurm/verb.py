"""`python -m z1g` for jobs of these tests; training pauses before each of the steps in $Z1G_TEST_HOLD.

It then writes a file `held-STEP` to the current folder, and continues when `released-STEP` exists or on SIGTERM.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from z1g.cli import main as cli
from z1g.core.imports import kept


def hold_before(steps: set[int]) -> None:
    with kept():
        from z1g.training import loop

    real = loop.Trainer._step

    def held(self: loop.Trainer, at: int, *rest: Any) -> Any:
        if at in steps:
            wait(at)
        return real(self, at, *rest)

    loop.Trainer._step = held  # type: ignore[method-assign]


def wait(step: int) -> None:
    terminated = threading.Event()
    before: Any = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *given: (terminated.set(), before(*given)))
    Path(f"held-{step}").touch()
    while not terminated.is_set() and not Path(f"released-{step}").exists():
        time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1] == "autodecoder":
        hold_before({int(step) for step in os.environ.get("Z1G_TEST_HOLD", "").split()})
    cli.run()
