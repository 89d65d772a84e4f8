"""Comparison of the results of two trainings."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.builders import without_seconds
from workspace import Workspace

from z1g.core.files import read_jsonl


def assert_same(workspace: Workspace, reference: Workspace) -> None:
    """Assert that stage 1 of both is bitwise equal and that there are no partial files."""
    ours, theirs = workspace.stage("autodecoder"), reference.stage("autodecoder")
    assert_close(ours, theirs, "model", weights=0.0, figures=0.0)
    assert not list(workspace.results.rglob("*.tmp"))


def assert_close(ours: Path, theirs: Path, model: str, weights: float, figures: float) -> None:
    """Compare weights with an absolute tolerance and values of the history with a relative one."""
    files = sorted(file.relative_to(theirs) for file in (theirs / model).rglob("*.safetensors"))
    assert files
    for file in files:
        actual, expected = load_file(ours / file), load_file(theirs / file)
        torch.testing.assert_close(actual, expected, atol=weights, rtol=0)
    rows = [without_seconds(read_jsonl(stage / "history.jsonl")) for stage in (ours, theirs)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for actual, expected in zip(*rows, strict=True):
        assert actual == pytest.approx(expected, rel=figures, abs=0)
