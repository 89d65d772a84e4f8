"""Whether two trainings ended alike."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.builders import without_seconds
from workspace import Workspace

from z1g.core.files import read_jsonl


def assert_same(workspace: Workspace, undisturbed: Workspace) -> None:
    """Stage 1 of both to the bit, and nothing half-written."""
    ours, theirs = workspace.stage("autodecoder"), undisturbed.stage("autodecoder")
    assert_close(ours, theirs, "model", weights=0.0, figures=0.0)
    assert not list(workspace.results.rglob("*.tmp"))


def assert_close(ours: Path, theirs: Path, model: str, weights: float, figures: float) -> None:
    """Weights within an absolute distance, figures of the history within a relative one."""
    files = sorted(file.relative_to(theirs) for file in (theirs / model).rglob("*.safetensors"))
    assert files
    for file in files:
        one, other = load_file(ours / file), load_file(theirs / file)
        torch.testing.assert_close(one, other, atol=weights, rtol=0)
    rows = [without_seconds(read_jsonl(stage / "history.jsonl")) for stage in (ours, theirs)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=figures, abs=0)
