"""Damaged weights and checkpoints through the command line: one clear line instead of untrained layers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.builders import fill, forget_checksums, plan, stage_path
from support.photographs import disc, saved
from torch import Tensor

from z1g.cli.main import main

pytestmark = pytest.mark.slow

State = dict[str, Tensor]
WEIGHTS = "diffusion_pytorch_model.safetensors"
FILES = {
    "heads": ("heads.safetensors", "geometry_out.weight"),
    "conditioning": (f"conditioning/{WEIGHTS}", "prompt"),
    "vae": (f"vae/{WEIGHTS}", "decoder.conv_in.weight"),
    "unet": (f"unet/{WEIGHTS}", "conv_in.weight"),
    "vision_encoder": ("vision_encoder/model.safetensors", "visual_projection.weight"),
}


def missing(state: State, name: str) -> None:
    del state[name]


def renamed(state: State, name: str) -> None:
    state["renamed"] = state.pop(name)


def misshapen(state: State, name: str) -> None:
    state[name] = torch.zeros(3, 5)


CHANGES: list[tuple[Callable[[State, str], None], str]] = [
    (missing, "1 missing ({name})"),
    (renamed, "1 missing ({name}); 1 extra (renamed)"),
    (misshapen, "1 of another shape ({name} [3, 5] instead of "),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`results/ablations/micro` of a trained micro model."""
    root = tmp_path_factory.mktemp("micro")
    planned = plan(root)
    fill(planned)
    for stage in ("autodecoder", "codes", "unet"):
        assert main([stage, str(stage_path(planned, stage)), "--gpus", "0"]) == 0
    return root / "results" / "ablations" / "micro"


@pytest.fixture
def damaged(run: Path, tmp_path: Path) -> Path:
    """A copy of the results to be damaged; returns `results/ablations/micro`."""
    shutil.copytree(run.parents[1], tmp_path / "results")
    return tmp_path / "results" / "ablations" / "micro"


def infer(run: Path, out: Path) -> int:
    return main(["infer", str(saved(out.parent, disc())), "--run", str(run), "--out", str(out), "--size", "32"])


def stage(run: Path, name: str) -> Path:
    (folder,) = (run.parents[1] / name).iterdir()
    return folder


def only_error(capsys: pytest.CaptureFixture[str], verb: str) -> str:
    """The line with the error, which ends the output."""
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    lines = [line for line in errors.splitlines() if ": error: " in line]
    assert len(lines) == 1, errors
    assert lines[0] == errors.splitlines()[-1]
    assert lines[0].startswith(f"z1g {verb}: error: ")
    return lines[0]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
@pytest.mark.parametrize("part", FILES)
def test_infer_names_file_and_tensor(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str,
    change: Callable[[State, str], None], words: str,
) -> None:  # fmt: skip
    file, name = FILES[part]
    pipeline = stage(damaged, "unet") / "pipeline"
    state = load_file(pipeline / file)
    change(state, name)
    save_file(state, pipeline / file, {"format": "pt"})
    forget_checksums(pipeline.parent)  # as a folder of an earlier version
    assert infer(damaged, tmp_path / "out") == 2
    error = only_error(capsys, "infer")
    assert str(pipeline / part) in error
    assert words.format(name=name) in error
    assert "delete" in error, "says what to do"
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize("content", [b"", b"garbage", None], ids=["emptied", "overwritten", "deleted"])
def test_infer_names_unreadable_files(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, content: bytes | None
) -> None:
    pipeline = stage(damaged, "unet") / "pipeline"
    file = pipeline / FILES[part][0]
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    assert infer(damaged, tmp_path / "out") == 2
    error = only_error(capsys, "infer")
    assert str(pipeline / part) in error
    assert "delete" in error, "says what to do"


@pytest.mark.parametrize("verb", ["autodecoder", "unet"])
@pytest.mark.parametrize("how", ["one_missing", "empty"])
def test_a_checkpoint_that_lost_tensors_is_not_resumed(
    damaged: Path, capsys: pytest.CaptureFixture[str], verb: str, how: str
) -> None:
    folder = stage(damaged, verb)
    checkpoints = sorted(folder.rglob("step-*.pt"))
    assert checkpoints
    for file in checkpoints:
        state = torch.load(file, weights_only=True)
        lost = next(iter(state["objective"]))
        if how == "empty":
            state["objective"].clear()
        else:
            del state["objective"][lost]
        torch.save(state, file)
    capsys.readouterr()
    assert main([verb, str(folder), "--gpus", "0"]) == 2
    error = only_error(capsys, verb)
    assert str(checkpoints[-1]) in error
    assert "missing" in error
    assert lost in error or how == "empty", "four of many names"
    assert f"delete {checkpoints[-1].parent}" in error
