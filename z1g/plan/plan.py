"""The plan of a run: stages, identities, chunks and paths. It is pure and fast, and the Snakefile's only interface.

`id(stage)` is a digest of the configuration slice that the stage reads, the upstream ids and the stage's version.
Ablations that agree on all of these share the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from z1g.config.catalog import Catalog
from z1g.config.entries import Entries
from z1g.config.preflight import Policy, preflight
from z1g.config.resolve import Ablation
from z1g.config.run_names import PART
from z1g.core.errors import UserError
from z1g.core.files import update_json
from z1g.core.names import did_you_mean
from z1g.core.progress import Meter
from z1g.core.recorded import stage_owner
from z1g.core.sealed import checksum, update_sealed
from z1g.core.urls import SCHEME
from z1g.data.manifest import Manifest
from z1g.plan import fallback
from z1g.plan.folder import read_stage_record
from z1g.plan.identity import Shared, Stage, digest, planned_stages
from z1g.plan.lists import Lists
from z1g.plan.peers import PlannedPeer, check_peers, planned_peers, write_planned
from z1g.plan.pruning import FOLDER, Competitor, Pruning
from z1g.plan.records import CONFIG, ablation_owner
from z1g.plan.runs import NAMES_FILE, write_names

DEFAULT_SCALE = "full"
QUIET_S = 5.0
"""Seconds after which progress is shown."""
CONFIG_KEYS = ("scale", "ablations", "results", "objects", "gpus", "missing", "budget", "onsuccess", "onerror")


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
        self.instead: dict[str, str] = {}
        """Why other stages are planned instead of some, by their `ingest` ids, see `z1g.plan.fallback`."""
        self._shared = Shared()
        self._identities: dict[str, str] = {}
        lists = Lists()
        for ablation in ablations:
            manifest = lists.of(ablation)
            stages = planned_stages(ablation, manifest, self._shared)
            self.ablations[ablation.name] = PlannedAblation(ablation, manifest, stages)

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
        on this machine stop the plan or cause a warning, see `preflight`; None: no preflight. Where OpenGL does not
        work, Blender renders instead of the rasterizer, see `z1g.plan.fallback`.
        """
        nearest = next(path for path in (results, *results.parents, Path("/")) if path.exists())
        if not nearest.is_dir():
            raise UserError(f"results folder {results}: {nearest} is a file; name another folder")
        loaded, problems = read_ablations(scale, names, ablations, configs, objects, results / FOLDER)
        if problems:
            raise UserError("\n".join(problems))
        if missing is not None:
            preflight(loaded, missing)
        plan = cls(loaded, results)
        rendered = ((planned.ablation, planned.stages["ingest"]) for planned in plan.ablations.values())
        chosen, instead = fallback.available(rendered, results, missing)
        if instead:
            plan = cls(chosen, results)
            plan.instead = instead
        if missing is not None:
            check_peers(plan.peers, missing)
        return plan

    @classmethod
    def from_options(cls, options: Mapping[str, Any], results: Path, check: bool = True) -> Plan:
        """Return the plan for the options of Snakemake's `--config`. Raises UserError.

        `scale=` base configuration, `ablations=a,b` names, `results=` folder, `objects=a,b` meshes that replace the
        base's, `missing=` stop or warn, see `load`. The Snakefile uses `gpus=` number of this machine's GPUs for all
        jobs, `budget=` GPU hours, and `onsuccess=` and `onerror=` commands that get a summary. check: whether to run
        the preflight; a job does not need what other jobs need.
        """
        unknown = [key for key in options if key not in CONFIG_KEYS]
        if unknown:
            raise UserError(f"--config {unknown[0]}=: unknown key{did_you_mean(unknown[0], CONFIG_KEYS)}")
        for key, value in options.items():
            if value is None or value == "":
                raise UserError(f"--config {key}=: it is empty; give a value, or leave it out")
        # A path has lost one of the slashes.
        if str(results).startswith(SCHEME[:-1]):
            raise UserError(
                "--config results=: s3://… is in a bucket, which has no locks and no renaming; give a folder on a "
                "disk that all jobs see (docs/storage.md)"
            )
        if not re.fullmatch(r"[\w./+@,:=~-]+", str(results)):
            raise UserError(
                f'--config results=: "{results}" is used in shell commands; use letters, digits and ./+@,:=~-_'
            )
        names = _run_names(options["ablations"]) if options.get("ablations") is not None else None
        scale, objects = str(options.get("scale", DEFAULT_SCALE)), _words(options.get("objects", ""))
        if "objects" in options and not objects:
            raise UserError("--config objects=: no objects are named; leave it out to use those of the base")
        missing = options.get("missing", "stop")
        if missing not in get_args(Policy):
            raise UserError(f"--config missing=: {missing}{did_you_mean(str(missing), get_args(Policy))}")
        folders = results, Path("ablations"), Path("configs")
        return cls.load(scale, names, *folders, objects, missing if check else None)

    def of(self, names: Iterable[str]) -> Plan:
        """The part of this plan with some of its ablations."""
        part = Plan([], self.results)
        part.instead = self.instead
        part.ablations = {name: self.ablations[name] for name in names}
        return part

    @cached_property
    def stages(self) -> dict[tuple[str, str], Stage]:
        """Every distinct stage by (name, id)."""
        return {stage.key: stage for planned in self.ablations.values() for stage in planned.stages.values()}

    @cached_property
    def pruning(self) -> Pruning:
        """Which arms of studies reach which rung. Raises UserError for one that cannot be stopped at a rung."""
        competitors = []
        for name, planned in self.ablations.items():
            about, ids = planned.ablation.about, {stage: item.id for stage, item in planned.stages.items()}
            distilled = planned.ablation.experiment.unet.distill is not None
            if about.prune is not None and about.prune.stage == "unet" and distilled:
                raise UserError(
                    f"{name} is pruned by its UNet at rungs, before unet.distill: leave out prune, or distill the best "
                    "run afterwards"
                )
            competitors.append(Competitor(name, about.arm, about.cohort, about.prune, ids))
        return Pruning.of(competitors, self.results)

    @cached_property
    def peers(self) -> dict[str, PlannedPeer]:
        """Other systems that the sets of these ablations measure, by name."""
        return planned_peers(
            (name, planned.stages["metrics"].id, planned.stages["ingest"].id, planned.ablation.about.peers)
            for name, planned in self.ablations.items()
        )

    @cached_property
    def _priorities(self) -> dict[tuple[str, str], int]:
        priorities: dict[tuple[str, str], int] = {}
        for planned in self.ablations.values():
            own = planned.ablation.about.priority
            for stage in planned.stages.values():
                priorities[stage.key] = max(own, priorities.get(stage.key, own))
        return priorities

    def priority(self, stage: str, stage_id: str) -> int:
        """Priority of a stage: the highest of the ablations that need it; 0 for stages of earlier plans."""
        return self._priorities.get((stage, stage_id), 0)

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
        return Stage.from_record(read_stage_record(record.parent))

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
        if name not in self._identities:
            planned = self.ablations[name]
            values = self._shared.identifying_values(planned.ablation.experiment)
            self._identities[name] = digest([ablation_record(planned), values])
        return self._identities[name]

    @cached_property
    def identity(self) -> str:
        """Digest of the identities of all ablations, in order."""
        return digest([self.ablation_identity(name) for name in self.ablations])

    def write(self) -> None:
        """Write the records of all stages and ablations, which commands and the report read, where they changed."""
        pruned = self.pruning.write()
        manifests = {planned.stages["ingest"].id: planned.manifest for planned in self.ablations.values()}
        for ingest, manifest in manifests.items():
            file = self.folder("ingest", ingest) / "manifest.jsonl"
            # Files of equal content may have moved, so the manifest's sources are updated.
            if _stored(file) != manifest:
                manifest.save(file)
        for ingest, reason in [*((ingest, None) for ingest in manifests), *self.instead.items()]:
            fallback.note(self.results, ingest, reason)
        with Meter("records of the plan", len(self.stages) + len(self.ablations), quiet_s=QUIET_S) as meter:
            for stage in self.stages.values():
                update_sealed(self.folder(*stage.key) / "stage.json", stage.record(), stage_owner(stage.id))
                meter.advance()
            for name, planned in self.ablations.items():
                folder = self.results / "ablations" / name
                config = planned.ablation.experiment.model_dump(mode="json")
                cut = {"pruned": pruned[name]} if name in pruned else {}
                update_json(folder / "config.json", config)
                record = {**ablation_record(planned), **cut, CONFIG: checksum(config)}
                update_sealed(folder / "plan.json", record, ablation_owner(name))
                meter.advance()
        write_planned(self.results, self.peers.values())
        write_names(self.results / NAMES_FILE, list(self.ablations))


def read_ablations(
    scale: str,
    names: Iterable[str] | None,
    ablations: Path,
    configs: Path,
    objects: Sequence[str] = (),
    studies: Path | None = None,
) -> tuple[list[Ablation], list[str]]:
    """The runs that can be read, and what is wrong with the others; arguments as in `Plan.load`.

    studies: folder with the files of `z1g search`. Raises UserError if there are none.
    """
    return Catalog(Entries.of_folder(ablations, studies), scale, configs, objects).select(names)


def _words(option: Any) -> list[str]:
    """A list option of Snakemake: a list, or a comma-separated string."""
    return [str(word) for word in (option if isinstance(option, list) else str(option).split(",")) if word]


def _run_names(option: Any) -> list[str]:
    """Names of runs. Those of points have commas, too: a part such as `guidance=2` belongs to the name before it."""
    names: list[str] = []
    for word in _words(option):
        if names and "=" in word.partition(PART)[0]:
            names[-1] += f",{word}"
        else:
            names.append(word)
    return names


def ablation_record(planned: PlannedAblation) -> dict[str, Any]:
    """Content of an ablation's `plan.json`."""
    ablation = planned.ablation
    return {
        "name": ablation.name,
        "description": ablation.description,
        "base": ablation.base,
        "differences": ablation.differences,
        "stages": {name: stage.id for name, stage in planned.stages.items()},
        **ablation.about.record(),
    }


def _stored(manifest: Path) -> Manifest | None:
    """A manifest on disk, None if it is missing or damaged."""
    try:
        return Manifest.load(manifest)
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None
