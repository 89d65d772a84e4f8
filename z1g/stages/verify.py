"""Verifies an ablation's results: identities, digests, tables, and metrics of a sample of objects."""

import json
import math
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from z1g.config.resolve import Ablation as Resolved
from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.core.progress import track
from z1g.data.manifest import Manifest
from z1g.core.recorded import sha256
from z1g.plan import neutral
from z1g.plan.folder import StageFolder
from z1g.plan.identity import planned_stages
from z1g.plan.stages import STAGES
from z1g.report import reproduce
from z1g.report.collect import KEYS, Results
from z1g.report.summary import summary_rows
from z1g.report.tables import csv_text

RELATIVE, ABSOLUTE = 5e-3, 1e-3
"""Tolerances for recomputed numbers, since other rasterizers and devices round differently."""


@dataclass(frozen=True)
class Finding:
    """One check: its subject, whether it holds (None if it could not be made), and details."""

    what: str
    holds: bool | None
    detail: str


def verify(folder: Path, sample: int, seed: int) -> Iterator[Finding]:
    """Verify `results/ablations/<name>`, cheapest checks first.

    Metrics of `sample` random objects, drawn with `seed`, are computed again. Raises UserError if `folder` is not an
    ablation's folder.
    """
    if folder.parent.name != "ablations" or not (folder / "plan.json").is_file():
        raise UserError(f"{folder} is not an ablation's folder; give results/ablations/<name>")
    file = folder / reproduce.FILE
    try:
        facts = reproduce.read(folder)
        stages = {stage: dict(record["files"]) for stage, record in facts["stages"].items()}
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist; the rule `ablation` writes it after stage `metrics`") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield Finding(reproduce.FILE, False, f"{file} cannot be read: {error}")
        return
    results, intact = folder.parent.parent, True
    for finding in _on_disk(results, folder, facts, stages):
        intact = intact and finding.holds is not False
        yield finding
    if sample and intact:
        yield from _numbers(results, facts, sample, seed)
    elif sample:
        yield Finding("numbers", None, "not computed again, since other checks failed")


def _on_disk(
    results: Path, folder: Path, facts: dict[str, Any], stages: dict[str, dict[str, Any]]
) -> Iterator[Finding]:
    yield from _planned(folder, facts)
    yield _identities(results, folder, facts)
    yield from _files(results, facts, stages)
    yield _table(results, folder)


def _planned(folder: Path, facts: dict[str, Any]) -> Iterator[Finding]:
    for name in reproduce.PLANNED:
        recorded = facts.get("planned", {}).get(name)
        file, detail = folder / name, "as recorded"
        try:
            if not file.is_file() or sha256(file) != recorded:
                detail = f"{file} differs from the record in reproduce.json"
        except OSError as error:
            detail = f"{file} cannot be read: {error.strerror}"
        yield Finding(name, detail == "as recorded", detail)


def _identities(results: Path, folder: Path, facts: dict[str, Any]) -> Finding:
    """Check that configuration and objects still give the stages' ids."""
    what = "identities"
    try:
        ids = read_json(folder / "plan.json")["stages"]
        other = [
            f"{name} has version {facts['stages'][name]['version']}, this z1g has {spec.version}"
            for name, spec in STAGES.items()
            if facts["stages"][name]["version"] != spec.version
        ]
        if other:
            return Finding(what, None, f"made by another version of z1g: {'; '.join(other)}")
        manifest_file = results / "ingest" / ids["ingest"] / "manifest.jsonl"
        if sha256(manifest_file) != facts["data"]["manifest"]:
            return Finding(what, False, f"{manifest_file} differs from reproduce.json")
        experiment = Experiment.model_validate(neutral.recorded().completed(read_json(folder / "config.json")))
        derived = planned_stages(Resolved("", "", "", {}, experiment), Manifest.load(manifest_file))
    except (OSError, ValueError, ValidationError, KeyError, TypeError) as error:
        return Finding(what, False, f"plan, configuration or manifest cannot be read: {error}")
    wrong = [
        f"{name} {ids.get(name)} should be {stage.id}" for name, stage in derived.items() if ids.get(name) != stage.id
    ]
    wrong += [
        f"reproduce.json has {name} {facts['stages'][name]['id']}"
        for name in derived
        if facts["stages"][name]["id"] != ids.get(name)
    ]
    if wrong:
        return Finding(what, False, "configuration and objects do not give these ids: " + "; ".join(wrong))
    return Finding(what, True, f"{len(derived)} stage ids follow from the configuration and the objects")


def _files(results: Path, facts: dict[str, Any], stages: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """Check digests of all outputs, stage by stage."""
    for stage, files in stages.items():
        if not files:
            yield Finding(stage, None, "there are no job records, so its files cannot be checked")
            continue
        bad = []
        for name, recorded in track(files.items(), f"verify {stage}", len(files)):
            path = Path(os.path.normpath(results / name))
            try:
                if not path.is_relative_to(os.path.normpath(results)) or not path.is_file():
                    bad.append(f"{path} does not exist")
                elif path.stat().st_size != recorded["bytes"] or sha256(path) != recorded["sha256"]:
                    bad.append(f"{path} has changed")
            except OSError as error:
                bad.append(f"{path} cannot be read: {error.strerror}")
        yield Finding(
            stage, not bad, "; ".join(bad) or f"{len(files)} file{'' if len(files) == 1 else 's'} as recorded"
        )


def _table(results: Path, folder: Path) -> Finding:
    """Check that the ablation's table follows from the measured rows."""
    tree = Results(results)
    try:
        (ablation,) = tree.ablations([folder.name])
        rows = summary_rows(folder.name, tree.measurements(ablation.stages["metrics"]))
        same = (folder / "metrics.csv").read_text(encoding="utf-8") == csv_text(rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Finding("metrics.csv", False, f"cannot be computed: {error}")
    return Finding("metrics.csv", same, "follows from the rows" if same else f"{folder}/metrics.csv does not follow "
                   "from the measured rows")  # fmt: skip


def _numbers(results: Path, facts: dict[str, Any], sample: int, seed: int) -> Iterator[Finding]:
    """Compute the metrics of some objects again from the samples on disk, and compare all numbers."""
    from z1g.stages.metrics import Measured

    folder = StageFolder.open(results / "metrics" / facts["stages"]["metrics"]["id"])
    recorded = {name: _by_key(folder.path / f"{name}.jsonl") for name in ("metrics", "objects")}
    names = sorted({(key[0], key[1]) for key in recorded["metrics"]})
    chosen = random.Random(seed).sample(names, min(sample, len(names)))  # noqa: S311
    measured = Measured(folder)
    for name, split in track(chosen, "recompute metrics", len(chosen)):
        start = len(measured.views), len(measured.objects)
        measured.add(name, split)
        bad = [
            text
            for kind, rows in (("metrics", measured.views[start[0] :]), ("objects", measured.objects[start[1] :]))
            for row in rows
            for text in _differences(row, recorded[kind].get(_key(row), {}))
        ]
        detail = f"{len(bad)} numbers differ, e.g. {bad[0]}" if bad else "all numbers agree"
        yield Finding(f"numbers of {name}", not bad, detail)


def _by_key(file: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return {_key(row): row for row in map(json.loads, lines)}


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("object", "split", "source", "view"))


def _differences(row: dict[str, Any], recorded: dict[str, Any]) -> Iterator[str]:
    for metric, value in row.items():
        recorded_value = recorded.get(metric)
        if metric in KEYS or (value is None and recorded_value is None):
            continue
        if (
            value is None
            or recorded_value is None
            or not math.isclose(value, recorded_value, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        ):
            view = f", view {row['view']}" if "view" in row else ""
            where = row["source"] + view
            yield f"{metric} of {where}: {recorded_value} recorded, {value} now"
