"""The folder of one ablation: links, mean metrics and TensorBoard events."""

import csv
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from support.report_tree import METRICS, build
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.io_wrapper import GetLogdirSubdirectories
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from z1g.stages import ablation

CONFIG: dict[str, Any] = {"unet": {"lr": 1e-5, "ema": None}, "infer": {"steps": 75, "views": [1, 2]}}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    other = {**CONFIG, "infer": {"steps": 20, "views": [1]}}
    build(tmp_path, {"a": {"seed": 1, "stage1": "s1", "gain": 0, "config": CONFIG},
                     "b": {"seed": 2, "stage1": "s1", "gain": 1, "config": other}})  # fmt: skip
    for stage in ("autodecoder/s1", "unet/un-a", "unet/un-b"):
        writer = EventFileWriter(str(tmp_path / stage / "tb"))
        writer.add_event(Event(wall_time=1.0, step=1))
        writer.close()
    return tmp_path


def test_links_are_relative_and_replaced(tree: Path) -> None:
    ablation.run(tree, "a")
    link = tree / "ablations/a/stages/unet"
    assert link.readlink() == Path("../../../unet/un-a")
    assert (link / "history.jsonl").is_file()
    link.unlink()
    link.symlink_to("elsewhere")
    ablation.run(tree, "a")
    assert (link / "history.jsonl").is_file()
    assert len(list((tree / "ablations/a/tb").iterdir())) == 1


def test_a_link_that_cannot_be_made_is_named_and_leaves_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's error names the folder to which it would lead. What a link would replace may be a folder."""
    link = tree / "ablations/a/stages/unet"
    link.mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as caught:
        ablation.run(tree, "a")
    assert caught.value.filename == str(link)
    link.rmdir()

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(target), None, str(source))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(OSError, match="Read-only") as caught:
        ablation.run(tree, "a")
    assert caught.value.filename == str(link.with_name("ingest"))
    assert not [path.name for path in link.parent.iterdir() if path.name.endswith(".tmp")]


def test_tensorboard_lists_each_run_once_by_ablation(tree: Path) -> None:
    for name in ("a", "b"):
        ablation.run(tree, name)
    root = tree / "ablations"
    folders = sorted(str(Path(folder).relative_to(root)) for folder in GetLogdirSubdirectories(str(root)))
    assert folders == [f"{n}/{p}" for n in ("a", "b") for p in ("stages/autodecoder/tb", "stages/unet/tb", "tb")]


def test_hparams_and_final_metrics_read_back(tree: Path) -> None:
    ablation.run(tree, "b")
    events = EventAccumulator(str(tree / "ablations/b/tb"))
    events.Reload()
    assert events.Scalars("test/psnr")[0].value == pytest.approx(20.75)
    assert set(events.Tags()["scalars"]) == {f"{s}/{m}" for s in ("test", "train") for m in METRICS if m != "st_lpips"}
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    start = metadata.parse_session_start_info_plugin_data(content)
    values = dict(start.hparams)
    assert set(values) == {"base", "infer.steps", "infer.views"}
    assert values["infer.steps"].number_value == 20
    assert values["infer.views"].string_value == "[1]"
    assert start.group_name == "b"


def test_mean_metrics_of_one_ablation(tree: Path) -> None:
    ablation.run(tree, "a")
    with (tree / "ablations/a/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["ablation"] for row in rows} == {"a"}
    assert next(r["mean"] for r in rows if (r["source"], r["split"]) == ("fitted", "test"))[:5] == "33.75"


def test_ablation_without_measurements_still_gets_its_links(tree: Path) -> None:
    (tree / "metrics/me-a/metrics.jsonl").unlink()
    (tree / "metrics/me-a/metrics.json").unlink()
    ablation.run(tree, "a")
    assert (tree / "ablations/a/metrics.csv").read_text().count("\n") == 1
