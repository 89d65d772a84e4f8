"""Finds what is compared: a run, all runs of an arm, or a file of measurements, with costs, ids and configuration."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.names import counted, did_you_mean
from z1g.core.recorded import identity_of, stage_owner
from z1g.core.sealed import Damaged, read_sealed
from z1g.report.collect import KEYS, Ablation, Measurements, Results
from z1g.report.cost import cost
from z1g.report.left_out import left_out_of, left_out_text
from z1g.report.peers import FOLDER, PREFIX, RECORD, Peer, cost_texts, costs, coverage_texts, read_peer
from z1g.report.replicates import Arm, Replicate, Replicates, arms

DIGESTED = ("ingest", "autodecoder", "unet", "infer")


@dataclass(frozen=True)
class Contender:
    """One result: a run, or all runs of an arm.

    `metrics_ids`, `stages` and `digests` list the distinct ones of all runs; `digests` has one digest per stage, of all
    outputs that its jobs recorded. `costs` are means over runs; `measured` and `config` are those of the first run.
    """

    name: str
    measured: Measurements
    replicates: Replicates
    metrics_ids: str
    stages: dict[str, str]
    config: dict[str, Any]
    costs: dict[str, float | None]
    digests: dict[str, str]
    notes: tuple[str, ...] = ()
    is_peer: bool = False
    """Whether it is another system: it may lack objects, and is then compared on those that it has."""

    @property
    def measurements(self) -> list[Measurements]:
        """Measurements of all runs."""
        return [measured for member in self.replicates.members for measured in member.measured]


def find_contender(tree: Results, target: str) -> Contender:
    """Find a result by arm, ablation name or folder, metrics id, another system's name, or path of `metrics.jsonl` or
    its folder.

    Raises UserError if there is no such result or if it has not been measured.
    """
    target = _named(tree, target)
    names = tree.arms().get(target) or ([target] if target in tree.planned() else [])
    if names:
        return _of_arm(tree, target, arms(tree.ablations(names))[0])
    path = Path(target)
    for folder in (path.parent if path.is_file() else path, tree.root / FOLDER / target.removeprefix(PREFIX)):
        if (folder / RECORD).is_file():
            return _of_peer(read_peer(folder).sampled())
    for folder in (path.parent if path.is_file() else path, tree.folder("metrics", target)):
        if (folder / "metrics.jsonl").is_file():
            return _joined(target, [_run(Results(_root(folder, tree)), target, folder, None)], None, ())
    ids = [file.parent.name for file in tree.root.glob("metrics/*/metrics.jsonl")]
    if budget := left_out_of(tree, target):
        raise UserError(f"{target} has no results. {left_out_text(budget)} A larger budget= trains more of them")
    peers = [file.parent.name for file in tree.root.glob(f"{FOLDER}/*/{RECORD}")]
    hint = did_you_mean(target, [*tree.arms(), *tree.planned(), *ids, *peers])
    raise UserError(f"{target}: no ablation or metrics id in {tree.root}, and no file metrics.jsonl{hint}")


def _named(tree: Results, target: str) -> str:
    """The name of the run that a folder `<results>/ablations/<name>` is of; other targets as they are."""
    path = Path(target)
    return path.name if path.is_dir() and path.resolve().parent == (tree.root / "ablations").resolve() else target


def _of_peer(peer: Peer) -> Contender:
    """Another system, whose outputs stand beside samples."""
    members = Replicates((Replicate(None, (peer.measured,)),))
    notes = (*coverage_texts([peer]), *cost_texts([peer]))
    return Contender(
        peer.label, peer.measured, members, f"{FOLDER}/{peer.name}", {}, {}, costs(peer.record), {}, notes, is_peer=True
    )


@dataclass(frozen=True)
class _Run:
    """One run of a contender."""

    name: str
    measured: Measurements
    metrics_id: str
    stages: dict[str, str]
    config: dict[str, Any]
    costs: dict[str, float | None]
    digests: dict[str, str]


def _of_arm(tree: Results, target: str, arm: Arm) -> Contender:
    """All measured runs of an arm. Raises UserError if there are none."""
    if not arm.runs:
        raise UserError(f"every run of {target} was pruned; results of unfinished trainings are not compared")
    runs, unmeasured = {}, []
    for ablation in arm.runs:
        if "metrics" not in ablation.stages:
            raise UserError(f"ablation {ablation.name} has no metrics stage")
        folder = tree.folder("metrics", ablation.stages["metrics"])
        if len(arm.runs) > 1 and not (folder / "metrics.jsonl").is_file():
            unmeasured.append(ablation.name)
        else:
            runs[ablation.name] = _run(tree, ablation.name, folder, ablation)
    budget = left_out_of(tree, target)
    if not runs:
        why = f" {left_out_text(budget)}" if budget else ""
        raise UserError(
            f"{target} has not been measured yet: none of its {counted(len(arm.runs), 'run')} has a metrics.jsonl.{why}"
        )
    replicates = arm.replicates({name: run.measured for name, run in runs.items()})
    notes = [
        f"{name} is left out: not measured yet" for name in unmeasured if not budget or name not in budget.left_out
    ]
    notes += [left_out_text(budget)] if budget else []
    notes += [f"{name} is left out: {why}" for name, why in replicates.pruned.items()]
    return _joined(target, list(runs.values()), replicates, notes)


def _joined(name: str, runs: list[_Run], replicates: Replicates | None, notes: Sequence[str]) -> Contender:
    """One contender of several runs."""

    def distinct(values: list[dict[str, str]]) -> dict[str, str]:
        return {key: ", ".join(dict.fromkeys(v[key] for v in values if key in v)) for key in values[0]}

    costs: dict[str, float | None] = {}
    for key in runs[0].costs:
        known = [value for run in runs if (value := run.costs.get(key)) is not None]
        costs[key] = sum(known) / len(known) if len(known) == len(runs) else None
    members = replicates or Replicates((Replicate(None, (runs[0].measured,)),))
    return Contender(
        name, runs[0].measured, members, ", ".join(dict.fromkeys(run.metrics_id for run in runs)),
        distinct([run.stages for run in runs]), runs[0].config, costs, distinct([run.digests for run in runs]),
        tuple(notes),
    )  # fmt: skip


def _run(tree: Results, name: str, folder: Path, ablation: Ablation | None) -> _Run:
    if not (folder / "metrics.jsonl").is_file():
        raise UserError(f"{name} has not been measured yet: {folder}/metrics.jsonl does not exist")
    measured = tree.measurements_in(folder)
    bad = next((row for row in measured.rows if not {*KEYS[:4]} <= set(row)), None)
    if not measured.rows or bad is not None:
        raise UserError(f"{folder}/metrics.jsonl: no rows, or rows without {', '.join(KEYS[:4])}")
    stages = ablation.stages if ablation else _stages(folder)
    config = ablation.config if ablation else _config(tree, stages)
    sampled = {row["object"] for row in measured.rows if row["source"] == "sampled"}
    costs = cost(tree, stages, len(sampled)).values if stages else {}
    digests = {
        stage: digest for stage in DIGESTED if stage in stages and (digest := _digest(tree, stage, stages[stage]))
    }
    return _Run(name, measured, folder.name, stages, config, costs, digests)


def _digest(tree: Results, stage: str, identity: str) -> str | None:
    """One digest of all files that a stage's jobs recorded, or None if they recorded none."""
    outputs = {
        name: output["sha256"] for record in tree.jobs(stage, identity) for name, output in record["outputs"].items()
    }
    return hashlib.sha256(json.dumps(outputs, sort_keys=True).encode()).hexdigest()[:10] if outputs else None


def _root(folder: Path, tree: Results) -> Path:
    """The results folder of a metrics folder `<results>/metrics/<id>`."""
    return folder.parent.parent if folder.parent.name == "metrics" else tree.root


def _stages(folder: Path) -> dict[str, str]:
    try:
        record = read_sealed(folder / "stage.json", stage_owner(identity_of(folder)))
        return {**record["upstream"], record["stage"]: record["id"]}
    except Damaged as error:
        raise UserError(f"{folder}/stage.json cannot be used: {error}; start `snakemake` again") from error
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _config(tree: Results, stages: dict[str, str]) -> dict[str, Any]:
    """The merged configuration slices of all stages, or an empty dict if one cannot be read."""
    merged: dict[str, Any] = {}
    for stage, identity in stages.items():
        try:
            folder = tree.folder(stage, identity)
            _join(merged, read_sealed(folder / "stage.json", stage_owner(identity))["config"])
        except Damaged as error:
            raise UserError(f"{folder}/stage.json cannot be used: {error}; start `snakemake` again") from error
        except (OSError, ValueError, KeyError, TypeError):
            return {}
    return merged


def _join(target: dict[str, Any], source: dict[str, Any]) -> None:
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _join(target[key], value)
        else:
            target[key] = value
