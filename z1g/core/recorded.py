"""Files of a results tree, checked against what the job that made them recorded.

A job writes `jobs/<job>.json` in its stage folder, with the digests of its outputs (`z1g.jobs.records`). Whoever reads
an output passes its path through `checked`, so that damage between two jobs stops the second one. Files outside of
stage folders are not checked, as nothing is recorded about them.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.files import read_json, require_regular
from z1g.core.sealed import read_sealed
from z1g.core.unchecked import warn_unchecked

STAGE_FILE = "stage.json"
JOBS = "jobs"
ID = re.compile(r"[0-9a-f]{10}")
CHUNK, RUNG = re.compile(r"chunk-\d{5,}"), re.compile(r"rungs/(.+)\.json")
SETTLE_S, POLL_S = 30.0, 0.5
"""Age of a file up to which its record is waited for: network file systems may show the record later than the file."""
RACY_S = 2.0
"""Younger files may change without a change of their time, so that results about them are not kept."""


def stage_folder(path: Path) -> Path | None:
    """The stage folder `results/<stage>/<id>` that contains a path, links followed; None if there is none."""
    parents = path.resolve().parents
    return next((parent for parent in parents if (parent / STAGE_FILE).is_file()), None)


def job_of(folder: Path, name: str) -> str:
    """The job that writes a file of a stage folder: of its chunk or rung, or the one of the whole stage."""
    chunk, rung = CHUNK.match(name), RUNG.fullmatch(name)
    return chunk.group() if chunk else f"rung-{rung[1]}" if rung else _planned_as(folder)[0]


def record_file(folder: Path, job: str) -> Path:
    """The record of a job."""
    return folder / JOBS / f"{job}.json"


def identity_of(folder: Path) -> str:
    """The id of a stage folder: its name, or that in `stage.json` where links give it another name."""
    return folder.name if ID.fullmatch(folder.name) else _planned_as(folder)[1]


def _planned_as(folder: Path) -> tuple[str, str]:
    """Stage and id of a stage folder by its `stage.json`: folders may be links to another disk."""
    file = folder.resolve() / STAGE_FILE
    try:
        return _planned(str(file), file.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError):
        return file.parents[1].name, file.parent.name


@lru_cache(maxsize=4096)
def _planned(name: str, mtime_ns: int) -> tuple[str, str]:
    record = read_json(Path(name))
    return str(record["stage"]), str(record["id"])


def stage_owner(identity: str) -> str:
    """What the checksum of `stage.json` covers besides its content: the id, which depends on the stage, too."""
    return f"stage {identity}"


def record_owner(folder: Path, job: str) -> str:
    """What the checksum of a record covers besides its content."""
    return f"{identity_of(folder)}/{job}"


def checked(path: Path, content: bool = True) -> Path:
    """The same path, after a check of the file against the record of its job.

    A file is read once in a process unless it changes. content: whether to compare the digest, not only the size; for
    readers of a few bytes of a large file. A file outside of stage folders is not checked. A stage folder without any
    record, or whose job was not told its outputs, causes one warning.

    Raises UserError naming the file, the job and what to delete, if the file differs from the record, if it is recorded
    but missing, if there is a record without it, or if the record is damaged.
    """
    folder = stage_folder(path)
    if folder is None:
        return path
    name = path.resolve().relative_to(folder).as_posix()
    entry = _entry(path, folder, name)
    if entry is None:
        return path
    real = folder / name
    if not real.is_file():
        raise _damage(path, folder, name, "it does not exist")
    if real.stat().st_size != entry["bytes"]:
        raise _damage(path, folder, name, f"{real.stat().st_size} bytes instead of {entry['bytes']}")
    if content and file_digest(real) != entry["sha256"]:
        raise _damage(path, folder, name, "its content has changed")
    return path


def checked_folder(folder: Path) -> Path:
    """The same path, after `checked` for all of its files, and for those that its job recorded.

    Raises UserError as `checked`; also for a file that the job did not record.
    """
    within = stage_folder(folder)
    if within is None or not folder.is_dir():
        return folder
    prefix = folder.resolve().relative_to(within).as_posix() + "/"
    # Snakemake leaves hidden files in folders that are outputs.
    files = (file for file in folder.resolve().rglob("*") if file.is_file() and not file.name.startswith("."))
    present = {file.relative_to(within).as_posix() for file in files}
    recorded = {name for name in outputs(within, job_of(within, prefix)) or {} if name.startswith(prefix)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda name: checked(within / name), sorted(present | recorded)))
    return folder


def has_record(folder: Path) -> bool:
    """Whether the job that writes a folder or file of a results tree recorded its outputs."""
    within = stage_folder(folder)
    return within is not None and bool(outputs(within, job_of(within, folder.resolve().relative_to(within).as_posix())))


def checked_output(path: Path) -> Path:
    """`checked`, also for the results of `z1g infer photo.png`, whose record `<name>.json` is next to them."""
    record = path.with_name(f"{path.name.partition('.')[0]}.json")
    if stage_folder(path) is None and record.is_file():
        try:
            recorded = read_json(record)["files"][path.name]["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return path  # the record of something else
        if file_digest(path) != recorded:
            raise UserError(f"{path} is not as `z1g infer` wrote it ({record}): its content has changed. Make it again")
    return checked(path)


def is_recorded(path: Path) -> bool:
    """Whether a file is complete and as recorded, so that another job may reuse it; True if nothing is recorded."""
    folder = stage_folder(path)
    if folder is None or not any(folder.glob(f"{JOBS}/*.json")):
        return True
    name = path.resolve().relative_to(folder).as_posix()
    entry = (outputs(folder, job_of(folder, name)) or {}).get(name)
    same = entry is not None and path.is_file() and path.stat().st_size == entry["bytes"]
    return same and entry is not None and file_digest(path.resolve()) == entry["sha256"]


def outputs(folder: Path, job: str) -> dict[str, dict[str, Any]] | None:
    """Digests of a job's outputs by name in the stage folder; None without a record. Raises UserError if damaged."""
    record = read_record(folder, job)
    return None if record is None else record["outputs"]


def read_record(folder: Path, job: str) -> dict[str, Any] | None:
    """The record of a job, None if there is none. Raises UserError if it is damaged."""
    file = record_file(folder, job)
    try:
        about = file.stat()
    except FileNotFoundError:
        return None
    if time.time() - about.st_mtime < RACY_S:
        return _read_record(str(file), 0, time.monotonic_ns())
    return _read_record(str(file), about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=4096)
def _read_record(name: str, size: int, mtime_ns: int) -> dict[str, Any]:
    file = Path(name)
    try:
        record = read_sealed(file, record_owner(file.parents[1], file.stem))
        if not all(isinstance(attempt, dict) for attempt in record["attempts"]):
            raise ValueError("its attempts are no records")
        if record["job"] != file.stem:
            raise ValueError(f"it is the record of job {record['job']}")
        for entry in record["outputs"].values():
            _ = entry["sha256"], entry["bytes"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} cannot be used: {error}. It records what job {file.stem} wrote; delete it and the outputs of this "
            f"job in {file.parents[1]}, and make them again: start `snakemake` with one of them as its target"
        ) from error
    return record


def file_digest(path: Path) -> str:
    """SHA-256 of a file. It is read again only if its size or time has changed."""
    about = path.stat()
    if time.time() - about.st_mtime < RACY_S:
        return sha256(path)
    return _digest(str(path), about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=65_536)
def _digest(name: str, size: int, mtime_ns: int) -> str:
    return sha256(Path(name))


def sha256(path: Path) -> str:
    """SHA-256 of a regular file. Raises OSError for another kind, which may never end."""
    require_regular(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _entry(path: Path, folder: Path, name: str) -> dict[str, Any] | None:
    """Size and digest of a file, None if it cannot be checked. Waits for the record of a new file."""
    job = job_of(folder, name)
    while True:
        record = read_record(folder, job)
        if record is not None and name in record["outputs"]:
            entry: dict[str, Any] = record["outputs"][name]
            return entry
        if not (folder / name).is_file():
            return None
        # A training that was pruned has records of its rungs only.
        if record is None and all(file.name.startswith("rung-") for file in folder.glob(f"{JOBS}/*.json")):
            warn_unchecked(path, f"no job recorded what it wrote in {folder}")
            return None
        if record is not None and not record["outputs"] and any(a.get("finished") for a in record["attempts"]):
            warn_unchecked(path, f"job {job} was started without --outputs in {folder}")
            return None
        if time.time() - (folder / name).stat().st_mtime > SETTLE_S:
            raise _damage(path, folder, name, "it is not in that record")
        time.sleep(POLL_S)


def _damage(path: Path, folder: Path, name: str, what: str) -> UserError:
    job = job_of(folder, name)
    return UserError(f"{path} is not as job {job} wrote it ({record_file(folder, job)}): {what}. {remedy(path)}")


def damaged(path: Path, what: str) -> UserError:
    """The error for a file of a results tree, or of another place, that is not as it was written."""
    folder = stage_folder(path)
    if folder is None:
        return UserError(f"{path} is damaged: {what}. Delete it and make it again")
    return _damage(path, folder, path.resolve().relative_to(folder).as_posix(), what)


def remedy(path: Path) -> str:
    """What to delete so that the job that wrote a file of a stage folder runs again."""
    folder = stage_folder(path)
    if folder is None:
        return "Delete it and make it again"
    output = folder / path.resolve().relative_to(folder).parts[0]
    return f"Delete {output} and make it again: start `snakemake` with it as its target"
