"""The chain with objects of unseen categories: never trained on, measured as a split of their own."""

from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from support.builders import OBJECTS, fill, plan, stage_path
from support.running import run_stages

from z1g.core.files import read_jsonl, write_jsonl
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.report.collect import Results
from z1g.report.summary import summarize
from z1g.stages import autodecoder, codes, fit, infer, metrics, unet
from z1g.stages.autodecoder import held_out, training_scenes

UNSEEN = OBJECTS[1], OBJECTS[3]
"""The first is held out by the list, the second is of the first one's group."""


def listed(root: Path, train_on_test: bool = False, **changes: Any) -> Plan:
    rows: list[dict[str, str]] = [{"path": f"meshes/object{i}.obj"} for i in range(5)]
    rows[1] |= {"held_out": "unseen", "group": "twins"}
    rows[3] |= {"group": "twins"}
    write_jsonl(root / "objects.jsonl", rows)
    data = {"paths": [str(root / "objects.jsonl")], "split": {"train_on_test": train_on_test}}
    return plan(root, n_objects=5, data=data, **changes)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    changes: dict[str, Any] = {"autodecoder": {"codes": {"kind": "optimized"}}, "infer": {"train_objects": 1}}
    planned = listed(tmp_path_factory.mktemp("unseen"), **changes)
    fill(planned)
    run_stages(planned, fit, autodecoder, codes, unet, infer, metrics)
    return planned


@pytest.mark.slow
def test_unseen_objects_are_measured_and_not_trained_on(chain: Plan) -> None:
    with safe_open(stage_path(chain, "autodecoder") / "model" / "codes.safetensors", "pt") as trained:
        assert not set(trained.keys()) & set(UNSEEN)
        assert trained.keys()
    with safe_open(stage_path(chain, "codes") / "codes.safetensors", "pt") as stored:
        assert set(stored.keys()) == set(OBJECTS[:5])
    rows = read_jsonl(stage_path(chain, "metrics") / "metrics.jsonl")
    assert {row["object"] for row in rows if row["split"] == "test_unseen"} == set(UNSEEN)
    assert {row["split"] for row in rows} == {"test", "test_unseen", "train"}
    tree = Results(chain.results)
    found = {row.split: row.n for row in summarize(tree, tree.ablations(["micro"])).merged if row.source == "sampled"}
    assert list(found) == ["test", "test_unseen", "train"]
    assert found["test_unseen"] == 2


@pytest.mark.parametrize("bug", [False, True])
def test_not_even_the_originals_bug_trains_on_unseen_objects(tmp_path: Path, bug: bool) -> None:
    planned = listed(tmp_path, train_on_test=bug)
    fill(planned)
    folder = StageFolder.open(stage_path(planned, "autodecoder"))
    scenes, ids = training_scenes(folder)
    tested = held_out(folder, scenes)
    assert not {*ids, *tested} & set(UNSEEN)
    assert not set(ids) & set(tested)
    assert len({*ids, *tested}) == 3
    assert bool(tested) != bug
