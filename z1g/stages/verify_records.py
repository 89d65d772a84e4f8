"""Checks of `z1g verify` that concern files by which other files are found and checked: plans, lists, job records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from z1g.codes.diffusion import FOLDER as PREDICTED
from z1g.codes.predictions import predicted
from z1g.config.resolve import Ablation as Resolved
from z1g.config.resolve import merge
from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.core.recorded import JOBS, STAGE_FILE, read_record, sha256
from z1g.core.stages import TRAINED
from z1g.data.manifest import Manifest
from z1g.data.tensor_shards import damaged_shards
from z1g.plan import neutral
from z1g.plan.folder import read_stage_record
from z1g.plan.identity import Stage, missing_files, planned_stages
from z1g.plan.records import CONFIG, CONFIGURATION, PLAN, read_config, read_plan
from z1g.plan.slices import restored
from z1g.plan.stages import STAGES
from z1g.report.collect import flatten
from z1g.training.checkpoint import CheckpointFolder

REMEMBERED = ("conditions", "variants")
"""Folders of a training stage with tensors that are computed once."""
CHECKPOINTS = ("checkpoints", "distill/checkpoints")
"""Folders of a training stage with checkpoints."""
MANIFEST = "manifest.jsonl"
OF_ABLATION = (PLAN, CONFIGURATION, "reproduce.json", "metrics.csv", "MODEL_CARD.md")
"""Files of an ablation that are checked."""


@dataclass(frozen=True)
class Finding:
    """One check: its subject, whether it holds (None if it could not be made), and details.

    counts: whether the verdict depends on it; if not, it is a remark about what is not checked.
    """

    what: str
    holds: bool | None
    detail: str
    counts: bool = True


def planned(folder: Path, facts: dict[str, Any]) -> Iterator[Finding]:
    """Check that `plan.json` and `config.json` are whole, and that the plan is the recorded one.

    A later plan with other runtime options, which change no result, writes both again.
    """
    try:
        plan = read_plan(folder)
    except UserError as error:
        yield Finding(PLAN, False, str(error))
        return
    about = {key: plan.get(key) or "" for key in ("description", "base")}
    same = _same_file(folder, PLAN, facts) or (
        CONFIG in plan
        and about == {key: facts.get(key) for key in about}
        and plan["stages"] == {stage: record["id"] for stage, record in facts["stages"].items()}
        and flatten(plan.get("differences") or {}) == facts.get("differences")
    )
    detail = "as recorded" if same else f"{folder / PLAN} differs from the record in reproduce.json"
    yield Finding(PLAN, same, detail)
    try:
        read_config(folder, plan)
    except UserError as error:
        yield Finding(CONFIGURATION, False, str(error))
        return
    whole = _same_file(folder, CONFIGURATION, facts) or (CONFIG in plan and (folder / CONFIGURATION).is_file())
    detail = "as planned" if whole else f"{folder / CONFIGURATION} differs from the record in reproduce.json"
    yield Finding(CONFIGURATION, whole, detail)


def _same_file(folder: Path, name: str, facts: dict[str, Any]) -> bool:
    file = folder / name
    return file.is_file() and sha256(file) == facts.get("planned", {}).get(name)


def objects(results: Path, facts: dict[str, Any]) -> Finding:
    """Check the list of objects. Another place of the same meshes, which a later plan wrote, changes no result."""
    file, recorded = results / "ingest" / facts["stages"]["ingest"]["id"] / MANIFEST, facts["data"]
    try:
        listed = Manifest.load(file)
        if sha256(file) == recorded["manifest"]:
            return Finding("manifest", True, "as recorded")
        objects = read_stage_record(file.parent).get("objects")
    except (OSError, UserError) as error:
        return Finding("manifest", False, str(error))
    same = objects == listed.digest() and len(listed.objects) == recorded["objects"]
    detail = "the recorded objects, listed again" if same else f"{file} differs from reproduce.json"
    return Finding("manifest", same, detail)


def identities(results: Path, folder: Path, facts: dict[str, Any]) -> Iterator[Finding]:
    """Check that configuration and objects still give the stages' ids, and that every `stage.json` agrees."""
    what = "identities"
    try:
        ids = read_plan(folder)["stages"]
        other = [
            f"{name} has version {facts['stages'][name]['version']}, this z1g has {spec.version}"
            for name, spec in STAGES.items()
            if facts["stages"][name]["version"] != spec.version
        ]
        if other:
            yield Finding(what, None, f"made by another version of z1g: {'; '.join(other)}")
            return
        manifest = Manifest.load(results / "ingest" / ids["ingest"] / MANIFEST)
        config = neutral.recorded().completed(read_config(folder, read_plan(folder)))
        derived = _derived(config, manifest)
        gone = missing_files(Experiment.model_validate(config))
        unknown = _depending(config, manifest)
    except (OSError, UserError, ValueError, ValidationError, KeyError, TypeError) as error:
        yield Finding(what, False, f"plan, configuration or manifest cannot be read: {error}")
        return
    wrong = [
        f"{name} {ids.get(name)} should be {stage.id}"
        for name, stage in derived.items()
        if ids.get(name) != stage.id and not (name in unknown and ids.get(name))
    ]
    wrong += [
        f"reproduce.json has {name} {facts['stages'][name]['id']}"
        for name in derived
        if facts["stages"][name]["id"] != ids.get(name)
    ]
    if wrong:
        yield Finding(what, False, "configuration and objects do not give these ids: " + "; ".join(wrong))
        return
    if unknown:
        files = "; ".join(f"{'.'.join(path)} names {file}" for path, file in gone)
        yield Finding(what, None, f"cannot be computed for {', '.join(unknown)}: {files}, which cannot be read")
        derived = {name: replace(stage, id=ids[name], upstream=_known(stage, ids)) for name, stage in derived.items()}
    else:
        yield Finding(what, True, f"{len(derived)} stage ids follow from the configuration and the objects")
    problems = [
        text
        for name, stage in derived.items()
        for text in _stage_file(results, stage, config, manifest, name in unknown)
    ]
    good = f"{len(derived) - len(unknown)} of {len(derived)} files give the ids of their folders"
    yield Finding("stage.json", False if problems else None if unknown else True, "; ".join(problems) or good)


def _known(stage: Stage, ids: dict[str, str]) -> dict[str, str]:
    return {name: ids[name] for name in stage.upstream}


def _depending(config: dict[str, Any], manifest: Manifest) -> tuple[str, ...]:
    """Stages whose ids depend on the content of files that cannot be read: other names of these change the ids."""
    other = config
    for path, file in missing_files(Experiment.model_validate(config)):
        changed: Any = f"{file} of another name"
        for key in reversed(path):
            changed = {key: changed}
        other = merge(other, changed)
    if other is config:
        return ()
    now, then = _derived(config, manifest), _derived(other, manifest)
    return tuple(name for name in now if now[name].id != then[name].id)


def _derived(config: dict[str, Any], manifest: Manifest) -> dict[str, Stage]:
    return planned_stages(Resolved("", "", "", {}, Experiment.model_validate(config)), manifest)


def _stage_file(
    results: Path, stage: Stage, config: dict[str, Any], manifest: Manifest, unknown: bool
) -> Iterator[str]:
    """What is wrong with the `stage.json` of a stage: its slice in place of that of `config` must give the same id.

    unknown: the id depends on files that cannot be read.
    """
    folder = results / stage.name / stage.id
    try:
        record = read_stage_record(folder)
        overlaid = _overlaid(config, restored(record["config"], record.get("reads")))
        own = _derived(overlaid, manifest)[stage.name]
        unknown = unknown or stage.name in _depending(overlaid, manifest)
    except (UserError, ValueError, ValidationError, KeyError, TypeError) as error:
        yield f"{folder / STAGE_FILE}: {error}"
        return
    if own.id != stage.id and not unknown:
        yield f"{folder / STAGE_FILE}: its options give {own.id}"
    for key, value in (("upstream", stage.upstream), ("version", stage.version), ("recipe", stage.recipe)):
        if record.get(key) != value and not (unknown and key == "recipe"):
            yield f"{folder / STAGE_FILE}: {key} {record.get(key)} should be {value}"


def _overlaid(values: Any, sliced: Any) -> Any:
    if not isinstance(values, dict) or not isinstance(sliced, dict) or values.get("kind") != sliced.get("kind"):
        return sliced
    return {**values, **{key: _overlaid(values.get(key), value) for key, value in sliced.items()}}


def job_records(results: Path, stage: str, facts: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a stage's `jobs/*.json`: they must list the files of `reproduce.json`, with their digests."""
    folder = results / stage / facts["id"]
    files: dict[str, Any] = {}
    for file in sorted(folder.glob(f"{JOBS}/*.json")):
        try:
            record = read_record(folder.resolve(), file.stem) or {"outputs": {}}
        except UserError as error:
            yield str(error)
            continue
        files |= {f"{stage}/{facts['id']}/{name}": output for name, output in record["outputs"].items()}
    for name in sorted(files.keys() | facts["files"].keys()):
        if files.get(name) != facts["files"].get(name):
            yield f"{folder / JOBS} and reproduce.json disagree about {results / name}"
            return


def unrecorded(results: Path, stage: str, facts: dict[str, Any]) -> Iterator[str]:
    """Files of a stage that a job may read, although no job recorded them, and damage in those with own checksums."""
    folder = results / stage / facts["id"]
    outputs = {results / name for name in facts["files"]}
    parts = {folder / file.relative_to(folder).parts[0] for file in outputs if file.is_relative_to(folder)}
    for part in sorted(parts):
        if part.is_dir():
            present = (file for file in sorted(part.rglob("*")) if file.is_file() and not file.name.startswith("."))
            yield from (f"{file} is not recorded" for file in present if file not in outputs)
    if stage in TRAINED:
        for checkpoints in (folder / name for name in CHECKPOINTS):
            if checkpoints.is_dir():
                yield from CheckpointFolder(checkpoints).damaged()
        for name in REMEMBERED:
            yield from damaged_shards(folder / name)
        try:
            predicted(folder / PREDICTED)
        except UserError as error:
            yield str(error)


def unchecked(results: Path, folder: Path, facts: dict[str, Any]) -> Iterator[Finding]:
    """What no check looks at in the folders of an ablation and of its stages, such as TensorBoard's events.

    Left out are hidden files, which are locks and times, and stages without records, all of whose files are unknown.
    """
    covered = {folder / name for name in OF_ABLATION}
    folders = [folder]
    for stage, record in facts["stages"].items():
        if not record["files"]:
            continue
        of_stage = results / stage / record["id"]
        prefix = f"{stage}/{record['id']}/"
        parts = {name[len(prefix) :].split("/")[0] for name in record["files"] if name.startswith(prefix)}
        own = (*CHECKPOINTS, *REMEMBERED, PREDICTED) if stage in TRAINED else ()
        covered |= {of_stage / name for name in (*parts, *own, STAGE_FILE, JOBS, MANIFEST)}
        folders.append(of_stage)
    places = []
    for part in filter(Path.is_dir, folders):
        if names := [str(path.relative_to(part)) for path in _others(part, covered)]:
            places.append(f"{', '.join(names)} in {part.relative_to(results)}")
    if places:
        yield Finding("not checked", None, f"{'; '.join(places)}: no result depends on them", counts=False)


def _others(folder: Path, covered: set[Path]) -> Iterator[Path]:
    """Files in a folder that are none of the paths and in none of them; a folder in place of all of its files."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path in covered:
            continue
        if any(part.is_relative_to(path) for part in covered):
            yield from _others(path, covered)
        elif path.is_file() or any(file.is_file() for file in path.rglob("*")):
            yield path
