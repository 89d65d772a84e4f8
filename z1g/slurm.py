"""How Snakemake asks SLURM for the states of its jobs."""

import os
import re
import subprocess

STATUS = "Z1G_SLURM_STATUS"
"""Variable that names the command where it shall not be found out."""
ANSWER_S = 10.0
"""How long SLURM may take to answer; without its database, sacct can wait for ever."""


def status_command() -> str:
    """`sacct` where SLURM's accounting database answers, else `squeue`; $Z1G_SLURM_STATUS overrules."""
    chosen = os.environ.get(STATUS) or ("sacct" if _database_answers() else "squeue")
    if chosen == "squeue":
        _stay_with_squeue()
    return chosen


def _database_answers() -> bool:
    storage = re.search(r"^AccountingStorageType\s*=\s*(\S+)", _said("scontrol", "show", "config") or "", re.MULTILINE)
    if storage is None or not storage[1].endswith("slurmdbd"):
        return False
    return _said("sacct", "--allocations", "--noheader", "--starttime=now") is not None


def _said(*command: str) -> str | None:
    """What a command prints; None where it is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_S)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _stay_with_squeue() -> None:
    """Keep Snakemake's executor from sacct.

    While the controller does not answer, the executor cannot see MinJobAge, falls back to sacct where that is
    installed, and then asks it alone until it has an answer: without a database, for ever.
    """
    import snakemake_executor_plugin_slurm as executor

    available = executor.is_query_tool_available
    executor.is_query_tool_available = lambda tool: tool != "sacct" and available(tool)
