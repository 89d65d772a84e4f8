"""Snakemake in a fork of this process: without the start of Python and its imports, which exceed a dry run."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

LIMIT_S = 600.0


def snakemake(
    words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None, stderr: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """What `snakemake words...` does in a folder. Its messages may be read in the file `stderr` while it runs."""
    from snakemake import cli  # noqa: F401  # for the fork

    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch, "stdout"), stderr or Path(scratch, "stderr")
        variables = dict(os.environ if environment is None else environment)
        process = multiprocessing.get_context("fork").Process(
            target=_main, args=(list(words), folder, variables, files)
        )
        process.start()
        process.join(LIMIT_S)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["snakemake", *words], LIMIT_S, *(file.read_bytes() for file in files))
        return subprocess.CompletedProcess(
            ["snakemake", *words], process.exitcode or 0, *(file.read_text() for file in files)
        )


def _main(words: list[str], folder: Path, environment: dict[str, str], files: tuple[Path, Path]) -> None:
    from snakemake import cli

    for number, (name, file) in enumerate(zip(("stdout", "stderr"), files, strict=True), 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        setattr(sys, name, os.fdopen(number, "w", buffering=1, closefd=False, encoding="utf-8"))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Those of pytest would keep what is said to themselves.
    logging.getLogger().handlers.clear()
    # A process that was started in the background ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["snakemake", *words]
    cli.main(words)
