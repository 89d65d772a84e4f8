"""The folder of one ablation: links to its stages, mean metrics, model card and TensorBoard summary."""

import json
import time
from pathlib import Path
from typing import Any

from z1g.core.files import atomic_file, atomic_folder, write_text
from z1g.core.sealed import write_sealed
from z1g.plan.records import ablation_owner, read_plan
from z1g.report.card import model_card
from z1g.report.collect import Ablation, Results, differences, flatten
from z1g.report.reproduce import FILE, reproduce
from z1g.report.summary import Row, summary_rows
from z1g.report.tables import csv_text


def run(results: Path, name: str) -> None:
    """Write `stages/<stage>` links, the model card, `reproduce.json`, `metrics.csv` and `tb/` to the ablation's folder.

    `tensorboard --logdir results/ablations` follows the links, so it lists `<name>/stages/<stage>/tb` for both trained
    stages and `<name>/tb` with the ablation's options and metrics of samples. Further links would list runs twice.
    Replicates are one line of HParams, with the means of their metrics.
    """
    tree = Results(results)
    (ablation,) = tree.ablations([name])
    folder = results / "ablations" / name
    for stage, identity in ablation.stages.items():
        _link(folder / "stages" / stage, Path("../../..") / stage / identity)
    measured = tree.measurements(ablation.stages["metrics"]) if "metrics" in ablation.stages else None
    rows = summary_rows(name, measured) if measured else []
    sampled = {row["object"] for row in measured.rows if row["source"] == "sampled"} if measured else set()
    facts = reproduce(tree, ablation, len(sampled))
    write_sealed(folder / FILE, facts, ablation_owner(name))
    write_text(folder / "MODEL_CARD.md", model_card(ablation, facts, measured, rows))
    write_text(folder / "metrics.csv", csv_text(rows))
    with atomic_folder(folder / "tb") as temporary:
        _write_events(temporary, _identity(tree, name)[0], _options(tree, ablation), rows)


def _link(link: Path, target: Path) -> None:
    with atomic_file(link, durable=False) as temporary:
        try:
            temporary.symlink_to(target)
        except OSError as error:  # It names the target.
            raise OSError(error.errno, error.strerror, str(temporary)) from error


def _identity(tree: Results, name: str) -> tuple[str, dict[str, Any]]:
    """The arm that a run belongs to, which is the run itself unless it is a replicate, and its point of a sweep."""
    plan = read_plan(tree.root / "ablations" / name)
    return plan.get("arm") or name, plan.get("point") or {}


def _options(tree: Results, ablation: Ablation) -> dict[str, Any]:
    """Values for the HParams dashboard: the run's point of a sweep, options that the ablation sets, and those that
    differ between planned ablations.

    TensorBoard shows the options of one replicate for all of them, so those in which they differ are left out.
    """
    planned = tree.ablations(tree.planned())
    arm, point = _identity(tree, ablation.name)
    replicates = [other.config for other in planned if _identity(tree, other.name)[0] == arm]
    keys = flatten(ablation.differences) | differences([other.config for other in planned])
    values = {**flatten(ablation.config), **point}
    own = sorted({*keys, *point} - differences(replicates).keys())
    return {"base": ablation.base, **{key: _plain(values[key]) for key in own if key in values}}


def _plain(value: Any) -> bool | float | str:
    """Convert to a type that TensorBoard supports: booleans, numbers and strings."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _write_events(folder: Path, group: str, options: dict[str, Any], rows: list[Row]) -> None:
    """Write options and metrics. Runs of the same group are one line, so their options must be the same."""
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb  # type: ignore[import-untyped]
    from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

    now = time.time()
    figures = {
        f"{row.split}/{metric}": figure.value
        for row in rows
        if row.source == "sampled"
        for metric, figure in row.figures.items()
    }
    events = [
        Event(wall_time=now, file_version="brain.Event:2"),
        Event(wall_time=now, summary=hparams_pb(options, trial_id=group, start_time_secs=now)),
        *(
            Event(wall_time=now, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
            for tag, value in figures.items()
        ),
    ]
    # Use a new file name each time, since TensorBoard only reads what is appended to a known file.
    with (folder / f"events.out.tfevents.{int(now)}.z1g").open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()
