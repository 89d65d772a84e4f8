"""Gaussians that leave the ranges of the attribute images, counted by stage `fit` and shown by the report."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from support.builders import fill, plan, stage_path

from z1g.core.files import read_jsonl, write_jsonl
from z1g.data.scenes import chunk_file
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.report.clipping import of_fits
from z1g.report.collect import Ablation, Results
from z1g.report.data import clipped
from z1g.stages import fit

WIDE: dict[str, Any] = {"start": {"kind": "random_ball", "radius": 0.95}, "steps": 3, "evaluate_every": 3}
"""Fits with Gaussians far from the object."""


def fitted(root: Path, n_objects: int = 4) -> Plan:
    planned = plan(root, n_objects=n_objects, fit=WIDE)
    fill(planned)
    for chunk in range(planned.ablations["micro"].manifest.n_chunks):
        fit.run(StageFolder.open(stage_path(planned, "fit")), chunk=chunk, threads=1)
    return planned


def by_hand(splats: np.ndarray[Any, Any]) -> dict[str, int]:
    """Counts of splatter images [6,14,S,S] in float64: ±0.7, logits -14 to 9, logarithms -10 to -2, all rotations."""
    rows = splats.astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, 14)
    rows = rows[rows[:, 3] > 1 / 255]
    logit, log = np.log(rows[:, 3]) - np.log1p(-rows[:, 3]), np.log(rows[:, 4:7])
    return {
        "drawn": len(rows),
        "position": int((abs(rows[:, :3]) > 0.7).any(axis=1).sum()),
        "opacity": int(((logit < -14) | (logit > 9)).sum()),
        "scale": int(((log < -10) | (log > -2)).any(axis=1).sum()),
        "rotation": 0,
        "rgb": int(((rows[:, 11:] < 0) | (rows[:, 11:] > 1)).any(axis=1).sum()),
    }


def test_the_fit_counts_what_leaves_the_ranges(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "z1g")
    folder = stage_path(fitted(tmp_path), "fit")
    total: dict[str, int] = {}
    for chunk in (0, 1):
        splats = load_file(chunk_file(folder, chunk, "safetensors"))
        rows = read_jsonl(chunk_file(folder, chunk, "jsonl"))
        assert len(rows) == 2
        for row in rows:
            expected = by_hand(splats[row["id"]].numpy())
            assert row["clipped"] == {"attributes": expected}
            total = {name: total.get(name, 0) + n for name, n in expected.items()}
    assert 0 < total["position"] < total["drawn"]
    rows = [row for chunk in (0, 1) for row in read_jsonl(chunk_file(folder, chunk, "jsonl"))]
    share = f"position {100 * total['position'] / total['drawn']:.2g} %"
    assert share in of_fits(rows)["attributes"]
    assert f"4 objects that are drawn ({total['drawn']})" in of_fits(rows)["attributes"]
    assert caplog.text.count("Of the Gaussians of 2 objects") == 2


def test_fits_of_an_earlier_version_are_counted_when_they_are_reused(tmp_path: Path) -> None:
    first = fitted(tmp_path, n_objects=3)
    table = chunk_file(stage_path(first, "fit"), 0, "jsonl")
    counted = read_jsonl(table)
    write_jsonl(table, [{key: value for key, value in row.items() if key != "clipped"} for row in counted])
    second = fitted(tmp_path, n_objects=5)
    assert stage_path(second, "fit") != stage_path(first, "fit")
    again = {row["id"]: row for row in read_jsonl(chunk_file(stage_path(second, "fit"), 0, "jsonl"))}
    for row in counted:
        assert again[row["id"]] == row
        assert row["clipped"]["attributes"]["position"] > 0


def test_the_report_shows_it_to_those_who_use_the_ranges(tmp_path: Path) -> None:
    planned = fitted(tmp_path)
    identity = planned.ablations["micro"].stages["fit"].id

    def ablation(name: str, kind: str) -> Ablation:
        return Ablation(name, "", "micro", {"fit": identity}, {"representation": {"kind": kind}}, {})

    tree = Results(tmp_path / "results")
    (sentence,) = clipped(tree, [ablation("a", "attributes"), ablation("b", "mosaic")])
    assert "Of the Gaussians of 4 objects" in sentence
    assert "default range of representation 'attributes'" in sentence
    assert clipped(tree, [ablation("b", "mosaic")]) == []
