"""Error messages: one line with file, line, key, expectation and the nearest valid name."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.forked_snakemake import snakemake
from support.paths import ROOT

from z1g import render
from z1g.cli.main import main
from z1g.config.catalog import load_ablation
from z1g.config.preflight import findings
from z1g.config.resolve import scale_file
from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.plan.plan import Plan

CONFIGS = ROOT / "configs"
RASTERIZERS = sorted(cls.model_fields["kind"].default for cls in render.KINDS)


def checked(path: Path, scale: str) -> None:
    """Read an ablation and look for what it needs of this machine."""
    ablation = load_ablation(path, scale, CONFIGS)
    raise UserError("\n".join(line for line, fatal in findings(ablation) if fatal))


def complaint(folder: Path, text: str, scale: str = "scratch") -> list[str]:
    """The lines of the error for the ablation `text`, without the name of the folder."""
    (folder / "idea.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        checked(folder / "idea.yaml", scale)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unet: null\n", "1: unet: expected a mapping, got null"),
        ("unet: []\n", "1: unet: expected a mapping, got []"),
        ("render: auto\n", '1: render: expected a mapping, got "auto"'),
        ("autodecoder:\n  losses: [rgb]\n", '2: autodecoder.losses: expected a mapping, got ["rgb"]'),
        ("data: {paths: here}\n", '1: data.paths: expected a list, got "here"'),
        ("data: {paths: []}\n", "1: data.paths: expected at least 1 entry, got []"),
        ("data: {roots: ['']}\n", "1: data.roots: (an empty path): no such folder"),
        ("data: {paths: [{a: 1}]}\n", '1: data.paths.0: expected a string, got {"a": 1}'),
        ("camera: {condition_elevation_deg: [1, 2, 3]}\n",
         "1: camera.condition_elevation_deg: expected at most 2 entries, got [1, 2, 3]"),
        ("fit: {seed: 1.5}\n", "1: fit.seed: expected an integer, got 1.5"),
        ("fit: {seed: true}\n", "1: fit.seed: expected a number, got true or false"),
        ("fit: {seed: yes}\n", '1: fit.seed: expected an integer, got "yes"'),
        ("unet: {train: {optimizer: {betas: [0.9, true]}}}\n",
         "1: unet.train.optimizer.betas.1: expected a number, got true or false"),
        ("splat: {size: ''}\n", '1: splat.size: expected an integer, got ""'),
        ("autodecoder: {random_background: 7}\n", "1: autodecoder.random_background: expected true or false, got 7"),
        ("infer: {guidance: .inf}\n", "1: infer.guidance: expected a finite number, got Infinity"),
        ("data: {split: {test_fraction: 1}}\n", "1: data.split.test_fraction: expected a number less than 1, got 1"),
        ("unet: {train: {precision: fp8}}\n",
         "1: unet.train.precision: expected 'auto', 'fp32' or 'bf16', got \"fp8\""),
        ("unet: {train: {precision: bf61}}\n",
         "1: unet.train.precision: expected 'auto', 'fp32' or 'bf16', got \"bf61\"; did you mean \"bf16\"?"),
        ("data: {kind: mesh, path: x}\n", '1: data.kind: unknown kind "mesh"; did you mean "meshes"?'),
        ("render: {kind: null}\n",
         f"1: render.kind: unknown kind null; valid: {', '.join(RASTERIZERS)}"),
        ("unet:\n  train: {schedule: {kind: cosin}}\n",
         '2: unet.train.schedule.kind: unknown kind "cosin"; did you mean "cosine"?'),
        ("autodecoder: {losses: {nope: null}}\n",
         "1: autodecoder.losses.nope: expected a mapping, got null; "
         "null removes an entry, but there is no entry of this name"),
        ("data:\n  blender: {samples: 8}\n",
         "2: data.blender: unknown key; write its options below `data.renderer: {kind: blender}`"),
        ("data:\n  renderer:\n    engine: eevee\n",
         "3: data.renderer.engine: unknown key of kind raster; kind blender has it"),
        ("resources:\n  unte: {gpus: 1}\n", '2: resources.unte: unknown key; did you mean "unet"?'),
        ("description: !!timestamp 2020-01-01\n", "1: a date is not supported; put it in quotes to make it a string"),
        ("description: !!binary aGVsbG8=\n", "1: binary data is not supported; put it in quotes to make it a string"),
        ("<<: {unet: {}}\n", "1: merge keys (<<) are not supported; write the values out"),
        ("? [a]\n: 1\n", "1: keys must be words, got a mapping or list"),
        ('unet: {"a\\nb": 1}\n', "1: keys must be words, got 'a\\nb'"),
        ('base: "a\\0b"\n', "1: the string 'a\\x00b' contains unprintable characters"),
        ('description: "\\ud800"\n', "1: the string '\\ud800' contains unprintable characters"),
        ("splat: !!set {a, b}\n", "1: cannot be read: the tag set is not supported"),
        ("splat: !!python/object:os.x {a: 1}\n", "1: cannot be read: the tag python/object:os.x is not supported"),
        ("splat: {size: !!python/object/apply:os.system [ls]}\n",
         "1: cannot be read: the tag python/object/apply:os.system is not supported"),
        ('splat: {size: !!int ""}\n', "1: cannot be read as int: ''"),
        ('splat: {size: !!bool "x"}\n', "1: cannot be read as bool: 'x'"),
        ('splat: {size: !!timestamp "x"}\n', "1: cannot be read as timestamp: 'x'"),
        (f"fit: {{seed: 0x{'f' * 6000}}}\n", "1: the number is too large: whole numbers have at most 64 bits"),
        ("base: tinny\n", '1: base: scale "tinny": there is no file'),
        ("\nrepresentation:\n  input_size: 63\n",
         "3: representation.input_size 63 must be a multiple of 4, the model's latent factor"),
        ("unet: {condition_size: 63}\n",
         "1: unet.condition_size 63 must be a multiple of 4, the model's latent factor"),
        ("representation:\n  input_size: 32\n  decoder: {path: {kind: plain}}\n",
         "3: representation.decoder.path 'plain' decodes to 32 pixels per view"),
        ("model: {kind: zero123plus}\nunet:\n  init_seed: 1\n",
         "3: unet.init_seed has no effect on model 'zero123plus', whose weights are not random"),
        ("data:\n  split: {fold: 2, folds: 2}\n", "2: data.split: fold 2 needs folds of at least 3, got 2"),
        ("fit:\n  losses:\n    rgb: null\n    alpha: {weight: 0}\n",
         "2: fit.losses needs at least one loss with a weight above 0"),
        ("unet: {losses: {image: {kind: rgb}}}\n",
         "1: unet.losses.image cannot be used: this stage compares codes"),
        ("fit: {losses: {s: {kind: splat}}}\n", "1: fit.losses.s cannot be used: this stage compares renders"),
        ("autodecoder: {losses: {l: {kind: latent}}}\n",
         "1: autodecoder.losses.l cannot be used: this stage compares renders and splats"),
        ("autodecoder: {losses: {loss: {kind: rgb}}}\n",
         "1: autodecoder.losses.loss needs another name: training has a figure of its own called loss"),
        ("unet:\n  rendered: {losses: {step: {kind: rgb}}}\n", "2: unet.rendered.losses.step needs another name"),
        ("unet:\n  losses: {rgb: {kind: latent}}\n  rendered: {losses: {rgb: {kind: rgb}}}\n",
         "3: unet.rendered.losses.rgb needs another name: unet.losses has a rgb, and the log has one column for each"),
        ("metrics: {metrics: {source: {kind: psnr}}}\n",
         "1: metrics: metrics.source needs another name: rows have a column of their own called source"),
        ("metrics: {metrics: {psnr@lgm: {kind: psnr}}}\n", "1: metrics: metrics.psnr@lgm needs another name"),
        ("UNET: {train: {steps: 5}}\n", '1: UNET: unknown key; did you mean "unet"?'),
        ("unet.train.steps: 5\n",
         "1: unet.train.steps: unknown key; keys are nested, not joined by dots: unet: {train: {steps: ...}}"),
        ("unet:\n  train.steps: 5\n",
         "2: unet.train.steps: unknown key; keys are nested, not joined by dots: train: {steps: ...}"),
        (f"autodecoder: {{codes: {{kind: cache, path: {'x' * 3000}}}}}\n",
         "1: autodecoder.codes: [Errno 36] File name too long"),
    ],
)  # fmt: skip
def test_messages_are_plain_words(tmp_path: Path, text: str, expected: str) -> None:
    (line,) = complaint(tmp_path, text)
    assert line.startswith(f"idea.yaml:{expected}"), line


def test_errors_that_follow_from_another_error_are_omitted(tmp_path: Path) -> None:
    assert len(complaint(tmp_path, "data: {kind: nope, renders: a, splats: b}\n")) == 1
    assert len(complaint(tmp_path, "model: {kind: scratch, unet_size: {channels: [32, x]}}\n")) == 1
    assert len(complaint(tmp_path, "kind: x\nsplat: {size: a}\n")) == 2


def test_a_mistake_in_the_base_names_the_base(tmp_path: Path) -> None:
    base = tmp_path / "mine.yaml"
    base.write_text("camera: {}\nsplat: {sise: 3}\n")
    (line,) = complaint(tmp_path, "unet: {}\n", scale=str(base))
    assert line == 'mine.yaml:2: splat.sise: unknown key; did you mean "size"?'


def test_a_scale_is_a_name_or_a_file(tmp_path: Path) -> None:
    base = tmp_path / "mine.yaml"
    base.write_text("splat: {size: 16}\n")
    assert scale_file(str(base), CONFIGS) == base
    assert scale_file("scratch", CONFIGS) == CONFIGS / "scratch.yaml"
    for wrong in ("tinny", "x" * 5000, "gone.yaml", ""):
        with pytest.raises(UserError, match="there is no file"):
            scale_file(wrong, CONFIGS)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout to make mistakes in."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("workflow", "ablations", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "Snakefile").write_text((ROOT / "Snakefile").read_text())
    (folder / "local").symlink_to("workflow/profiles/local")
    return folder


def plan(workspace: Path, **options: object) -> Plan:
    with contextlib.chdir(workspace):
        return Plan.from_options({"scale": "scratch", **options}, Path(str(options.get("results", "results"))))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ablations": "encoder_mxi"}, ['"encoder_mxi"', 'did you mean "encoder_mix"']),
        ({"ablations": "../configs/scratch"}, ["must be a word"]),
        ({"ablations": "a b"}, ["must be a word"]),
        ({"ablations": ","}, ["no ablations are named"]),
        ({"skale": "scratch"}, ["--config skale=", 'did you mean "scale"']),
        ({"scale": "smal"}, ['scale "smal"', 'did you mean "small"']),
        ({"results": "my results"}, ["--config results=", "my results"]),
        ({"results": "a;b"}, ["--config results=", "a;b"]),
        ({"results": "{x}"}, ["--config results="]),
    ],
)
def test_mistakes_on_the_command_line_are_named(workspace: Path, options: dict[str, str], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        plan(workspace, **options)
    for word in words:
        assert word in str(caught.value)


def test_ablations_are_a_list_however_snakemake_reads_them(workspace: Path) -> None:
    both = ["optimized_splat", "encoder_mix"]
    assert list(plan(workspace, ablations=",".join(both)).ablations) == both
    assert list(plan(workspace, ablations=both).ablations) == both


def test_missing_meshes_name_the_ablation(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "idea.yaml").write_text("data: {paths: [nowhere]}\n")
    with pytest.raises(UserError, match=r"ablation idea: data\.paths: nowhere: no such file"):
        Plan.load("scratch", None, Path("results"), tmp_path, CONFIGS)
    (tmp_path / "idea.yaml").write_text(f"data: {{paths: [{'x' * 3000}]}}\n")
    with pytest.raises(UserError, match=r"ablation idea: .*too long"):
        Plan.load("scratch", None, Path("results"), tmp_path, CONFIGS)


def test_missing_objects_of_the_command_line_do_not_name_a_file(tmp_path: Path) -> None:
    (tmp_path / "idea.yaml").write_text("data: {split: {seed: 1}}\n")
    ablation = load_ablation(tmp_path / "idea.yaml", "scratch", CONFIGS, ["nowhere"])
    (line, fatal), *_ = findings(ablation)
    assert line.startswith("objects of the command line: data.paths: nowhere: no such file or folder")
    assert fatal


def test_a_folder_without_ablations_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ablation files"):
        Plan.load("scratch", None, Path("results"), tmp_path, CONFIGS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sweep: {grid: {\nunet.condition_dropuot: [0.1]}}\n",
         '2: unet.condition_dropuot: unknown key; did you mean "condition_dropout"?'),
        ("sweep:\n  grid:\n    infer.guidance:\n    - 2\n    - fast\n",
         '5: infer.guidance: expected a number, got "fast"'),
        ("sweep: {grid: {infer.steps: [2, 2]}}\n", "1: infer.steps: the value 2 appears twice"),
        ("sweep: {grid: {seeds: [1]}}\n", "1: seeds: is no option of the experiment, which a sweep varies"),
        ("sweep: {zip: {infer.steps: [0]}}\n", "1: infer.steps: expected a number greater than or equal to 1, got 0"),
        ("sweep: {list: [{infer.steps: 2}, {infer.step: 2}]}\n",
         '1: infer.step: unknown key; did you mean "steps"?'),
        ("sweep: {random: {n: 9, distributions: {infer.steps: {integers: [0, 3]}}}}\n",
         "1: sweep.random.n: the distributions have only about 4 different points, 9 are asked for"),
        ("seeds: 2\ninfer: {seed: 4294967295}\n",
         "1: infer.seed: expected a number less than or equal to 4294967295, got 4294967296"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_some_runs_of_a_file_is_shown_as_it_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    (tmp_path / "idea.yaml").write_text(text)
    with pytest.raises(UserError) as planned:
        Plan.load("scratch", None, Path("results"), tmp_path, CONFIGS)
    monkeypatch.chdir(ROOT)
    assert main(["config", "show", "--scale", "scratch", "--ablation", str(tmp_path / "idea.yaml")]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == f"z1g config: error: {planned.value}\n"
    assert str(planned.value) == f"{tmp_path}/idea.yaml:{expected}"


@pytest.mark.slow
@pytest.mark.parametrize("command", [["z1g", "plan"], ["z1g", "config", "show"], ["snakemake", "-n"], ["snakemake"]])
def test_a_wrong_ablation_stops_every_command_before_anything_runs(workspace: Path, command: list[str]) -> None:
    bad = workspace / "ablations/encoder_mix.yaml"
    good = bad.read_text()
    bad.write_text("unet:\n  condition_dropuot: 0.5\n")
    if command[0] == "snakemake":
        words = [*command, "--profile", "local", "--config", "scale=scratch"]
    else:
        words = [*command, "--scale", "scratch", *(["--ablation", str(bad)] if "show" in command else [])]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    try:
        if command[0] == "snakemake":
            done = snakemake(words[1:], workspace, environment)
        else:
            done = subprocess.run(
                [sys.executable, "-m", *words], cwd=workspace, capture_output=True, text=True, env=environment
            )
    finally:
        bad.write_text(good)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(errors) == 1
    assert errors[0].endswith(
        'encoder_mix.yaml:2: unet.condition_dropuot: unknown key; did you mean "condition_dropout"?'
    )
    assert "Traceback" not in done.stderr
    assert not (workspace / "results").exists()


# Flow YAML composed by hand, to include tags, anchors and unusual scalars.
TAGS = ["int", "bool", "float", "null", "str", "timestamp", "binary", "set", "omap", "map", "seq", "python/tuple"]
WORDS = st.sampled_from(
    ["", "~", "yes", "1", "-7", "0.5", "1e3", ".nan", "-.inf", "0x1F", "0b11", "1:30", "2001-12-14", "2001-13-45",
     "2001-12-14t21:59:43.10-05:00", "aGVsbG8=", "encoder", "plateau", "9" * 30, "9" * 5000, "'x: y'", '"\\0"',
     '"\\ud800"', '"\\U0001F600"', "é", "&a 1", "*a", "&a [*a]", "<<", "=", "scratch", "rgb"]
)  # fmt: skip
SCALARS = st.builds(lambda tag, word: f"{tag}{word}", st.sampled_from(["", "", "", *(f"!!{t} " for t in TAGS)]), WORDS)


def key_names() -> list[str]:
    """Every key of full.yaml or original.yaml."""
    names: set[str] = {"base", "description", "kind", "<<"}
    pending = [yaml.safe_load((CONFIGS / name).read_text()) for name in ("full.yaml", "original.yaml")]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            names |= node.keys()
            pending += node.values()
    return sorted(names - {"paths"})


def flow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(st.sampled_from(key_names()), inner).map(lambda pair: f"{pair[0]}: {pair[1]}")
    tags = st.sampled_from(["", "", "", "", *(f"!!{tag} " for tag in TAGS)])
    mappings = st.lists(pairs, max_size=3).map(lambda items: "{" + ", ".join(items) + "}")
    lists = st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]")
    return st.builds(lambda tag, body: tag + body, tags, mappings | lists)


SECTIONS = st.sampled_from([*Experiment.model_fields, "base", "description"])
NODES = st.recursive(SCALARS, flow, max_leaves=6)
DEEP = st.tuples(st.sampled_from(key_names()), st.sampled_from(key_names()), SCALARS).map(
    lambda t: f"{{{t[0]}: {{{t[1]}: {t[2]}}}, {t[1]}: {t[2]}}}"
)


def read(folder: Path, content: bytes) -> None:
    (folder / "idea.yaml").write_bytes(content)
    outcome = "a plan"
    try:
        Plan.load("scratch", None, Path("results"), folder, CONFIGS, missing="warn").ablation_identity("idea")
    except UserError as error:
        outcome = str(error)
    assert outcome.strip()
    assert "input should be" not in outcome.lower(), "pydantic's wording"


@pytest.mark.slow
@settings(max_examples=250)
@given(st.lists(st.tuples(SECTIONS, NODES | DEEP), max_size=3))
def test_no_yaml_gives_anything_but_a_plan_or_a_user_error(tmp_path_factory, pairs) -> None:
    folder = tmp_path_factory.getbasetemp() / "yaml"
    folder.mkdir(exist_ok=True)
    with contextlib.chdir(ROOT):
        read(folder, "\n".join(f"{key}: {node}" for key, node in pairs).encode())


@pytest.mark.slow
@settings(max_examples=60)
@given(st.binary(max_size=40), st.sampled_from([b"", b"\xff\xfe", b"\xef\xbb\xbf", b"unet: ", b"%YAML 1.1\n---\n"]))
def test_no_bytes_give_anything_but_a_plan_or_a_user_error(tmp_path_factory, content: bytes, start: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "bytes"
    folder.mkdir(exist_ok=True)
    with contextlib.chdir(ROOT):
        read(folder, start + content)
