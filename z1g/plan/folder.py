"""A stage's folder on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from z1g.core.errors import UserError
from z1g.core.recorded import STAGE_FILE as FILE
from z1g.core.recorded import identity_of, stage_owner
from z1g.core.sealed import Damaged, read_sealed
from z1g.data.manifest import Manifest

if TYPE_CHECKING:
    from z1g.config.tree import Experiment


KEYS = ("stage", "id", "recipe", "upstream", "config", "n_chunks")


@dataclass(frozen=True)
class StageFolder:
    """The folder `results/<stage>/<id>/` and its `stage.json` written by the plan, the only input of a stage command.

    `config` has only the slice that the stage declares to read; anything else raises AttributeError. Options that did
    not exist when the folder was planned have the values that the folder's id stands for.
    """

    path: Path
    stage: str
    id: str
    upstream: dict[str, str]
    config: Experiment
    recipe: str = ""

    @classmethod
    def open(cls, path: Path) -> StageFolder:
        """Read `stage.json`. Raises UserError if it is missing, damaged, or of a version with other options."""
        from z1g.plan.slices import restored, slice_config

        file, record = path / FILE, read_stage_record(path)
        try:
            config = slice_config(restored(record["config"], record.get("reads")))
        except ValidationError as error:
            raise UserError(
                f"{file} was written by another version of z1g; start `snakemake` again to plan again"
            ) from error
        return cls(path, record["stage"], record["id"], record["upstream"], config, record["recipe"])

    def upstream_folder(self, stage: str) -> StageFolder:
        """The folder of a stage that this one depends on, directly or indirectly."""
        return StageFolder.open(self.upstream_path(stage))

    def upstream_path(self, stage: str) -> Path:
        """Path of the folder of an upstream stage."""
        return self.path.parent.parent / stage / self.upstream[stage]

    def manifest(self) -> Manifest:
        """The list of objects of this run."""
        ingest = self.path if self.stage == "ingest" else self.upstream_path("ingest")
        file = ingest / "manifest.jsonl"
        try:
            manifest = Manifest.load(file)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{file} cannot be read: {reason}; start `snakemake` again to write it again") from error
        if read_stage_record(ingest).get("objects") not in (None, manifest.digest()):
            raise UserError(f"{file} does not list the objects of {ingest}; start `snakemake` again to write it again")
        return manifest


def require_job(path: Path, stage: str, chunk: int | None) -> None:
    """Raise UserError unless `path` is the folder of a stage and has this chunk (None: a stage without chunks).

    Only `stage.json` is read, and nothing is written.
    """
    record = read_stage_record(path)
    if record["stage"] != stage:
        raise UserError(f"{path} is a folder of stage {record['stage']}, not of {stage}; give results/{stage}/<id>")
    if chunk is not None and not 0 <= chunk < record["n_chunks"]:
        raise UserError(f"--chunk {chunk}: {path} has {record['n_chunks']} chunks, counted from 0")


def read_stage_record(path: Path) -> dict[str, Any]:
    """Content of a folder's `stage.json`. Raises UserError if it is missing or damaged."""
    file = path / FILE
    if not file.is_file():
        raise UserError(f"{path}: no {FILE} here; stage folders are made by `snakemake` or `z1g plan --write`")
    try:
        record = read_sealed(file, stage_owner(identity_of(path)))
        missing = [key for key in KEYS if key not in record]
        kinds = {"n_chunks": int, "upstream": dict, "config": dict}
        missing += [key for key, kind in kinds.items() if key in record and not isinstance(record[key], kind)]
        if missing:
            raise Damaged(f"it lacks {', '.join(missing)}")
        if record["id"] != identity_of(path):
            raise Damaged(f"it is that of {record['id']}")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} cannot be read: {error}; start `snakemake` again to write it again") from error
    return record
