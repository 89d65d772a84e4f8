"""How Snakemake asks SLURM for the states of its jobs."""

import logging
import os
import re
import subprocess

log = logging.getLogger("z1g")
STATUS = "Z1G_SLURM_STATUS"
"""Variable that names the command where it shall not be found out."""
REMEMBERED_S = 180
"""How long SLURM must remember jobs that ended, for squeue to say how: looks come up to three minutes apart."""
ANSWER_S = 10.0
"""How long SLURM may take to answer; without its database, sacct can wait for ever."""


def status_command() -> str:
    """`sacct` where SLURM's accounting database answers, else `squeue`; $Z1G_SLURM_STATUS overrules."""
    config = _said("scontrol", "show", "config") or ""
    chosen = os.environ.get(STATUS) or ("sacct" if _database_answers(config) else "squeue")
    if chosen == "squeue":
        _stay_with_squeue()
        remembered = _setting(config, "MinJobAge")
        if remembered.isdigit() and int(remembered) < REMEMBERED_S:
            log.warning(
                "this cluster forgets ended jobs after %s s (MinJobAge), before Snakemake looks: it may take them for "
                "failed; ask for %d s or for slurmdbd",
                remembered, REMEMBERED_S,
            )  # fmt: skip
    return chosen


def _database_answers(config: str) -> bool:
    if not _setting(config, "AccountingStorageType").endswith("slurmdbd"):
        return False
    return _said("sacct", "--allocations", "--noheader", "--starttime=now") is not None


def _setting(config: str, name: str) -> str:
    """A value of `scontrol show config` without its unit; empty where it is not said."""
    found = re.search(rf"^{name}\s*=\s*(\S+)", config, re.MULTILINE)
    return found[1] if found else ""


def _said(*command: str) -> str | None:
    """What a command prints; None where it is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_S)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _stay_with_squeue() -> None:
    """Keep Snakemake's executor from sacct, which has no option for that.

    While the controller does not answer, the executor cannot see MinJobAge, falls back to sacct where that is
    installed, and then asks it alone until it has an answer: without a database, for ever.
    """
    import snakemake_executor_plugin_slurm as executor

    available = executor.is_query_tool_available
    executor.is_query_tool_available = lambda tool: tool != "sacct" and available(tool)
