"""Mistakes on the command line: one clear line, exit code 2, no traceback, and nothing written."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.builders import fill, plan, stage_path
from support.forked_snakemake import snakemake
from support.gaussians import gaussians
from support.killed import run
from support.paths import ROOT

import z1g
from z1g.cli.infer import require
from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.core.names import counted, did_you_mean
from z1g.gaussians import files as splat_files
from z1g.meshes.listing import find_objects
from z1g.plan.plan import Plan

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must end with exit code 2 and one line on stderr after argparse's usage; returns the line."""

    def run(*words: str | Path) -> str:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # of argparse
            code = int(end.code or 0)
        error = capsys.readouterr().err
        assert code == 2, error
        assert "Traceback" not in error
        return error.splitlines()[-1]

    return run


@pytest.fixture
def ply(tmp_path: Path) -> Path:
    splat_files.write(tmp_path / "a.ply", gaussians(20))
    return tmp_path / "a.ply"


@pytest.fixture
def micro(tmp_path: Path) -> Plan:
    return plan(tmp_path)


def content(folder: Path) -> dict[str, bytes | None]:
    """All files and folders below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


# Paths


@pytest.mark.parametrize(
    "words",
    [
        ["mesh", ""],
        ["export", "", "--out", "b.ply"],
        ["export", "a.ply", "--out", ""],
        ["view", ""],
        ["list", "meshes", "--out", ""],
        ["infer", "", "--run", "."],
        ["infer", "a.png", "--run", ""],
        ["infer", "a.png", "--run", ".", "--out", ""],
        ["plan", "--results", ""],
        ["status", "--results", ""],
        ["status", "--html", ""],
        ["verify", ""],
        ["fit", "", "--chunk", "0"],
        ["report", ".", "--ablations", "a", "--out", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "the path is empty" in refused(*words)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("n", "words"), [(0, "0 objects"), (1, "1 object"), (2, "2 objects"), (1234567, "1,234,567 objects")]
)
def test_numbers_have_nouns_in_their_form(n: int, words: str) -> None:
    assert counted(n, "object") == words


def test_a_misspelled_command_is_told_the_nearest(refused: Refused) -> None:
    assert refused("infre", "photo.png") == 'z1g: error: there is no command "infre"; did you mean "infer"?'
    assert 'no command "photo.png"; valid: ablation, app, autodecoder' in refused("photo.png")


def test_an_empty_name_is_no_model(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.json").write_text("{}")
    Path("a.png").touch()
    assert "--model: the value is empty; give one (a model's folder" in refused("infer", "a.png", "--model", "")
    assert "--model: the value is empty; give one (models to ch" in refused("app", "--model", "", "--no-browser")
    with pytest.raises(UserError, match="an empty name is neither a folder"):
        require("")
    assert "the path is empty" in refused("pack", "", "--out", "a")


def test_paths_without_a_file_name(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (".", "/", ".."):
        assert "unknown extension" in refused("mesh", path)


@pytest.mark.parametrize("place", ["/proc/x/b.ply", "/dev/null/b.ply", "file/b.ply", f"{'n' * 300}.ply", "folder.ply"])
def test_export_to_impossible_places(refused: Refused, ply: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(ply.parent)
    Path("file").write_text("")
    Path("folder.ply/inside").mkdir(parents=True)
    before = content(ply.parent)
    message = refused("export", ply, "--out", place)
    assert message.startswith("z1g export: error: ")
    assert any(part in message for part in (place.split("/")[-1], place.rsplit("/", 1)[0])), message
    assert content(ply.parent) == before


@pytest.mark.parametrize("verb", ["mesh", "film", "export"])
@pytest.mark.parametrize("place", ["file/b", f"{'n' * 300}", "folder", "/dev/null/b"])
def test_places_are_looked_at_before_the_work(
    refused: Refused, ply: Path, monkeypatch: pytest.MonkeyPatch, verb: str, place: str
) -> None:
    def work(*_: object) -> None:
        raise AssertionError("work for nothing")

    monkeypatch.setattr("z1g.surface.build.build", work)
    monkeypatch.setattr("z1g.render.video.save_frames", work)
    monkeypatch.chdir(ply.parent)
    Path("file").write_text("")
    for ending in (".glb", ".webp"):
        Path(f"folder{ending}").mkdir()
    before = content(ply.parent)
    message = refused(verb, ply, "--out", place + (".webp" if verb == "film" else ".glb"))
    assert place.split("/b")[0] in message
    assert content(ply.parent) == before


def test_a_file_is_not_converted_to_itself(refused: Refused, ply: Path) -> None:
    """What the file's format or other tools have beside activated Gaussians would be lost."""
    before = ply.read_bytes()
    (ply.parent / "link.ply").symlink_to(ply)
    for out in (ply, ply.parent / "link.ply"):
        assert f"--out {out} is the file to convert" in refused("export", ply, "--out", out)
    assert ply.read_bytes() == before


def test_paths_that_begin_with_a_dash(ply: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ply.parent)
    ply.rename("-a.ply")
    asked: list[tuple[Path, Path]] = []
    monkeypatch.setattr("z1g.cli.mesh.main", lambda verb, words: asked.append((words.splats, words.out)))
    assert main(["export", "./-a.ply", "--out=-b.glb"]) == 0
    assert asked == [(Path("-a.ply"), Path("-b.glb"))]


@pytest.mark.parametrize("verb", ["mesh", "view", "film"])
def test_a_folder_of_splats_is_called_one(refused: Refused, ply: Path, verb: str) -> None:
    assert refused(verb, ply.parent).endswith("this is a folder: name the files in it")


def test_a_folder_that_is_no_run_needs_no_card(refused: Refused, tmp_path: Path) -> None:
    message = refused("pack", tmp_path, "--out", tmp_path / "model")
    assert message.endswith("neither results/ablations/<name> nor results/infer/<id>")


def test_generated_files_are_written_in_the_repository_only(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    assert refused("config", "write").endswith("there is no folder docs here; go to the root of the repository")
    assert content(tmp_path) == {"configs": None}


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "z1g.__version__"
    assert (end.value.code, capsys.readouterr().out) == (0, f"z1g {z1g.__version__}\n")


@pytest.mark.parametrize("place", ["/proc/x/b.jsonl", "file/b.jsonl", f"{'n' * 300}.jsonl"])
def test_list_to_impossible_places(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro: Plan, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert refused("list", "meshes", "--out", place).startswith("z1g list: error: ")


@pytest.mark.parametrize("place", ["/proc/x", "file", "file/out", "n" * 300])
def test_plan_into_impossible_results(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    monkeypatch.chdir(_workspace(tmp_path))
    Path("file").write_text("")
    message = refused(
        "plan", "--scale", "scratch", "--objects", "meshes", "--results", place, "--missing", "warn", "--write"
    )
    assert place[:200] in message


# Verbs of stages


def test_a_folder_without_stage_json_stays_as_it_is(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for verb in ("ingest", "fit", "infer"):
        assert "no stage.json here" in refused(verb, tmp_path / "photos", "--chunk", "0")
    for verb in ("autodecoder", "codes", "unet", "metrics"):
        assert "no stage.json here" in refused(verb, tmp_path / "photos")
    assert not any((tmp_path / "photos").iterdir())


ROWS = '{"stage": "fit", "id": "a", "recipe": "", "n_chunks": 2, "upstream": {"ingest": "a"}, "config": {}}'


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"stage": "fit"}', '{"stage": "fit", "n_chunks": "2"}', "\xff",
     ROWS, ROWS.replace('{"ingest": "a"}', "[1]"), ROWS.replace("{}", "[1]")],
)  # fmt: skip
def test_a_damaged_stage_json(refused: Refused, micro: Plan, text: str) -> None:
    folder = stage_path(micro, "fit")
    (folder / "stage.json").write_text(text, encoding="latin1")
    before = content(folder)
    assert f"{folder}/stage.json cannot be read" in refused("fit", folder, "--chunk", "0")
    assert content(folder) == before


@pytest.mark.parametrize("verb", ["ingest", "fit", "infer"])
@pytest.mark.parametrize("chunk", ["99", "-1", "2"])
def test_chunks_that_do_not_exist(refused: Refused, micro: Plan, verb: str, chunk: str) -> None:
    folder = stage_path(micro, verb)
    before = content(folder)
    n = 1 if verb == "infer" else 2
    assert f"--chunk {chunk}: {folder} has {n} chunks" in refused(verb, folder, "--chunk", chunk)
    assert content(folder) == before


def test_a_verb_on_the_folder_of_another_stage(refused: Refused, micro: Plan) -> None:
    folder = stage_path(micro, "fit")
    before = content(folder)
    message = refused("ingest", folder, "--chunk", "0")
    assert message.endswith(f"{folder} is a folder of stage fit, not of ingest; give results/ingest/<id>")
    assert "is a folder of stage fit, not of unet" in refused("unet", folder)
    assert content(folder) == before


@pytest.mark.parametrize("option", ["--threads -1", "--threads 999999999", "--gpus -1", "--nodes 0", "--nodes x"])
def test_impossible_resources(refused: Refused, micro: Plan, option: str) -> None:
    assert "is not a number from" in refused("fit", stage_path(micro, "fit"), "--chunk", "0", *option.split())


def test_outputs_of_another_folder(refused: Refused, micro: Plan, tmp_path: Path) -> None:
    """They would be read in full for their digests."""
    message = refused("fit", stage_path(micro, "fit"), "--chunk", "0", "--outputs", tmp_path / "x")
    assert message.endswith(f"--outputs {tmp_path}/x: it is not in {stage_path(micro, 'fit')}")


@pytest.mark.slow
def test_a_read_only_stage_folder_and_unreadable_files(micro: Plan, tmp_path: Path) -> None:
    """In a process without root's right to ignore permissions."""
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if without and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    fill(micro)
    fit, file = stage_path(micro, "fit"), tmp_path / "a.ply"
    splat_files.write(file, gaussians(20))
    file.chmod(0)
    fit.chmod(0o555)

    def run(*words: str | Path) -> str:
        command = [*without, sys.executable, "-m", "z1g", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        return str(done.stderr.splitlines()[-1])

    assert f"{fit}/.turns: permission denied" in run("fit", fit, "--chunk", "0")
    assert f"{file} cannot be read: Permission denied" in run("export", file, "--out", tmp_path / "b.ply")
    fit.chmod(0o755)
    (fit / "stage.json").chmod(0)
    assert f"{fit}/stage.json cannot be read" in run("fit", fit, "--chunk", "0")


# Numbers and lists


def test_numbers_out_of_range(refused: Refused, tmp_path: Path, ply: Path) -> None:
    assert "-1 is not a whole number of at least 0" in refused("verify", tmp_path, "--sample", "-1")
    assert "0 is not a whole number of at least 1" in refused("plan", "--cost", "0")
    assert "is not a number from 1 to 65535" in refused("view", ply, "--port", "70000")


def test_lists_of_nothing(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_workspace(tmp_path))
    with zipfile.ZipFile("empty.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert "empty.zip: there is no mesh in it" in refused("list", "empty.zip", "--out", "a.jsonl")
    assert "paths: the value is empty; give one (folders, globs" in refused("list", "", "--out", "a.jsonl")
    assert "paths: the value is empty; give one" in refused("list", "meshes", "", "--out", "a.jsonl")
    with pytest.raises(UserError, match="a path is empty"):
        find_objects(["meshes", ""])
    monkeypatch.setattr("z1g.cli.near_duplicates.shapes_of", None)  # which takes minutes
    assert "nowhere: no such file or folder" in refused("list", "meshes", "--against", "nowhere", "--out", "a.jsonl")
    plain = "o a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    Path("gray").mkdir()
    Path("gray/a.obj").write_text(plain)
    without = refused("list", "gray", "--colored", "--out", "a.jsonl")
    assert without.endswith("gray: without those of one plain color, nothing is left of 1 object")
    assert not Path("a.jsonl").exists()
    assert "--objects: the value is empty" in refused(
        "plan", "--scale", "scratch", "--objects", "", "--missing", "warn"
    )
    assert "no ablations are named" in refused("plan", "--scale", "scratch", "--ablations")


def _workspace(folder: Path) -> Path:
    """A folder with configurations, an ablation and meshes."""
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "ablations").mkdir()
    (folder / "ablations/one.yaml").write_text("description: made up\n")
    (folder / "meshes").mkdir(exist_ok=True)
    for i in range(4):
        (folder / "meshes" / f"{i}.obj").write_text(f"v {i} 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n")
    return folder


# Names


@pytest.mark.slow
def test_file_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """In processes, whose output streams are strict about encodings: one as a user starts it, and forks."""
    odd = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(odd)
    splat_files.write(Path(os.fsdecode(odd + b"/a\xff.ply")), gaussians(20))
    with open(odd + b"/m\xff.obj", "w") as file:
        file.write("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    words = [b"export", odd + b"/a\xff.ply", b"--out", odd + b"/b\xff.spz"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable.encode(), b"-m", b"z1g", *words], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"b\\udcff.spz" in done.stdout
    assert os.path.getsize(odd + b"/b\xff.spz") > 0

    def forked(*words: bytes, code: int) -> None:
        ended = run([os.fsdecode(word) for word in words], tmp_path)
        assert "Traceback" not in ended.output, ended.output
        assert ended.code == code, ended.output

    forked(b"list", odd, b"--out", odd + b"/l\xff.jsonl", code=0)
    forked(b"mesh", odd + b"/none\xff.ply", code=2)
    forked(b"fit", odd, b"--chunk", b"0", code=2)
    forked(b"verify", odd, code=2)


def test_an_argument_with_a_line_feed_is_one_line(refused: Refused, micro: Plan) -> None:
    message = refused("compare", "a\nb\x1b[31m", "--results", micro.results)
    assert message.startswith("z1g compare: error: a\\nb\\x1b[31m: no ablation")


def test_an_error_of_the_system_without_a_path(refused: Refused, ply: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise OSError("a library's own\nmessage")

    monkeypatch.setattr("z1g.gaussians.files.write", fail)
    message = refused("export", ply, "--out", ply.with_name("b.ply"))
    assert message == "z1g export: error: a library's own message"


def test_more_memory_than_there_is(refused: Refused, ply: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception, *_: Any) -> None:
        raise error

    of_torch = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
    for error in (MemoryError(), RuntimeError(of_torch), RuntimeError("CUDA out of memory. Tried to\nallocate 9 GiB")):
        monkeypatch.setattr("z1g.cli.export.main", partial(fail, error))
        line = refused("export", ply, "--out", "b.spz")
        assert line.startswith("z1g export: error: there is not enough memory; end other programs, or choose")
    monkeypatch.setattr("z1g.cli.export.main", partial(fail, RuntimeError("a fault of ours")))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main(["export", str(ply), "--out", "b.spz"])


@pytest.mark.slow
def test_results_that_are_empty_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--config results=` reads as None, which is no folder's name."""
    workspace = _workspace(tmp_path)
    shutil.copy(ROOT / "Snakefile", workspace)
    shutil.copytree(ROOT / "workflow", workspace / "workflow", ignore=shutil.ignore_patterns("objects"))
    (workspace / "FILE").write_text("")
    before = sorted(workspace.iterdir())
    for option, message in {
        "results=": "--config results=: it is empty",
        "objects=": "--config objects=: it is empty",
        "results=FILE": "results folder FILE: FILE is a file",
        "results=FILE/x": "results folder FILE/x: FILE is a file",
        "results=/proc/x": "/proc/x cannot be written",
    }.items():
        words = ["--profile", "workflow/profiles/local", "--config", "scale=scratch", "missing=warn", "objects=meshes"]
        done = snakemake([*words, option], workspace)
        assert done.returncode == 2, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("z1g: error: ")]
        assert message in line
        assert "Traceback" not in done.stderr, done.stderr
        assert [path for path in sorted(workspace.iterdir()) if path.name != ".snakemake"] == before


def test_paths_that_lead_to_themselves(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    words = ("corpus", "convert", "megaglest", tmp_path, "--out", tmp_path / "loop", "--processes", "1")
    assert refused(*words).endswith("loop is a loop of symbolic links")


def test_valid_names_are_listed_once() -> None:
    assert did_you_mean("x", ["micro", "other", "micro"]) == "; valid: micro, other"
    assert did_you_mean("x", []) == "; there are none"


def test_an_empty_root_is_not_the_current_folder(refused: Refused, tmp_path: Path) -> None:
    """As of an unset shell variable: meshes could read all files here."""
    said = refused("list", ROOT / "workflow/objects", "--root", "", "--out", tmp_path / "a.jsonl")
    assert "--root: the value is empty; give one" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["no table", "[]", '{"rows": 3}'])
def test_a_table_of_figures_that_bench_did_not_write_is_refused(refused: Refused, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert "not what --out of `z1g bench scaling` wrote" in refused("bench", "scaling", "--table", tmp_path / "a.json")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("bench statistics --objects 1000000000000", "--objects: numbers end at 8192"),
        ("bench scaling --seconds nan", "nan is not a number from 0 to a million"),
        ("plan --cost 1000000000000", "1000000000000 is too large"),
    ],
)
def test_numbers_that_no_run_could_have_are_refused(refused: Refused, words: str, expected: str) -> None:
    assert expected in refused(*words.split())
