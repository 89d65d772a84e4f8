"""One ablation's folder: links to what it shares with others, its mean metrics and its TensorBoard summary."""

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

from z1g.core.files import atomic_folder, write_json, write_text
from z1g.report.card import model_card
from z1g.report.collect import Ablation, Results, differences, flatten
from z1g.report.reproduce import FILE, reproduce
from z1g.report.summary import Row, summary_rows
from z1g.report.tables import csv_text


def run(results: Path, name: str) -> None:
    """Fill `results/ablations/<name>/`: `stages/<stage>` links, model card, `reproduce.json`, `metrics.csv` and `tb/`.

    `tensorboard --logdir results/ablations` follows the links, so it lists `<name>/stages/<stage>/tb` for both trained
    stages and `<name>/tb` with the ablation's options and sampled metrics; more links would show a run twice.
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
    write_json(folder / FILE, facts)
    write_text(folder / "MODEL_CARD.md", model_card(ablation, facts, measured, rows))
    write_text(folder / "metrics.csv", csv_text(rows))
    with atomic_folder(folder / "tb") as temporary:
        _write_events(temporary, name, _options(tree, ablation), rows)


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{link.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.symlink_to(target)
    os.replace(temporary, link)


def _options(tree: Results, ablation: Ablation) -> dict[str, Any]:
    """The ablation's value of every option that it changes or in which planned ablations differ: HParams' columns."""
    planned = tree.ablations(tree.planned())
    keys = flatten(ablation.differences) | differences([other.config for other in planned])
    values = flatten(ablation.config)
    return {"base": ablation.base, **{key: _plain(values[key]) for key in sorted(keys) if key in values}}


def _plain(value: Any) -> bool | float | str:
    """TensorBoard knows booleans, numbers and words only."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _write_events(folder: Path, name: str, options: dict[str, Any], rows: list[Row]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb  # type: ignore[import-untyped]
    from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

    now = time.time()
    figures = {
        f"{row.split}/{metric}": found.value
        for row in rows
        if row.source == "sampled"
        for metric, found in row.figures.items()
    }
    events = [
        Event(wall_time=now, file_version="brain.Event:2"),
        Event(wall_time=now, summary=hparams_pb(options, trial_id=name, start_time_secs=now)),
        *(
            Event(wall_time=now, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
            for tag, value in figures.items()
        ),
    ]
    # A new name each time: TensorBoard reads a file once, from where it left off.
    with (folder / f"events.out.tfevents.{int(now)}.z1g").open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()
