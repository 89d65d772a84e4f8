"""What it takes to make an ablation again, and to check that its files are still what they were."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from z1g.core.files import read_json
from z1g.data.manifest import Manifest
from z1g.jobs.records import sha256
from z1g.report.collect import Ablation, Results, flatten
from z1g.report.cost import cost, spent

FILE = "reproduce.json"
PLANNED = ("plan.json", "config.json")
MACHINE = ("system", "cpu", "cores", "gpus", "nodes")


def reproduce(tree: Results, ablation: Ablation, objects: int) -> dict[str, Any]:
    """The content of `reproduce.json`; `objects` is how many were sampled. What no job recorded is null."""
    records = {stage: tree.jobs(stage, identity) for stage, identity in ablation.stages.items()}
    attempts = [attempt for found in records.values() for record in found for attempt in record["attempts"]]
    folder = tree.root / "ablations" / ablation.name
    options = flatten(ablation.config)
    return {
        "ablation": ablation.name,
        "description": ablation.description,
        "base": ablation.base,
        "command": f"snakemake --profile local ablation_all --config scale={ablation.base} ablations={ablation.name}",
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
        "costs": cost(tree, ablation.stages, objects).values,
        "planned": {name: sha256(folder / name) for name in PLANNED if (folder / name).is_file()},
        "stages": {stage: _stage(tree, stage, ablation.stages[stage], found) for stage, found in records.items()},
    }


def _stage(tree: Results, stage: str, identity: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    total = spent(records)
    try:
        version = read_json(tree.folder(stage, identity) / "stage.json")["version"]
    except (OSError, ValueError, KeyError, TypeError):
        version = None
    files = {f"{stage}/{identity}/{name}": found for record in records for name, found in record["outputs"].items()}
    return {
        "id": identity,
        "version": version,
        "jobs": len(records),
        "seconds": None if total is None else total.seconds,
        "commands": _distinct(" ".join(record["attempts"][-1]["command"]) for record in records)[:1],
        "files": files,
    }


def _data(tree: Results, ablation: Ablation) -> dict[str, Any]:
    """The list of objects, its digest and whose they are."""
    path = tree.folder("ingest", ablation.stages.get("ingest", "")) / "manifest.jsonl"
    try:
        objects = Manifest.load(path).objects
    except (OSError, ValueError, TypeError, KeyError):
        return {"manifest": None}
    licenses: dict[str, int] = {}
    for entry in objects:
        licenses[entry.license or "not recorded"] = licenses.get(entry.license or "not recorded", 0) + 1
    return {"manifest": sha256(path), "objects": len(objects), "licenses": licenses}


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value is not None and value not in found:
            found.append(value)
    return found


def read(folder: Path) -> dict[str, Any]:
    """What `reproduce` made of an ablation. Raises OSError, ValueError."""
    content: dict[str, Any] = read_json(folder / FILE)
    return content
