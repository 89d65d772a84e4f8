"""A stage's folder on disk, as a verb finds it."""

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
    """`results/<stage>/<id>/` with the `stage.json` that the plan wrote there: all that a verb needs to know.

    `config` holds only the slice that the stage declared to read; anything else raises AttributeError. An option that
    did not exist when the folder was planned has the value that the folder's id stands for.
    """

    path: Path
    stage: str
    id: str
    upstream: dict[str, str]
    config: Experiment
    recipe: str = ""

    @classmethod
    def open(cls, path: Path) -> StageFolder:
        """Read `stage.json`. Raises UserError where there is none, or where another version has other options."""
        from z1g.plan.slices import restored, slice_config

        file = path / "stage.json"
        if not file.is_file():
            raise UserError(f"{path}: no stage.json here; stage folders are made by `snakemake` or `z1g plan --write`")
        record: dict[str, Any] = read_json(file)
        try:
            config = slice_config(restored(record["config"], record.get("reads")))
        except ValidationError as error:
            raise UserError(
                f"{file} was written by another version of z1g; start `snakemake` again, which plans anew"
            ) from error
        return cls(path, record["stage"], record["id"], record["upstream"], config, record["recipe"])

    def upstream_folder(self, stage: str) -> StageFolder:
        """The folder of a stage that this one depends on, directly or not."""
        return StageFolder.open(self.upstream_path(stage))

    def upstream_path(self, stage: str) -> Path:
        """Where the stage's results lie."""
        return self.path.parent.parent / stage / self.upstream[stage]

    def manifest(self) -> Manifest:
        """The list of objects of this run."""
        ingest = self.path if self.stage == "ingest" else self.upstream_path("ingest")
        return Manifest.load(ingest / "manifest.jsonl")
