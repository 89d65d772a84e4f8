"""A stage's folder on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.data.manifest import Manifest

if TYPE_CHECKING:
    from z1g.config.tree import Experiment


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
        """Read `stage.json`. Raises UserError if it is missing, or if another version with other options wrote it."""
        from z1g.plan.slices import restored, slice_config

        file = path / "stage.json"
        if not file.is_file():
            raise UserError(f"{path}: no stage.json here; stage folders are made by `snakemake` or `z1g plan --write`")
        record: dict[str, Any] = read_json(file)
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
        return Manifest.load(ingest / "manifest.jsonl")
