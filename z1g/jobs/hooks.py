"""Commands of the user that hear about the end of a run: mail, a chat, a file."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from z1g.core.files import write_json

SUMMARY = "Z1G_SUMMARY"
"""Environment variable of the command with the path of the summary as JSON."""
LIMIT_S = 120.0
"""Time limit of the summary and of the command, so that neither holds up the end of a run."""


def tell(options: Mapping[str, Any], event: Literal["success", "error"], results: Path, runs: Iterable[str]) -> None:
    """Give the summary of a set, as `z1g status` prints it, to a shell command's standard input.

    The file that $Z1G_SUMMARY names has the same as JSON, as `z1g status --json` prints it; it is there until the
    command has ended. The command is `onsuccess` or `onerror` of the options of Snakemake's `--config`, else
    $Z1G_ONSUCCESS or $Z1G_ONERROR; without one, nothing happens. The event is the first word of the text. Nothing that
    goes wrong here changes the outcome of the run: it is said on standard error.
    """
    command = options.get(f"on{event}", os.environ.get(f"Z1G_ON{event.upper()}"))
    if not command:
        return
    try:
        with tempfile.TemporaryDirectory(prefix="z1g-") as folder:
            document = Path(folder) / "summary.json"
            text = f"{event}: {results}\n\n{_summary(results, runs, document)}"
            environment = os.environ | {SUMMARY: str(document)}
            words = ["sh", "-c", str(command)]
            done = subprocess.run(words, input=text, text=True, check=False, timeout=LIMIT_S, env=environment)
        problem = f"exit code {done.returncode}" if done.returncode else ""
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        problem = str(error)
    if problem:
        sys.stderr.write(f"z1g: the command of on{event}= failed: {command}: {problem}\n")


def _summary(results: Path, runs: Iterable[str], document: Path) -> str:
    """Output of `z1g status`, in a process of its own: Snakemake's has the end of the run to see to.

    Writes the same as JSON to `document`; if that cannot be had, an object with the key `error`.
    """
    words = [sys.executable, "-m", "z1g", "status", "--results", str(results), "--json", str(document)]
    done = subprocess.run([*words, "--ablations", *runs], capture_output=True, text=True, check=False, timeout=LIMIT_S)
    if done.returncode:
        write_json(document, {"error": done.stderr.strip()})
    return done.stdout or f"no status: {done.stderr.strip()}\n"
