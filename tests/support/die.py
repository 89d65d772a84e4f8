"""Training in a process of its own, which sends a signal to itself.

WHEN is `step-N` (during step N, counted from 0) or `write-N` (after the checkpoint of step N was written to its
temporary file, before it is renamed).
"""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from support.killed import Ended
from support.watched import prepared, served
from z1g.cli import main as cli
from z1g.core import files
from z1g.training import loop

real_step, real_replace = loop.Trainer._step, os.replace


def run_and_die(name: str, when: str, what: str, folder: Path) -> Ended:
    """Train `what`, which is `toy` or a stage, in a process of its own, see `prepared`."""
    context = prepared()
    output = folder.parent / f"{folder.name}.output"
    process = context.Process(target=_main, args=(name, when, what, str(folder), output))
    process.start()
    process.join()
    return Ended(process.exitcode, output.read_text(), {})


def _main(name: str, when: str, what: str, folder: str, output: Path) -> None:
    served(output)
    torch.set_num_threads(1)
    number = signal.Signals[name]
    kind, _, step = when.partition("-")

    def step_and_die(self: loop.Trainer, at: int, batch: Any) -> Any:
        losses = real_step(self, at, batch)
        if at == int(step):
            os.kill(os.getpid(), number)
        return losses

    def die_before_replace(source: Path, target: Path) -> None:
        if Path(target).name == f"step-{int(step):08d}.pt":
            os.kill(os.getpid(), number)
        real_replace(source, target)

    if kind == "step":
        loop.Trainer._step = step_and_die  # type: ignore[method-assign]
    else:
        files.os.replace = die_before_replace  # type: ignore[attr-defined]
    if what != "toy":
        sys.exit(cli.main([what, folder, "--threads", "1"]))
    from support.builders import Toy, toy_options

    logging.basicConfig()
    toy, options = Toy(), toy_options()
    loop.Trainer(toy, toy.data(options), options, Path(folder)).run()
