"""The stages of a set, from a plan or from the records that an earlier plan left in the results folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.core.names import did_you_mean
from z1g.core.recorded import STAGE_FILE
from z1g.core.stages import STAGE_NAMES
from z1g.plan.folder import read_stage_record
from z1g.plan.records import read_plan
from z1g.plan.runs import FOLDER, planned_runs

if TYPE_CHECKING:
    from z1g.config.tree import Experiment
    from z1g.plan.plan import Plan

Key = tuple[str, str]
Source = Callable[[], "tuple[Experiment, int] | None"]
"""Reads the configuration of a run and its number of objects."""


@dataclass(frozen=True)
class StageNode:
    """A stage of a set: its chunks, what each of its jobs asks for, and the runs that use it.

    `gpus` counts those of all nodes. `pruned`: all runs that use it were pruned. `note`: why its record is unreadable.
    `experiment` returns the configuration of one of the runs and its number of objects, None if they cannot be read.
    """

    stage: str
    id: str
    upstream: dict[str, str]
    n_chunks: int
    gpus: int = 0
    threads: int = 1
    runs: tuple[str, ...] = ()
    pruned: bool = False
    note: str = ""
    experiment: Source = field(default=lambda: None, compare=False, repr=False)

    @property
    def key(self) -> Key:
        """Name and id."""
        return self.stage, self.id


def nodes_of_plan(plan: Plan) -> list[StageNode]:
    """All stages of a plan, in the order of the chain, then of the runs."""
    nodes: dict[Key, StageNode] = {}
    for name, planned in plan.ablations.items():
        pruned = _pruned(plan.results / "ablations" / name)
        source = partial(_both, planned.ablation.experiment, len(planned.manifest.objects))
        for stage in planned.stages.values():
            asked = stage.resources
            nodes[stage.key] = _with_run(
                nodes.get(stage.key),
                StageNode(
                    *stage.key,
                    stage.upstream,
                    stage.n_chunks,
                    asked.gpus * getattr(asked, "nodes", 1),
                    asked.threads,
                    (name,),
                    pruned,
                    experiment=source,
                ),
            )
    return _in_order(nodes.values())


def _both(experiment: Experiment, objects: int) -> tuple[Experiment, int]:
    return experiment, objects


def nodes_on_disk(results: Path, names: Iterable[str] | None = None) -> list[StageNode]:
    """All stages that the runs in a results folder name in their `plan.json`, or those of some runs, studies or sets.

    Raises UserError if nothing was planned there, for an unknown name, or if a `plan.json` is damaged.
    """
    runs = {name: read_plan(results / FOLDER / name) for name in planned_runs(results)}
    if not runs:
        raise UserError(f"{results}: no ablation was planned here; name another folder with --results, or a --scale")
    if names is not None:
        runs = _chosen(runs, list(names))
    nodes: dict[Key, StageNode] = {}
    for name, record in runs.items():
        experiment = cache(partial(_experiment, results, name, record["stages"].get("ingest", "")))
        for stage, identity in record["stages"].items():
            if stage in STAGE_NAMES:
                node = _node(results, stage, identity, name, bool(record.get("pruned")), experiment)
                nodes[node.key] = _with_run(nodes.get(node.key), node)
    return _in_order(nodes.values())


def _chosen(runs: dict[str, dict[str, Any]], names: list[str]) -> dict[str, dict[str, Any]]:
    """Runs by their names, by the study that they are part of, or by their set."""
    labels = {name: {name, record.get("study"), record.get("set")} for name, record in runs.items()}
    known = {label for own in labels.values() for label in own if label}
    for name in names:
        if name not in known:
            raise UserError(f'no run or set "{name}" was planned here{did_you_mean(name, known)}')
    return {name: record for name, record in runs.items() if labels[name] & set(names)}


def _node(results: Path, stage: str, identity: str, run: str, pruned: bool, experiment: Source) -> StageNode:
    folder = results / stage / identity
    try:
        record = read_stage_record(folder)
        asked = record["resources"]
        return StageNode(
            stage,
            identity,
            dict(record["upstream"]),
            int(record["n_chunks"]),
            int(asked.get("gpus", 0)) * int(asked.get("nodes", 1)),
            int(asked.get("threads", 1)),
            (run,),
            pruned,
            experiment=experiment,
        )
    except (UserError, TypeError, KeyError, ValueError, AttributeError):
        note = f"{folder / STAGE_FILE} is missing, unreadable or damaged"
        return StageNode(stage, identity, {}, 1, runs=(run,), pruned=pruned, note=note)


def _experiment(results: Path, run: str, ingest: str) -> tuple[Experiment, int] | None:
    from z1g.config.tree import Experiment

    manifest = results / "ingest" / ingest / "manifest.jsonl"
    try:
        objects = sum(1 for line in manifest.read_bytes().splitlines() if line) - 1
        return Experiment.model_validate(read_json(results / "ablations" / run / "config.json")), objects
    except (OSError, ValueError):
        return None


def _with_run(known: StageNode | None, node: StageNode) -> StageNode:
    if known is None:
        return node
    return replace(known, runs=(*known.runs, *node.runs), pruned=known.pruned and node.pruned)


def _in_order(nodes: Iterable[StageNode]) -> list[StageNode]:
    """Upstream stages first; within a stage the order of the runs."""
    return sorted(nodes, key=lambda node: STAGE_NAMES.index(node.stage))


def _pruned(folder: Path) -> bool:
    """Whether the record of a run says so; one that is missing or damaged is written again by the plan."""
    with contextlib.suppress(UserError):
        return bool(read_plan(folder).get("pruned"))
    return False
