"""`z1g status`: what every stage of a set is doing."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from z1g.cli.arguments import at_least, some_path
from z1g.core.errors import UserError
from z1g.core.files import write_json, write_text
from z1g.jobs.squeue import JobKey, SlurmJob, slurm_queue
from z1g.plan.plan import Plan
from z1g.plan.status import Evidence, StageNode, Status, nodes_of_plan, nodes_on_disk, status
from z1g.report.status import WIDTH, as_json, renderable, status_page, text

EVERY_S = 5
PRINTED = Path("-")
QUEUE_EVERY_S = 20.0
"""How often to ask SLURM at most, whose controller serves everyone."""


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `status`."""
    parser.add_argument("--results", type=some_path, default=Path("results"), help="results folder")
    parser.add_argument(
        "--ablations", nargs="+", help="names of runs, studies or sets; default: all that were planned in the folder"
    )
    parser.add_argument(
        "--scale", help="plan with this base configuration, as `z1g plan` does, also what was never started"
    )
    parser.add_argument("--objects", nargs="+", default=(), help="with --scale: meshes that replace the base's")
    parser.add_argument(
        "--watch", type=at_least(1), nargs="?", const=EVERY_S, metavar="S", help=f"again every S ({EVERY_S}) seconds"
    )
    parser.add_argument("--html", type=some_path, metavar="FILE", help="write a page instead, which reloads itself")
    parser.add_argument(
        "--json", type=some_path, nargs="?", const=PRINTED, metavar="FILE",
        help="print JSON, with --watch one document a line; with FILE, write it there, beside the other output",
    )  # fmt: skip


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Print the status, or write it to a page; with `--watch` until the set is done or on Ctrl-C."""
    if arguments.objects and not arguments.scale:
        raise UserError("--objects is of use only with --scale, by which the set is planned")
    looked = _Look(arguments)
    if arguments.watch is None:
        _show(looked(), arguments)
        return
    with contextlib.suppress(KeyboardInterrupt):
        if arguments.json or arguments.html or not sys.stdout.isatty():
            while not _show(looked(), arguments).finished:
                time.sleep(arguments.watch)
            return
        # The table may be longer than the screen, which cuts it.
        with Live(auto_refresh=False, vertical_overflow="ellipsis") as live:
            while not (found := looked()).finished:
                live.update(renderable(found, summary_first=True), refresh=True)
                time.sleep(arguments.watch)
            live.update(renderable(found, summary_first=True), refresh=True)


class _Look:
    """Looks at a set again and again."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self._queue: Mapping[JobKey, SlurmJob] | None = None
        self._asked = -QUEUE_EVERY_S
        self._planned = _planned(arguments) if arguments.scale else None

    def __call__(self) -> Status:
        """The status now."""
        if time.monotonic() - self._asked >= QUEUE_EVERY_S:
            self._queue, self._asked = slurm_queue(), time.monotonic()
        results = self.arguments.results
        nodes = self._planned or nodes_on_disk(results, self.arguments.ablations)
        return status(results, nodes, Evidence.gather(Path.cwd(), self._queue, ask=False))


def _planned(arguments: argparse.Namespace) -> Sequence[StageNode]:
    folders = Path("ablations"), Path("configs")
    plan = Plan.load(arguments.scale, arguments.ablations, arguments.results, *folders, arguments.objects)
    return nodes_of_plan(plan)


def _show(found: Status, arguments: argparse.Namespace) -> Status:
    if arguments.html:
        write_text(arguments.html, status_page(found, arguments.watch))
    if arguments.json not in (None, PRINTED):
        write_json(arguments.json, as_json(found))
    if arguments.json == PRINTED:
        indent = None if arguments.watch else 2
        sys.stdout.write(json.dumps(as_json(found), indent=indent, allow_nan=False) + "\n")
    elif not arguments.html and sys.stdout.isatty():
        Console(width=min(WIDTH, Console().width)).print(renderable(found))
    elif not arguments.html:
        sys.stdout.write(text(found))
    sys.stdout.flush()
    return found
