"""A stage of a finished tree that is undone, killed, and run again."""

import os
import shutil
import signal
from pathlib import Path

from support.killed import Appearance, Ended, Moment, run
from support.same_results import differences
from z1g.core.stages import TRAINED

LONG = os.environ.get("Z1G_ADVERSARIAL") == "long"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143}, signal.SIGINT: {130}}
"""Exit codes after a signal."""


def command(tree: Path, stage: str) -> list[str]:
    """The command of a stage's only or first chunk."""
    (folder,) = (tree / "results" / stage).iterdir()
    words = [stage, str(folder), "--threads", "1", "--gpus", "0"]
    return [*words, "--chunk", "0"] if stage in ("ingest", "fit", "infer") else words


def undone(tree: Path, stage: str, copy: Path) -> Path:
    """A copy of a finished tree without what the first chunk of a stage has made; returns the stage's folder."""
    shutil.copytree(tree / "results", copy / "results")
    (folder,) = (copy / "results" / stage).iterdir()
    kept = ("stage.json", "manifest.jsonl") + (("chunk-00001",) if stage in ("ingest", "fit") else ())
    for path in folder.iterdir():
        if not path.name.startswith(kept):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def killed_and_run_again(tree: Path, stage: str, sent: signal.Signals, at: Moment | Appearance, copy: Path) -> Ended:
    """Everything that holds after a kill and after the same command again; returns how the killed one ended."""
    folder, (original,) = undone(tree, stage, copy), (tree / "results" / stage).iterdir()
    words = command(copy, stage)
    first = run(words, copy, sent, at)
    said = f"{stage} {sent.name} {at}:\n{first.output}"
    # Training that has done its last step is completed all the same. Signs of life are written by time, so that a quick
    # run may end before the moment.
    late = sent == signal.SIGTERM and stage in TRAINED
    codes = ({75, 0} if late else CODES[sent]) if first.reached else {0}
    assert first.code in codes, f"exit code {first.code}: {said}"
    assert "Traceback" not in first.output, said
    if first.code == 0:
        assert differences(folder, original) == [], said
    elif sent != signal.SIGKILL:
        assert first.output.splitlines()[-1].startswith(f"z1g {stage}: "), said
        assert not list(folder.rglob("*.tmp")), said
    left = [name for name in differences(folder, original) if not name.endswith(" is missing") and ".tmp" not in name]
    # A history grows while it is trained.
    assert [name for name in left if name != "history.jsonl differs"] == [], said
    second = run(words, copy)
    assert second.code == 0, second.output
    assert "Traceback" not in second.output, second.output
    assert differences(folder, original) == [], said
    assert not [*copy.rglob("*.tmp"), *folder.glob("progress/*")], said
    return first
