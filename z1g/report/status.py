"""The status of a set as text of 100 columns, as JSON, and as a page that reloads itself."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from z1g.core.names import counted
from z1g.jobs.budget import Budget
from z1g.plan.status import STATES, JobStatus, StageStatus, State, Status

COLORS = {
    "waiting": "bright_black", "queued": "yellow", "running": "cyan", "stopped": "yellow", "failed": "red",
    "pruned": "magenta", "done": "green",
}  # fmt: skip
WIDTH = 100
MOST_FIGURES = 4
"""Figures (losses) of a running job that the table shows; JSON has all."""
FAILURE_CHARACTERS = 90
HEADINGS = ("stage", "id", "state", "jobs", "what", "left", "GPU h")


@dataclass(frozen=True)
class StatusRow:
    """A line of the table, in the order of HEADINGS."""

    stage: str
    id: str
    state: State
    jobs: str
    what: str
    left: str
    gpu_hours: str


def rows(status: Status) -> list[StatusRow]:
    """One line for each stage."""
    several = len({run for stage in status.stages for run in stage.node.runs}) > 1
    return [_row(stage, several) for stage in status.stages]


def _row(stage: StageStatus, several: bool) -> StatusRow:
    whose = f"{stage.node.runs[0]}: " if several and len(stage.node.runs) == 1 and stage.state != "done" else ""
    jobs = f"{stage.counts['done']}/{len(stage.jobs)}" if len(stage.jobs) > 1 else ""
    hours = f"{stage.gpu_hours:.2f}" if stage.gpu_hours else ""
    what = whose + _what(stage)
    return StatusRow(*stage.node.key, stage.state, jobs, what.removesuffix(": "), duration(stage.left_s), hours)


def _what(stage: StageStatus) -> str:
    """What a stage is doing, or why it does not."""
    if stage.blocked and stage.state == "waiting":
        return f"waits for {', '.join(stage.blocked)}, which did not end well"
    same = [job for job in stage.jobs if job.state == stage.state]
    if stage.state == "running":
        also = f"; {stage.counts['failed']} failed" if stage.counts["failed"] else ""
        return _running(same) + also
    details = [job.detail for job in same if job.detail]
    more = f" (and {len(same) - 1} more)" if len(same) > 1 and details and stage.state != "done" else ""
    first = details[0] if details else ""
    # The whole line is below the table.
    short = f"{first[:FAILURE_CHARACTERS]}…" if stage.state == "failed" and len(first) > FAILURE_CHARACTERS else first
    return short + more


def _running(jobs: Sequence[JobStatus]) -> str:
    """Progress of running jobs: that of one with its figures, or the sum of several."""
    progress = [job.beat.progress for job in jobs if job.beat is not None and job.beat.progress.of]
    if not progress:
        return jobs[0].detail
    rate, first = math.fsum(item.rate for item in progress), progress[0]
    head = f"{len(jobs)} at once, " if len(jobs) > 1 else "" if first.task in (jobs[0].stage, "") else f"{first.task}: "
    text = f"{head}{sum(item.step for item in progress)}/{sum(item.of for item in progress)}, {rate:.3g}/s"
    if len(jobs) == 1:
        shown = sorted(first.figures.items(), key=lambda item: item[0] != "loss")[:MOST_FIGURES]
        text += "".join(f"{'; ' if i == 0 else ', '}{name} {value:.4g}" for i, (name, value) in enumerate(shown))
        where = jobs[0].slurm and f"SLURM {jobs[0].slurm}"
        text += f"; {where}" if where else ""
    return "; ".join(filter(None, [text, jobs[0].detail]))


def duration(seconds: float | None) -> str:
    """Seconds, minutes, hours or days, whichever suits; empty for None."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d}" if hours < 48 else f"{hours / 24:.1f} d"


def sentences(status: Status) -> list[str]:
    """The summary: counts by state, GPU hours, when it ends, what Snakemake does."""
    counts = ", ".join(f"{status.counts[state]} {state}" for state in STATES if status.counts[state])
    hours = f"GPU hours: {status.gpu_hours:.2f} so far, {status.gpu_hours_left:.2f} to go"
    if status.unknown:
        hours += f", and those of {counted(len(status.unknown), 'stage')} of which nothing is known"
    lines = [f"{counted(len(status.stages), 'stage')}: {counts}.", f"{hours}."]
    if status.budget is not None:
        lines.append(f"Budget: {status.budget.gpu_hours:.4g} GPU hours{_left_out(status.budget)}.")
    if status.end is not None:
        end = datetime.fromtimestamp(status.end).astimezone()
        left = duration(status.end - status.now)
        lines.append(f"Estimated end: {end:%Y-%m-%d %H:%M}, in {left}, if as many jobs as now run side by side.")
    return [*lines, status.snakemake]


def _left_out(budget: Budget) -> str:
    runs = [f"{run} (+{hours:.4g})" for run, hours in budget.left_out.items()]
    return f"; left out: {', '.join(runs)}" if runs else ""


def failures(status: Status) -> list[str]:
    """A line for each failed job: where its log is, and the last line of it."""
    failed = [job for stage in status.stages for job in stage.jobs if job.state == "failed"]
    return [f"{job.stage}/{job.id}/logs/{job.job}.log: {job.detail or 'it says nothing'}" for job in failed]


def renderable(status: Status, summary_first: bool = False) -> RenderableType:
    """The table and the summary for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in ("jobs", "left", "GPU h") else "left",
                         no_wrap=heading != "what", overflow="fold")  # fmt: skip
    for row in rows(status):
        cells = [Text(value) for value in (row.stage, row.id, row.state, row.jobs, row.what, row.left, row.gpu_hours)]
        cells[2].stylize(COLORS[row.state])
        table.add_row(*cells)
    failed = [Text(line, style="red") for line in failures(status)]
    summary = [*(Text(line) for line in sentences(status)), *failed]
    return Group(*summary, "", table) if summary_first else Group(table, "", *summary)


def text(status: Status) -> str:
    """The table and the summary as plain text, 100 columns wide."""
    stream = io.StringIO()
    Console(file=stream, width=WIDTH, force_terminal=False, color_system=None).print(renderable(status))
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def as_json(status: Status) -> dict[str, Any]:
    """The status for programs. Jobs that wait or are done are only counted."""
    return {
        "time": status.now,
        "snakemake": status.snakemake,
        "counts": dict(status.counts),
        "gpu_hours": status.gpu_hours,
        "gpu_hours_left": status.gpu_hours_left,
        "unknown": status.unknown,
        "budget": None if status.budget is None else asdict(status.budget),
        "end": status.end,
        "finished": status.finished,
        "stages": [_stage_json(stage) for stage in status.stages],
    }


def _stage_json(stage: StageStatus) -> dict[str, Any]:
    return {
        "stage": stage.node.stage,
        "id": stage.node.id,
        "runs": list(stage.node.runs),
        "state": stage.state,
        "counts": dict(stage.counts),
        "gpu_hours": stage.gpu_hours,
        "gpu_hours_left": stage.gpu_hours_left,
        "seconds_left": stage.left_s,
        "blocked": list(stage.blocked),
        "jobs": [_job_json(job) for job in stage.jobs if job.state not in ("waiting", "done", "pruned")],
    }


def _job_json(job: JobStatus) -> dict[str, Any]:
    about = {"job": job.job, "state": job.state, "detail": job.detail, "slurm": job.slurm, "seconds_left": job.left_s}
    if job.beat is None:
        return about
    progress = asdict(job.beat.progress)
    return (
        about
        | {"host": job.beat.host, "pid": job.beat.pid, "time": job.beat.time, "seconds": job.beat.seconds}
        | progress
    )


def status_page(status: Status, every_s: float | None) -> str:
    """A page that needs no network. `every_s`: seconds after which browsers load it again; None: never."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    written = datetime.fromtimestamp(status.now).astimezone()
    return environment.get_template("status.html.j2").render(
        headings=HEADINGS,
        rows=rows(status),
        sentences=sentences(status),
        failures=failures(status),
        written=f"{written:%Y-%m-%d %H:%M:%S %Z}",
        every_s=every_s,
        finished=status.finished,
    )
