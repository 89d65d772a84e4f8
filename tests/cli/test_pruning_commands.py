"""What `--until`, `prune` and `search` refuse: one line, exit code 2."""

from pathlib import Path

import pytest

from z1g.cli.main import main


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The last line on stderr of a command that ends with exit code 2."""
    try:
        code = main(list(words))
    except SystemExit as end:  # of argparse
        code = int(end.code or 0)
    error = capsys.readouterr().err
    assert code == 2, error
    assert "Traceback" not in error
    return error.splitlines()[-1]


@pytest.mark.parametrize("fraction", ["0", "-0.1", "1.5", "half", "nan"])
def test_a_rung_is_a_fraction(fraction: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "unet", str(tmp_path), f"--until={fraction}")
    assert line.endswith(f"argument --until: {fraction} is not a fraction above 0, up to 1")


def test_only_training_has_rungs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "unrecognized arguments: --until" in refusal(capsys, "codes", str(tmp_path), "--until", "0.5")


def test_an_unknown_study_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "studies/rate").mkdir(parents=True)
    (tmp_path / "studies/rate/prune.json").write_text("{}")
    line = refusal(capsys, "prune", str(tmp_path), "rates", "0.1")
    assert "no study 'rates' with `prune` was planned here" in line
    assert 'did you mean "rate"?' in line
    line = refusal(capsys, "prune", str(tmp_path), "rate", "0.1")
    assert f"{tmp_path}/studies/rate/prune.json is no record of a study; delete it" in line


def test_a_missing_study_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "search", str(tmp_path / "rates.yaml"))
    assert line.startswith(f"z1g search: error: {tmp_path}/rates.yaml: cannot be read as text")
