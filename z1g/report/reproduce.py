"""Records what is needed to reproduce an ablation and to verify its files."""

import json
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.recorded import sha256
from z1g.core.sealed import read_sealed
from z1g.data.manifest import Manifest
from z1g.plan.folder import read_stage_record
from z1g.plan.records import ablation_owner
from z1g.report import clipping
from z1g.report.collect import Ablation, Results, flatten
from z1g.report.cost import cost, stage_cost
from z1g.report.data import NO_LICENSE, objects_by_split

FILE = "reproduce.json"
PLANNED = ("plan.json", "config.json")
MACHINE = ("system", "cpu", "cores", "gpus", "nodes")


def reproduce(tree: Results, ablation: Ablation, objects: int) -> dict[str, Any]:
    """Return the content of `reproduce.json`. Values that no job recorded are None.

    `objects` is the number of sampled objects. `working_folder` is the current one, relative to the results: relative
    paths of the configuration and of meshes start there.
    """
    records = {stage: tree.jobs(stage, identity) for stage, identity in ablation.stages.items()}
    attempts = [
        attempt for stage_records in records.values() for record in stage_records for attempt in record["attempts"]
    ]
    folder = tree.root / "ablations" / ablation.name
    options = flatten(ablation.config)
    return {
        "ablation": ablation.name,
        "description": ablation.description,
        "base": ablation.base,
        "command": _command(ablation),
        "differences": flatten(ablation.differences),
        "seeds": {key: value for key, value in options.items() if key.rpartition(".")[2] == "seed"},
        "pretrained": {
            key: value for key, value in options.items() if key.endswith(("pretrained", "trunk", "weights"))
        },
        "commits": _distinct(attempt["commit"] for attempt in attempts),
        "changed_since_commit": any(attempt["changed"] for attempt in attempts) if attempts else None,
        "lock": _distinct(attempt["lock"] for attempt in attempts),
        "versions": _distinct(attempt["versions"] for attempt in attempts),
        "hardware": _distinct({key: attempt[key] for key in MACHINE} for attempt in attempts),
        "data": _data(tree, ablation),
        **_clipped(tree, ablation),
        "working_folder": os.path.relpath(Path.cwd(), tree.root),
        "costs": cost(tree, ablation.stages, objects).values,
        "planned": {name: sha256(folder / name) for name in PLANNED if (folder / name).is_file()},
        "stages": {
            stage: _stage(tree, stage, ablation.stages[stage], stage_records)
            for stage, stage_records in records.items()
        },
    }


def _command(ablation: Ablation) -> str:
    """The command that makes an ablation again, with its meshes: whether the base has the same is not recorded."""
    data = ablation.config.get("data", {})
    paths = data.get("paths") if data.get("kind") == "meshes" else None
    words = [f"scale={ablation.base}", f"ablations={ablation.name}"]
    if paths:
        listed = json.dumps(paths) if any("," in path for path in paths) else ",".join(paths)
        words.append(f"objects={listed}")
    return f"snakemake --profile local ablation_all --config {shlex.join(words)}"


def _stage(tree: Results, stage: str, identity: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    total = stage_cost(records)
    try:
        version = read_stage_record(tree.folder(stage, identity))["version"]
    except (UserError, KeyError):
        version = None
    files = {f"{stage}/{identity}/{name}": output for record in records for name, output in record["outputs"].items()}
    return {
        "id": identity,
        "version": version,
        "jobs": len(records),
        "seconds": None if total is None else total.seconds,
        "commands": _distinct(" ".join(record["attempts"][-1]["command"]) for record in records)[:1],
        "files": files,
    }


def _data(tree: Results, ablation: Ablation) -> dict[str, Any]:
    """Digest of the manifest, number of objects, also by split, and their licenses."""
    path = tree.folder("ingest", ablation.stages.get("ingest", "")) / "manifest.jsonl"
    try:
        objects = Manifest.load(path).objects
    except OSError:
        return {"manifest": None}
    try:
        splits = objects_by_split(tree, ablation)
    except (OSError, ValueError, TypeError):  # options of another version
        splits = {}
    licenses: dict[str, int] = {}
    for entry in objects:
        licenses[entry.license or NO_LICENSE] = licenses.get(entry.license or NO_LICENSE, 0) + 1
    return {"manifest": sha256(path), "objects": len(objects), "splits": splits, "licenses": licenses}


def _clipped(tree: Results, ablation: Ablation) -> dict[str, str]:
    """What stage 1 has counted of Gaussians that its codes clip, if there are ranges."""
    said = clipping.read(tree.folder("autodecoder", ablation.stages.get("autodecoder", "")))
    return {} if said is None else {"clipped": said}


def _distinct(values: Iterable[Any]) -> list[Any]:
    distinct: list[Any] = []
    for value in values:
        if value is not None and value not in distinct:
            distinct.append(value)
    return distinct


def read(folder: Path) -> dict[str, Any]:
    """Read `reproduce.json` from an ablation's folder. Raises OSError, or ValueError if it is damaged."""
    return read_sealed(folder / FILE, ablation_owner(folder.resolve().name))
