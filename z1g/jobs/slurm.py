"""What Snakemake's executor for SLURM does not do itself: the choice of the command that queries states, and Ctrl-C."""

import logging
import os
import re
import subprocess
from typing import Any

log = logging.getLogger("z1g")
STATUS = "Z1G_SLURM_STATUS"
"""Environment variable that overrides the automatic choice."""
REMEMBERED_S = 180
"""How long SLURM must keep ended jobs for squeue to report them: queries are up to three minutes apart."""
ANSWER_S = 10.0
"""Time limit for an answer from SLURM; without its database, sacct can wait forever."""

CANCEL_S = 60.0
"""Time limit of `scancel`, as the executor has it: a busy controller may need a scheduling cycle."""


def status_command() -> str:
    """`sacct` if SLURM's accounting database answers, else `squeue`; $Z1G_SLURM_STATUS takes precedence."""
    config = _output("scontrol", "show", "config") or ""
    chosen = os.environ.get(STATUS) or ("sacct" if _database_answers(config) else "squeue")
    if chosen == "squeue":
        _disable_sacct()
        remembered = _setting(config, "MinJobAge")
        if remembered.isdigit() and int(remembered) < REMEMBERED_S:
            log.warning(
                "this cluster forgets ended jobs after %s s (MinJobAge), before Snakemake queries them: it may "
                "consider them failed; ask your administrator for %d s or for slurmdbd",
                remembered, REMEMBERED_S,
            )  # fmt: skip
    return chosen


def _database_answers(config: str) -> bool:
    if not _setting(config, "AccountingStorageType").endswith("slurmdbd"):
        return False
    return _output("sacct", "--allocations", "--noheader", "--starttime=now") is not None


def _setting(config: str, name: str) -> str:
    """A value of `scontrol show config` without its unit; empty if it is missing."""
    match = re.search(rf"^{name}\s*=\s*(\S+)", config, re.MULTILINE)
    return match[1] if match else ""


def _output(*command: str) -> str | None:
    """Output of a command; None if it is missing, fails or exceeds the time limit."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_S)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _disable_sacct() -> None:
    """Prevent Snakemake's executor from using sacct; the plugin has no option for that.

    While the controller does not answer, the executor cannot read MinJobAge, falls back to sacct if it is installed,
    and then queries only sacct until it answers: without a database, forever.
    """
    import snakemake_executor_plugin_slurm as executor

    available = executor.is_query_tool_available
    executor.is_query_tool_available = lambda tool: tool != "sacct" and available(tool)


def cancel_whole_run() -> None:
    """Make Ctrl-C cancel every job of a run; the plugin has no option for that.

    The executor cancels the jobs on its list. While it queries their states, that list is empty, and jobs that wait for
    their turn to be submitted are submitted after Ctrl-C. All of them would stay in the queue.
    """
    import snakemake_executor_plugin_slurm as executor

    executor.Executor.cancel_jobs = lambda self, _active: _cancel(self)


def _cancel(executor: Any) -> None:
    """Submit nothing more, wait for what is being submitted, and cancel all jobs that have the name of this run."""
    try:
        executor._job_submission_executor.shutdown(wait=True, cancel_futures=True)
    finally:
        # Also after a second Ctrl-C.
        _cancel_named(executor.run_uuid, executor.logger)


def _cancel_named(run: str, logger: logging.Logger) -> None:
    command = ["scancel", f"--name={run}"]
    try:
        # In a session of its own, to which Ctrl-C is not sent.
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=CANCEL_S, start_new_session=True)
    except (OSError, subprocess.SubprocessError) as error:
        problem = (getattr(error, "stderr", None) or str(error)).strip()
        logger.error(f"jobs may be left in the queue ({problem}); cancel them by: {' '.join(command)}")
