"""`python -m z1g` for jobs of these tests, with training slowed down by $Z1G_TEST_STEP_S seconds a step."""

import os
import sys
import time
from typing import Any

from z1g import cli


def slow_down(seconds: float) -> None:
    from z1g.training import loop

    real = loop.Trainer._step

    def step(self: loop.Trainer, at: int, batch: Any) -> dict[str, float]:
        time.sleep(seconds)
        return real(self, at, batch)

    loop.Trainer._step = step  # type: ignore[method-assign]


if __name__ == "__main__":
    pause = float(os.environ.get("Z1G_TEST_STEP_S", "0"))
    if pause and sys.argv[1] in ("autodecoder", "unet"):
        slow_down(pause)
    sys.exit(cli.main())
