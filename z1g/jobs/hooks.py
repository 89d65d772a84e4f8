"""Commands of the user that hear about the end of a run: mail, a chat, a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

LIMIT_S = 120.0
"""Time limit of the summary and of the command, so that neither holds up the end of a run."""


def tell(options: Mapping[str, Any], event: Literal["success", "error"], results: Path, runs: Iterable[str]) -> None:
    """Give the summary of a set, as `z1g status` prints it, to a shell command's standard input.

    The command is `onsuccess` or `onerror` of the options of Snakemake's `--config`, else $Z1G_ONSUCCESS or
    $Z1G_ONERROR; without one, nothing happens. The event is the first word of the text. Nothing that goes wrong here
    changes the outcome of the run: it is said on standard error.
    """
    command = options.get(f"on{event}", os.environ.get(f"Z1G_ON{event.upper()}"))
    if not command:
        return
    try:
        text = f"{event}: {results}\n\n{_summary(results, runs)}"
        done = subprocess.run(["sh", "-c", str(command)], input=text, text=True, check=False, timeout=LIMIT_S)
        problem = f"exit code {done.returncode}" if done.returncode else ""
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        problem = str(error)
    if problem:
        sys.stderr.write(f"z1g: the command of on{event}= failed: {command}: {problem}\n")


def _summary(results: Path, runs: Iterable[str]) -> str:
    """Output of `z1g status`, in a process of its own: Snakemake's has the end of the run to see to."""
    command = [sys.executable, "-m", "z1g", "status", "--results", str(results), "--ablations", *runs]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    return done.stdout or f"no status: {done.stderr.strip()}\n"
