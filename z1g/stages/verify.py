"""Verifies an ablation's results: identities, digests, tables, and metrics of a sample of objects."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from z1g.core.errors import UserError
from z1g.core.names import counted
from z1g.core.progress import track
from z1g.core.recorded import sha256
from z1g.data.manifest import Manifest
from z1g.plan.folder import StageFolder
from z1g.plan.runs import NAMES_FILE, named
from z1g.report import reproduce
from z1g.report.card import model_card
from z1g.report.collect import KEYS, Results
from z1g.report.summary import summary_rows
from z1g.report.tables import csv_text
from z1g.stages import verify_records
from z1g.stages.verify_records import Finding

if TYPE_CHECKING:
    from z1g.stages.measuring import Measure

NOT_NOW = ", None now"
RELATIVE, ABSOLUTE = 5e-3, 1e-3
"""Tolerances for recomputed numbers, since other rasterizers and devices round differently."""


def verify(folder: Path, sample: int, seed: int) -> Iterator[Finding]:
    """Verify `results/ablations/<name>`, cheapest checks first.

    Metrics of `sample` random objects, drawn with `seed`, are computed again. Last comes what is not checked. Raises
    UserError if `folder` is not an ablation's folder.
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
    with contextlib.chdir(working_folder(results, facts)):
        for finding in _on_disk(results, folder, facts, stages):
            intact = intact and finding.holds is not False
            yield finding
        if sample and intact:
            yield from _numbers(results, facts, sample, seed)
        elif sample:
            yield Finding("numbers", None, "not computed again, since other checks failed")
    yield from verify_records.unchecked(results, folder, facts)


def working_folder(results: Path, facts: dict[str, Any]) -> Path:
    """The folder at which relative paths of meshes and of the configuration start.

    It is the one that the ablation was made in, relative to the results, which may have moved together; otherwise the
    current folder, or the one above the results, whichever has the first mesh.
    """
    recorded = Path(os.path.normpath(results / facts.get("working_folder", "..")))
    candidates = [folder for folder in (recorded, Path.cwd(), *results.parents) if folder.is_dir()]
    try:
        manifest = Manifest.load(results / "ingest" / facts["stages"]["ingest"]["id"] / "manifest.jsonl")
        source = next(entry.file for entry in manifest.objects if not Path(entry.file).is_absolute())
    except (OSError, UserError, KeyError, StopIteration):
        return candidates[0]
    return next((folder for folder in candidates if (folder / source).exists()), candidates[0])


def _on_disk(
    results: Path, folder: Path, facts: dict[str, Any], stages: dict[str, dict[str, Any]]
) -> Iterator[Finding]:
    yield from verify_records.planned(folder, facts)
    yield verify_records.objects(results, facts)
    yield from verify_records.identities(results, folder, facts)
    yield from _files(results, facts, stages)
    yield from _names(results)
    yield from _derived(results, folder, facts)


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
        bad += verify_records.job_records(results, stage, facts["stages"][stage])
        bad += verify_records.unrecorded(results, stage, facts["stages"][stage])
        yield Finding(stage, not bad, "; ".join(bad) or f"{counted(len(files), 'file')} as recorded")


def _names(results: Path) -> Iterator[Finding]:
    """Check the list of runs from which tables and the report are made; earlier versions have none."""
    file = results / NAMES_FILE
    if not file.exists():
        return
    try:
        names = named([f"@{file}"])
    except UserError as error:
        yield Finding(NAMES_FILE, False, str(error))
        return
    yield Finding(NAMES_FILE, True, f"names {counted(len(names), 'run')}")


def _derived(results: Path, folder: Path, facts: dict[str, Any]) -> Iterator[Finding]:
    """Check that the ablation's table and model card follow from the measured rows and from `reproduce.json`."""
    tree = Results(results)
    try:
        (ablation,) = tree.ablations([folder.name])
        measured = tree.measurements(ablation.stages["metrics"])
        rows = summary_rows(folder.name, measured)
        made = {"metrics.csv": csv_text(rows), "MODEL_CARD.md": model_card(ablation, facts, measured, rows)}
    except (OSError, UserError, ValueError, KeyError, TypeError) as error:
        yield Finding("metrics.csv", False, f"cannot be computed: {error}")
        return
    for name, text in made.items():
        try:
            same = (folder / name).read_text(encoding="utf-8") == text
        except (OSError, ValueError):
            same = False
        what = "follows from the rows" if same else f"{folder / name} does not follow from the measured rows"
        yield Finding(name, same, what)


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
        differences = [
            (metric, text)
            for kind, rows in (("metrics", measured.views[start[0] :]), ("objects", measured.objects[start[1] :]))
            for row in rows
            for metric, text in _differences(row, recorded[kind].get(_key(row), {}))
        ]
        yield _finding(name, differences, measured.measure)


def _finding(name: str, differences: list[tuple[str, str]], measure: Measure) -> Finding:
    """Differences of numbers, or that some could not be computed here, such as those that need a mesh."""
    reasons = {**measure.missing, **{metric: gaps[name] for metric, gaps in measure.gaps.items() if name in gaps}}
    bad = [text for metric, text in differences if not (metric in reasons and text.endswith(NOT_NOW))]
    unknown = sorted({metric for metric, _ in differences}) if differences and not bad else []
    detail = (
        f"{counted(len(bad), 'number')} differ{'s' * (len(bad) == 1)}, e.g. {bad[0]}" if bad else "all numbers agree"
    )
    if unknown:
        detail = f"{unknown[0]} cannot be computed here: {reasons[unknown[0]]}"
    return Finding(f"numbers of {name}", False if bad else None if unknown else True, detail)


def _by_key(file: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return {_key(row): row for row in map(json.loads, lines)}


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("object", "split", "source", "view"))


def _differences(row: dict[str, Any], recorded: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Metrics whose values differ, with the differences in words."""
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
            yield metric, f"{metric} of {where}: {recorded_value} recorded, {value} now"
