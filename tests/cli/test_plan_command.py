"""What `z1g plan` says about the objects of a run."""

from pathlib import Path

import pytest
from support.paths import CONFIGS

from z1g.cli.main import main
from z1g.core.files import write_jsonl

UNSEEN = 2
"""Objects that the list below holds out."""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with seven different objects, and a list of all in which two are never trained on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(CONFIGS)
    for folder in ("ablations", "objects"):
        (tmp_path / folder).mkdir()
    for i in range(7):
        (tmp_path / f"objects/o{i}.obj").write_text(f"v {1 + i} 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n")
    write_jsonl(
        tmp_path / "l.jsonl",
        [{"path": f"objects/o{i}.obj", **({"held_out": "unseen"} if i < UNSEEN else {})} for i in range(7)],
    )
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: {paths: [objects], split: {test_fraction: 0}}", "0 of 7 objects"),
        ("data: {paths: [l.jsonl], split: {test_fraction: 0}}", "2 of 7 objects (2 of unseen categories)"),
        # Of the five other objects, two folds hold out three and two.
        ("folds: 2\ndata: {paths: [l.jsonl]}",
         "5 of 7 objects (2 of unseen categories), 4 of 7 objects (2 of unseen categories)"),
        ("folds: 3\ndata: {paths: [objects]}", "3 of 7 objects, 2 of 7 objects"),
        ("seeds: 3\ndata: {paths: [objects], split: {folds: 7, train_on_test: true}}",
         "1 of 7 objects (1 trained on, too)"),
        ("sweep: {grid: {data.split.train_objects: [1, 2]}}\ndata: {paths: [l.jsonl], split: {test_fraction: 0}}",
         "2 of 7 objects (2 of unseen categories)"),
    ],
)  # fmt: skip
def test_held_out_objects_are_counted(
    workplace: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    (workplace / "ablations/idea.yaml").write_text(text + "\n")
    assert main(["plan", "--scale", "scratch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "held out" in line] == [f"held out: {expected}"]
    assert lines[-2].startswith("7 objects, ")
