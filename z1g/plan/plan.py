"""The plan of a run: stages, identities, chunks and paths. It is pure and fast, and the Snakefile's only interface.

`id(stage)` is a digest of the configuration slice that the stage reads, the upstream ids and the stage's version.
Ablations that agree on all of these share the result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from z1g.config.preflight import Policy, preflight
from z1g.config.resolve import Ablation, load_ablation, locate
from z1g.core.errors import UserError
from z1g.core.files import write_json
from z1g.core.names import did_you_mean
from z1g.core.sealed import checksum, write_sealed
from z1g.data.manifest import Manifest
from z1g.plan.folder import read_record, stage_owner
from z1g.plan.identity import Stage, digest, identifying_values, planned_stages
from z1g.plan.records import CONFIG, ablation_owner

DEFAULT_SCALE = "full"
CONFIG_KEYS = ("scale", "ablations", "results", "objects", "gpus", "missing")


@dataclass(frozen=True)
class PlannedAblation:
    """An ablation with its stages by name."""

    ablation: Ablation
    manifest: Manifest
    stages: dict[str, Stage]


class Plan:
    """All ablations of a run and the paths of their results."""

    def __init__(self, ablations: Sequence[Ablation], results: Path) -> None:
        self.results = results
        self.ablations: dict[str, PlannedAblation] = {}
        manifests: dict[str, Manifest] = {}
        for ablation in ablations:
            key = data_key(ablation)
            if key not in manifests:
                manifests[key] = listed(ablation)
            self.ablations[ablation.name] = _planned(ablation, manifests[key])

    @classmethod
    def load(
        cls,
        scale: str,
        names: Iterable[str] | None,
        results: Path,
        ablations: Path,
        configs: Path,
        objects: Sequence[str] = (),
        missing: Policy | None = None,
    ) -> Plan:
        """Read ablation files: those in the folder itself, or those in `names`. A subfolder is a set, which can be
        named as a whole or by its files. Raises UserError with all mistakes in all files.

        `objects` are meshes that replace the base's data. `missing`: whether files, folders and packages that are not
        on this machine stop the plan or cause a warning, see `preflight`; None: no preflight.
        """
        nearest = next(path for path in (results, *results.parents, Path("/")) if path.exists())
        if not nearest.is_dir():
            raise UserError(f"results folder {results}: {nearest} is a file; name another folder")
        loaded, problems = read_ablations(scale, names, ablations, configs, objects)
        if problems:
            raise UserError("\n".join(problems))
        if missing is not None:
            preflight(loaded, missing)
        return cls(loaded, results)

    @classmethod
    def from_options(cls, options: Mapping[str, Any], results: Path, check: bool = True) -> Plan:
        """Return the plan for the options of Snakemake's `--config`. Raises UserError.

        `scale=` base configuration, `ablations=a,b` names, `results=` folder, `objects=a,b` meshes that replace the
        base's, `gpus=` number of this machine's GPUs for all jobs (used by the Snakefile), `missing=` stop or warn, see
        `load`. check: whether to run the preflight; a job does not need what other jobs need.
        """
        unknown = [key for key in options if key not in CONFIG_KEYS]
        if unknown:
            raise UserError(f"--config {unknown[0]}=: unknown key{did_you_mean(unknown[0], CONFIG_KEYS)}")
        for key, value in options.items():
            if value is None or value == "":
                raise UserError(f"--config {key}=: it is empty; give a value, or leave it out")
        if not re.fullmatch(r"[\w./+@,:=~-]+", str(results)):
            raise UserError(
                f'--config results=: "{results}" is used in shell commands; use letters, digits and ./+@,:=~-_'
            )
        names = _words(options["ablations"]) if options.get("ablations") is not None else None
        scale, objects = str(options.get("scale", DEFAULT_SCALE)), _words(options.get("objects", ""))
        if "objects" in options and not objects:
            raise UserError("--config objects=: no objects are named; leave it out to use those of the base")
        missing = options.get("missing", "stop")
        if missing not in get_args(Policy):
            raise UserError(f"--config missing=: {missing}{did_you_mean(str(missing), get_args(Policy))}")
        folders = results, Path("ablations"), Path("configs")
        return cls.load(scale, names, *folders, objects, missing if check else None)

    @cached_property
    def stages(self) -> dict[tuple[str, str], Stage]:
        """Every distinct stage by (name, id)."""
        return {stage.key: stage for planned in self.ablations.values() for stage in planned.stages.values()}

    def folder(self, stage: str, stage_id: str) -> Path:
        """Folder of a stage's results."""
        return self.results / stage / stage_id

    def stage(self, name: str, stage_id: str) -> Stage:
        """A stage by id, from this plan or from the record of an earlier plan on disk.

        With the record, jobs that wait in a cluster's queue can run even if an ablation file was edited in the
        meantime. Raises UserError if the stage is in neither.
        """
        planned = self.stages.get((name, stage_id))
        if planned is not None:
            return planned
        record = self.folder(name, stage_id) / "stage.json"
        if not record.is_file():
            raise UserError(f"no ablation plans {name} {stage_id}, and {record} does not exist")
        return Stage.from_record(read_record(record.parent))

    def chunks(self, name: str, stage_id: str) -> list[str]:
        """Chunk numbers in the format of file names."""
        return [f"{chunk:05d}" for chunk in range(self.stage(name, stage_id).n_chunks)]

    def sources(self, ingest_id: str, chunk: int) -> list[str]:
        """Source files of an ingest chunk whose changes are detected by their modification times.

        Objects with a content digest are omitted: it is part of the data set's identity, which avoids checking the
        times of 100,000 files. Ingest quarantines objects whose file is missing.
        """
        manifest = next((p.manifest for p in self.ablations.values() if p.stages["ingest"].id == ingest_id), None)
        if manifest is None:
            manifest = Manifest.load(self.folder("ingest", ingest_id) / "manifest.jsonl")
        files = dict.fromkeys(entry.file for entry in manifest.chunk(chunk) if not entry.content)
        return [file for file in files if Path(file).exists()]

    def metrics_files(self, name: str, *more: str) -> list[str]:
        """Result files from which an ablation's summary is computed, and `more` in the same folder."""
        folder = self.folder(*self.ablations[name].stages["metrics"].key)
        return [str(folder / file) for file in ("metrics.jsonl", "objects.jsonl", "metrics.json", *more)]

    def ablation_identity(self, name: str) -> str:
        """Digest of the identity-relevant content of an ablation's `plan.json` and `config.json`."""
        planned = self.ablations[name]
        return digest([ablation_record(planned), identifying_values(planned.ablation.experiment)])

    def write(self) -> None:
        """Write the records of all stages and ablations, which commands and the report read."""
        for stage in self.stages.values():
            write_sealed(self.folder(*stage.key) / "stage.json", stage.record(), stage_owner(*stage.key))
        for name, planned in self.ablations.items():
            manifest = self.folder("ingest", planned.stages["ingest"].id) / "manifest.jsonl"
            # Files of equal content may have moved, so the manifest's sources are updated.
            if _stored(manifest) != planned.manifest:
                planned.manifest.save(manifest)
            folder = self.results / "ablations" / name
            config = planned.ablation.experiment.model_dump(mode="json")
            write_json(folder / "config.json", config)
            record = {**ablation_record(planned), CONFIG: checksum(config)}
            write_sealed(folder / "plan.json", record, ablation_owner(name))


def read_ablations(
    scale: str, names: Iterable[str] | None, ablations: Path, configs: Path, objects: Sequence[str] = ()
) -> tuple[list[Ablation], list[str]]:
    """The ablations that can be read, and what is wrong with the others; arguments as in `Plan.load`.

    Raises UserError if there are none.
    """
    files, sets = ablation_files(ablations)
    default_names = [name for name, file in files.items() if file.parent == ablations]
    requested = default_names if names is None else list(names)
    selected = [name for word in requested for name in ([word] if word in files else sets.get(word, [word]))]
    if not selected:
        raise UserError(f"{ablations}: no ablation files (*.yaml) here" if not files else "no ablations are named")
    loaded, problems = [], []
    for name in dict.fromkeys(selected):
        path = files.get(name, ablations / f"{name}.yaml")
        try:
            if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
                raise UserError(f'{path}: the name "{name}" must be a word of letters, digits, "_", "-" and "."')
            if name not in files:
                raise UserError(f'ablation "{name}": there is no file {path}{did_you_mean(name, [*files, *sets])}')
            loaded.append(load_ablation(path, scale, configs, objects))
        except UserError as error:
            problems += str(error).splitlines()
    return loaded, list(dict.fromkeys(problems))


def data_key(ablation: Ablation) -> str:
    """The same text for ablations of the same data."""
    return json.dumps(ablation.experiment.data.model_dump(mode="json"), sort_keys=True)


def listed(ablation: Ablation) -> Manifest:
    """The objects of an ablation. Raises UserError if they cannot be listed, or if none is left for training."""
    data = ablation.experiment.data
    try:
        manifest = data.manifest()
    except (UserError, OSError) as error:
        raise UserError(f"ablation {ablation.name}: {error}") from error
    if not data.split.train_on_test and "train" not in manifest.splits(data.split).values():
        raise UserError(
            f"{locate(ablation.files, ('data', 'split', 'test_fraction'))}: data.split: no training object is left, as "
            f"all {len(manifest.objects)} are held out together; lower data.split.test_fraction or add objects"
        )
    return manifest


def ablation_files(folder: Path) -> tuple[dict[str, Path], dict[str, list[str]]]:
    """Ablation files by name, and the names in each set: `a.yaml`, and `set/b.yaml`, which is ablation b of `set`.

    Raises UserError if two files have the same name.
    """
    files: dict[str, Path] = {}
    sets: dict[str, list[str]] = {}
    for file in [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*/*.yaml"))]:
        if file.stem in files:
            raise UserError(
                f"{files[file.stem]} and {file} have the same name; results are kept by name, so rename one"
            )
        files[file.stem] = file
        if file.parent != folder:
            sets.setdefault(file.parent.name, []).append(file.stem)
    return files, sets


def _words(option: Any) -> list[str]:
    """A list option of Snakemake: a list, or a comma-separated string."""
    return [str(word) for word in (option if isinstance(option, list) else str(option).split(",")) if word]


def ablation_record(planned: PlannedAblation) -> dict[str, Any]:
    """Content of an ablation's `plan.json`."""
    ablation = planned.ablation
    return {
        "name": ablation.name,
        "description": ablation.description,
        "base": ablation.base,
        "differences": ablation.differences,
        "stages": {name: stage.id for name, stage in planned.stages.items()},
    }


def _stored(manifest: Path) -> Manifest | None:
    """A manifest on disk, None if it is missing or damaged."""
    try:
        return Manifest.load(manifest)
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def _planned(ablation: Ablation, manifest: Manifest) -> PlannedAblation:
    return PlannedAblation(ablation, manifest, planned_stages(ablation, manifest))
