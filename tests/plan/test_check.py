"""`z1g plan --check` lists everything that would stop a run, and planning itself refuses what a job would find late."""

import logging
import re
from pathlib import Path

import pytest
from support.paths import CONFIGS

from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.plan.plan import Plan

TRIANGLE = "v 0 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two objects and no ablations, in which z1g is started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(CONFIGS)
    (tmp_path / "ablations").mkdir()
    for name in ("a", "b"):
        write(tmp_path / f"objects/{name}.obj", f"# {name}\n{TRIANGLE if name == 'a' else TRIANGLE[8:] + 'v 9 0 0'}\n")
    write(tmp_path / "one/a.obj", TRIANGLE)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def idea(checkout: Path, name: str, text: str) -> None:
    write(checkout / f"ablations/{name}.yaml", text)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, list[str]]:
    """Exit code, output, and lines of the error of `z1g plan`."""
    code = main(["plan", "--scale", "scratch", *words])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, printed.out, printed.err.removeprefix("z1g plan: error: ").splitlines()


def test_all_findings_of_all_ablations_are_listed_at_once(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    idea(checkout, "good", "data: {paths: [objects]}\n")
    idea(checkout, "typo", "data: {paths: [objects]}\nunet: {condition_dropuot: 0.5}\nsplat: {size: 010}\n")
    idea(checkout, "typos", "data: {paths: [objects]}\nunet: {condition_dropuot: 0.5}\nfit: {seed: -1}\n")
    idea(checkout, "lgm", "data: {paths: [objects]}\nfit:\n  start: {kind: lgm}\n")
    idea(checkout, "overflow", "data: {paths: [objects]}\nunet: {train: {seed: 20000000000000}}\n")
    idea(checkout, "alone", "data:\n  paths: [one]\n  split: {test_fraction: 0.999999}\n")
    idea(checkout, "nowhere", "data: {paths: [gone]}\n")
    idea(checkout, "empty", "data: {paths: [configs]}\n")
    idea(checkout, "cached", "data: {paths: [objects]}\nautodecoder: {codes: {kind: cache}}\n")
    code, out, lines = said(capsys, "--check")
    assert (code, out) == (2, "")
    expected = [
        r"ablations/typo\.yaml:3: 010 has a leading zero",
        r"ablations/typos\.yaml:2: unet\.condition_dropuot: unknown key; did you mean \"condition_dropout\"\?",
        r"ablations/typos\.yaml:3: fit\.seed: expected a number greater than or equal to 0, got -1",
        r"ablations/lgm\.yaml:3: fit\.start\.weights: .* is not a file",
        r"ablations/overflow\.yaml:2: unet\.train\.seed: expected a number less than or equal to 4294967295",
        r"ablations/alone\.yaml:3: data\.split: no training object is left, as all 1 are held out",
        r"ablations/nowhere\.yaml:1: data\.paths: gone: no such file or folder",
        r"ablation empty: data\.paths: configs: the folder has no mesh",
        r"ablations/cached\.yaml:2: autodecoder\.codes\.path: no file is given",
    ]
    for pattern in expected:
        assert sum(bool(re.match(pattern, line)) for line in lines) == 1, pattern
    assert len(lines) == len(expected) + 1, "each once, and where else the jobs could run"
    assert lines[-1].startswith("where jobs run on machines that have these")
    assert not (checkout / "results").exists()


def test_nothing_wrong_is_said_in_one_line(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    idea(checkout, "good", "data: {paths: [objects]}\n")
    assert said(capsys, "--check")[:2] == (0, "nothing stops the 1 ablation\n")
    idea(checkout, "better", "data: {paths: [objects]}\nfit: {seed: 1}\n")
    assert said(capsys, "--check")[:2] == (0, "nothing stops the 2 ablations\n")
    assert not (checkout / "results").exists()


def test_what_other_machines_have_is_a_warning_where_asked(
    checkout: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    idea(checkout, "lgm", "data: {paths: [objects]}\nfit:\n  start: {kind: lgm}\n")
    with caplog.at_level(logging.WARNING):
        assert said(capsys, "--check", "--missing", "warn")[0] == 0
    assert any("lgm.yaml:3: fit.start.weights" in record.getMessage() for record in caplog.records)
    idea(checkout, "wrong", "data: {paths: [objects]}\nsplat: {size: many}\n")
    assert said(capsys, "--check", "--missing", "warn")[2] == [
        'ablations/wrong.yaml:2: splat.size: expected an integer, got "many"'
    ]


def test_check_finds_what_planning_finds(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("data: {paths: [gone]}", "data: {paths: [configs]}", "unet: {x: 1}", "fit: {start: {kind: lgm}}"):
        idea(checkout, "idea", f"{text}\n")
        code, _, lines = said(capsys, "--objects", "objects") if "paths" not in text else said(capsys)
        words = ("--check", "--objects", "objects") if "paths" not in text else ("--check",)
        assert (code, lines) == (2, said(capsys, *words)[2])
    assert said(capsys, "--check", "--ablations", "ideal")[2] == said(capsys, "--ablations", "ideal")[2]


def test_a_list_that_excludes_all_objects_is_refused_as_such(checkout: Path) -> None:
    mesh = next((checkout / "objects").rglob("*.obj"))
    (checkout / "all.csv").write_text(f"path,held_out\n{mesh},unseen\n")
    idea(checkout, "alone", "data:\n  paths: [all.csv]\n")
    with pytest.raises(UserError, match=r"alone\.yaml:2: data: no training object is left, as `held_out` of a list"):
        Plan.load("scratch", None, Path("results"), checkout / "ablations", CONFIGS)


def test_a_split_without_training_objects_is_refused_by_every_plan(checkout: Path) -> None:
    folders = Path("results"), checkout / "ablations", CONFIGS
    idea(checkout, "alone", "data:\n  paths: [one]\n  split: {test_fraction: 0.999999}\n")
    with pytest.raises(UserError, match=r"alone\.yaml:3: data\.split: no training object is left.*lower data\.split"):
        Plan.load("scratch", None, *folders)
    idea(checkout, "alone", "data:\n  paths: [one]\n  split: {test_fraction: 0.999999, train_on_test: true}\n")
    assert list(Plan.load("scratch", None, *folders).ablations) == ["alone"]
    idea(checkout, "alone", "data:\n  paths: [objects]\n  split: {test_fraction: 0.999999}\n")
    assert list(Plan.load("scratch", None, *folders).ablations) == ["alone"], (
        "one of two objects is always for training"
    )
