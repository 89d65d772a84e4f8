"""Names of runs on the command line."""

from pathlib import Path

import pytest
import yaml
from support.paths import CONFIGS, ROOT

from z1g.cli.config import named
from z1g.cli.main import main, parser_for
from z1g.config.catalog import Catalog
from z1g.config.entries import Entries
from z1g.core.errors import UserError
from z1g.plan import runs


@pytest.fixture
def ablations(tmp_path: Path) -> Path:
    """A study that builds on another ablation."""
    (tmp_path / "first.yaml").write_text("splat: {size: 32}\n")
    (tmp_path / "study.yaml").write_text("base: first\nsweep: {grid: {infer.guidance: [1, 2.5]}}\nseeds: {unet: 2}\n")
    return tmp_path


def comments(text: str) -> list[str]:
    return [line.removeprefix("# ") for line in text.splitlines() if line.startswith("#")]


def test_config_shows_what_a_run_builds_on_and_its_options(ablations: Path) -> None:
    text = named("study@guidance=2.5@seed=1", "scratch", ablations, CONFIGS)
    assert comments(text) == [
        f"study: {ablations}/study.yaml",
        f"builds on first: {ablations}/first.yaml",
        f"builds on scratch: {CONFIGS}/scratch.yaml",
        "run study@guidance=2.5@seed=1",
        "point: infer.guidance = 2.5",
        "replicate 1 of unet",
    ]
    (run,) = Catalog(Entries.of_folder(ablations), "scratch", CONFIGS).select(["study@guidance=2.5@seed=1"])[0]
    assert yaml.safe_load(text) == run.experiment.model_dump(mode="json")


def test_config_lists_the_runs_of_a_file_and_shows_what_they_have_in_common(ablations: Path) -> None:
    text = named("study", "scratch", ablations, CONFIGS)
    names = [f"study@guidance={g}@seed={s}" for g in ("1", "2.5") for s in (0, 1)]
    assert comments(text)[-1] == f"4 runs: {', '.join(names)}"
    assert yaml.safe_load(text)["splat"]["size"] == 32
    assert comments(named("first", "scratch", ablations, CONFIGS))[-1].startswith("builds on scratch")


@pytest.mark.parametrize(
    ("name", "words"),
    [("studi", 'did you mean "study"?'), ("study@seed=0", "means 2 runs; name one of them: study@guidance=1@seed=0")],
)
def test_config_refuses_what_is_no_run(ablations: Path, name: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        named(name, "scratch", ablations, CONFIGS)
    assert words in str(caught.value)


@pytest.mark.parametrize("verb", ["tables", "report"])
def test_names_are_read_from_a_file(tmp_path: Path, verb: str) -> None:
    names = [f"study@lr={i}e-4,guidance=2@seed=1" for i in range(5000)]
    (tmp_path / "runs.txt").write_text("".join(f"{name}\n" for name in names))
    words = [str(tmp_path), "--ablations", f"@{tmp_path}/runs.txt", "--out", str(tmp_path / "out")]
    assert runs.named(parser_for(verb).parse_args(words).ablations) == names


def test_a_damaged_file_of_names_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "runs.txt"
    runs.write_names(file, ["a", "b@seed=1"])
    assert runs.named(["x", f"@{file}"]) == ["x", "a", "b@seed=1"]
    lines = file.read_text().splitlines(keepends=True)
    for damaged in ("".join(lines[1:]), "".join(lines).replace("seed=1", "seed=0"), "", "\n"):
        file.write_text(damaged)
        with pytest.raises(UserError, match=r"checksum|names no run"):
            runs.named([f"@{file}"])


def test_config_shows_a_scale(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["config", "show", "--scale", "scratch"]) == 0
    shown, own = (yaml.safe_load(text) for text in (capsys.readouterr().out, Path("configs/scratch.yaml").read_text()))
    assert shown["model"]["kind"] == own["model"]["kind"] == "scratch"
    assert shown["data"]["chunk_size"] == own["data"]["chunk_size"]
    assert main(["config", "show", "--scale", "scrach"]) == 2
    assert 'did you mean "scratch"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["config", "schema", "--scale", "scratch"], "--scale is of `z1g config show` and of names"),
        (["config", "write", "--scale", "scratch"], "--scale is of `z1g config show` and of names"),
        (["config", "encoder_mix", "--ablation", "a.yaml"], "--ablation FILE is of `z1g config show`"),
        (["plan", "--cost", "--write"], "--write and --budget are of a plan"),
        (["plan", "--check", "--budget", "3"], "--write and --budget are of a plan"),
        (["plan", "--check", "--cost", "10"], "--check and --cost are two questions"),
        (["infer", "f", "--chunk", "0", "--model", "base"], "--model has no effect here: give photographs and --model"),
        (["infer", "f", "--chunk", "0", "--refine"], "--refine has no effect here"),
        (["infer", "f", "--chunk", "0", "--elevation", "0"], "--elevation has no effect here"),
        (["infer", "f", "--chunk", "0", "--with", "b.png@90"], "--with has no effect here"),
        (["infer", "a.png", "--gpus", "1"], "--gpus has no effect here"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
