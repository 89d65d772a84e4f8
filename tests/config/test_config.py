"""Reading configurations: merging, messages, generated documents, and that every option is used."""

import ast
import json
import string
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.forked_snakemake import snakemake
from support.paths import ROOT

from z1g.cli.config import GENERATED
from z1g.config.catalog import Catalog, load_ablation
from z1g.config.entries import Entries
from z1g.config.preflight import findings
from z1g.config.resolve import merge, resolve
from z1g.config.tree import Experiment
from z1g.config.yaml_file import read_yaml
from z1g.core.errors import UserError
from z1g.core.slots import Section, Slot, kinds

CONFIGS = ROOT / "configs"
SCALES = ("scratch", "small", "full", "original")


def load(tmp_path: Path, text: str, scale: str = "scratch"):
    path = tmp_path / "idea.yaml"
    path.write_text(text)
    ablation = load_ablation(path, scale, CONFIGS)
    if missing := [line for line, fatal in findings(ablation) if fatal]:
        raise UserError("\n".join(missing))
    return ablation


def message(tmp_path: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("unet:\n  condition_dropuot: 0.1\n", 2, ["unet.condition_dropuot", "unknown key", '"condition_dropout"']),
        ("unett: {}\n", 1, ["unett", "unknown key", '"unet"']),
        ("unet:\n  train:\n    steps: many\n", 3, ["unet.train.steps", "integer", '"many"']),
        ("splat: {size: -4}\n", 1, ["splat.size", "greater than or equal to 4", "-4"]),
        ("autodecoder:\n  codes: {kind: optimised}\n", 2, ["autodecoder.codes.kind", '"optimized"']),
        ("autodecoder:\n  codes:\n    kind: optimized\n    learning: 1\n", 4, ["codes.learning", "unknown key", "lr"]),
        ("autodecoder:\n  losses:\n    splat: {wieght: 2}\n", 3, ["losses.splat.wieght", '"weight"']),
        ("autodecoder:\n  losses:\n    new: {weight: 2}\n", 3, ["losses.new", "kind", "st_lpips"]),
        ("autodecoder:\n  codes: {kind: cache}\n", 2, ["cache", "path"]),
        ("autodecoder:\n  codes: {kind: cache, path: gone.safetensors}\n", 2, ["gone.safetensors", "is not a file"]),
        (
            "representation:\n  decoder: {path: {kind: plain}}\n  input_size: 32\n",
            None,
            ["plain", "32", "splat.size 64"],
        ),
        ("representation:\n  input_size: 63\n", None, ["input_size 63", "multiple"]),
        ("representation:\n  scale: {log_min: 3.0}\n", None, ["representation.scale", "log_min 3.0", "below"]),
        ("splat: 7\n", 1, ["splat", "7"]),
        ("splat: null\n", 1, ["splat", "null"]),
        ("splat: {size: 8}\nsplat: {size: 16}\n", 2, ['"splat" appears twice']),
        ("a: [1, 2\n", 2, ["not valid YAML"]),
        ("- just\n- a list\n", 1, ["expected a mapping", "a list"]),
        ("1: 2\n", 1, ["keys must be words"]),
        ("description: [1]\n", 1, ["description", "expected a string"]),
        ("base: tinny\n", None, ["tinny", '"tiny"']),
        ("fit: {min_psnr: .nan}\n", 1, ["fit.min_psnr", "finite"]),
        ("splat: {size: !!python/name:os.system x}\n", 1, ["cannot be read"]),
    ],
)
def test_a_mistake_is_named_with_file_line_key_and_remedy(tmp_path: Path, text: str, line: int | None, words) -> None:
    error = message(tmp_path, text)
    where = f"{tmp_path}/idea.yaml" + (f":{line}:" if line else "")
    assert error.startswith(where) or (line is None and words[0] in error), error
    for word in words:
        assert word in error, error
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1


def test_every_mistake_of_a_file_is_named(tmp_path: Path) -> None:
    error = message(tmp_path, "splat: {sizes: 8}\nunet: {condition_size: x}\n")
    assert "splat.sizes" in error
    assert "unet.condition_size" in error


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        load_ablation(tmp_path / "nowhere.yaml", "scratch", CONFIGS)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=8) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(string.ascii_letters, max_size=6) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from([*Experiment.model_fields, "base", "description", "kind", "losses", "train", "x"])


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=3), max_size=4))
def test_no_structure_gives_anything_but_success_or_a_user_error(tmp_path_factory, values) -> None:
    path = tmp_path_factory.mktemp("any") / "a.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    try:
        load_ablation(path, "scratch", CONFIGS)
    except UserError as error:
        if not str(error):
            pytest.fail("an error without a message")


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text("{}[]:,&*!|>-#% \n\tab1'\"?@`", max_size=40).map(str.encode))
def test_no_bytes_give_anything_but_success_or_a_user_error(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "a.yaml"
    path.write_bytes(content)
    try:
        load_ablation(path, "scratch", CONFIGS)
    except UserError as error:
        if not str(error):
            pytest.fail("an error without a message")


@pytest.mark.parametrize(
    "text", ["a: &a [*a]\n", "a: &a {b: *a}\n", "x: " + "[" * 3000, "a: &a [1,1]\nb: &b [*a,*a]\nc: [*b,*b]\n"]
)
def test_references_and_depth_are_bounded(tmp_path: Path, text: str) -> None:
    assert message(tmp_path, text)


def test_a_slot_of_another_kind_starts_afresh_and_null_removes() -> None:
    base = {"codes": {"kind": "optimized", "lr": 1.0}, "losses": {"a": {"kind": "rgb"}, "b": {"kind": "alpha"}}}
    assert merge(base, {"codes": {"kind": "encoder"}})["codes"] == {"kind": "encoder"}
    assert merge(base, {"codes": {"lr": 2.0}})["codes"] == {"kind": "optimized", "lr": 2.0}
    assert merge(base, {"codes": {"kind": "optimized"}})["codes"] == {"kind": "optimized", "lr": 1.0}
    assert merge(base, {"losses": {"a": None}})["losses"] == {"b": {"kind": "alpha"}}
    assert base["losses"].keys() == {"a", "b"}


def test_an_ablation_can_pin_its_base(tmp_path: Path) -> None:
    assert load(tmp_path, "base: small\n").experiment == resolve([read_yaml(CONFIGS / "small.yaml")])
    assert load(tmp_path, "").base == "scratch"


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_generated_documents_are_in_step(name: str) -> None:
    path, make = GENERATED[name]
    assert (ROOT / path).read_text() == make(), "run `z1g config write`"


def test_full_yaml_is_the_defaults() -> None:
    assert resolve([read_yaml(CONFIGS / "full.yaml")]) == Experiment()


@pytest.fixture(scope="module")
def schema() -> jsonschema.Validator:
    """The validated schema of the repository."""
    content = json.loads((CONFIGS / "schema.json").read_text())
    validator = jsonschema.validators.validator_for(content)
    validator.check_schema(content)
    return validator(content)


@pytest.mark.parametrize(
    "path", sorted([*CONFIGS.glob("*.yaml"), *(ROOT / "ablations").rglob("*.yaml")]), ids=lambda p: p.name
)
def test_shipped_files_match_the_schema(path: Path, schema: jsonschema.Validator) -> None:
    schema.validate(yaml.safe_load(path.read_text()) or {})


@pytest.mark.parametrize(
    "text",
    ["unett: {}", "unet: {condition_dropuot: 0.1}", "splat: {size: -4}", "render: {kind: cupy}", "unet: null",
     "autodecoder: {losses: {splat: {wieght: 1}}}", "description: [1]", "render: {kind: auto, resolution: 7}",
     "seeds: many", "seeds: {stage2: 3}", "folds: 1", "priority: high", "tags: word", "sweep: {gird: {}}",
     "sweep: {grid: {unet.train.steps: 3}}", "sweep: {random: {n: 3}}"],
)  # fmt: skip
def test_the_schema_refuses_what_the_tree_refuses(tmp_path: Path, text: str, schema: jsonschema.Validator) -> None:
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(yaml.safe_load(text))
    assert message(tmp_path, text)


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
def test_every_ablation_resolves_at_every_scale_and_says_why(scale: str) -> None:
    catalog = Catalog(Entries.of_folder(ROOT / "ablations"), scale, CONFIGS)
    files = catalog.entries.files
    assert len(files) >= 30
    if scale in ("scratch", "small"):
        del files["adapters"]
        with pytest.raises(UserError, match=r"adapters\.yaml:3: unet\.finetune 'lora' adapts trained weights"):
            Catalog(Entries.of_folder(ROOT / "ablations"), scale, CONFIGS).runs("adapters")
    del files["wider_vision"]
    with pytest.raises(UserError, match=r"wider_vision\.yaml:2: model\.train_vision: .* kind trained has it"):
        Catalog(Entries.of_folder(ROOT / "ablations"), scale, CONFIGS).runs("wider_vision")
    for name, file in files.items():
        runs = catalog.runs(name)
        assert len(runs) >= 1
        assert all(len(run.description) > 20 for run in runs)
        assert len(file.read_text().splitlines()) <= 10


def test_what_makes_renders_sharp_is_compared_at_its_scale() -> None:
    """Two seeds each; every choice differs in one part."""
    catalog = Catalog(Entries.of_folder(ROOT / "ablations"), "mini", CONFIGS)
    parts = {"adversarial": "autodecoder", "perceptual_more": "autodecoder", "latent_min_snr": "unet",
             "guidance_more": "infer"}  # fmt: skip
    plain = catalog.runs("as_mini")
    for name, part in parts.items():
        for run, other in zip(catalog.runs(name), plain, strict=True):
            assert run.about.seed == other.about.seed
            fields = type(run.experiment).model_fields
            assert [f for f in fields if getattr(run.experiment, f) != getattr(other.experiment, f)] == [part], name
    assert len(plain) == 2


def test_representations_are_compared_at_their_scale() -> None:
    """Four kinds, three seeds each. Regression differs from the mosaic in stage 2 only."""
    catalog = Catalog(Entries.of_folder(ROOT / "ablations"), "mini", CONFIGS)
    runs = {name: catalog.runs(name) for name in ("mosaic", "attributes", "joint", "regression")}
    assert {name: [run.about.seed for run in of] for name, of in runs.items()} == {name: [0, 1, 2] for name in runs}
    trees = {name: of[0].experiment for name, of in runs.items()}
    assert [tree.representation.kind for tree in trees.values()] == ["mosaic", "attributes", "joint", "mosaic"]
    assert trees["regression"].unet.objective == "regression"
    assert trees["regression"].autodecoder == trees["mosaic"].autodecoder
    for part in ("data", "camera", "splat", "fit", "model", "infer", "metrics"):
        assert all(getattr(tree, part) == getattr(trees["mosaic"], part) for tree in trees.values()), part


def all_sections() -> set[type[Section]]:
    import typing

    checked: set[type[Section]] = set()
    pending: list[type[Section]] = [Experiment]
    while pending:
        cls = pending.pop()
        if cls in checked:
            continue
        checked.add(cls)
        stack = [field.annotation for field in cls.model_fields.values()]
        while stack:
            annotation = stack.pop()
            stack += [a for a in typing.get_args(annotation) if not isinstance(a, str)]
            if isinstance(annotation, type) and issubclass(annotation, Section):
                pending.append(annotation)
                kind = annotation.model_fields.get("kind")
                if issubclass(annotation, Slot) and (kind is None or kind.is_required()):
                    pending += kinds(annotation).values()
    return checked


def test_every_option_is_read_somewhere() -> None:
    read: set[str] = set()
    for file in (ROOT / "z1g").rglob("*.py"):
        tree = ast.parse(file.read_text())
        read |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
    rules = "".join(file.read_text() for file in (ROOT / "workflow/rules").glob("*.smk"))
    # Their fields are attributes of a splat, which a loop accesses by name.
    by_name = {"AttributeRates", "AttributeWeights", "Roughness"}
    sections = all_sections()
    assert len(sections) > 40
    assert by_name < {cls.__name__ for cls in sections}
    dead = [
        f"{cls.__name__}.{name}"
        for cls in sections
        for name in cls.model_fields
        if name not in read
        and f'"{name}"' not in rules
        and f"requested.{name}" not in rules
        and cls.__name__ not in by_name
    ]
    assert dead == []


def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    if program == "snakemake":
        return snakemake(words, ROOT)
    return subprocess.run([sys.executable, "-m", program, *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_line_answers_with_one_message_and_exit_code_2() -> None:
    for command in (
        ["z1g", "plan", "--scale", "tinny"],
        ["snakemake", "-n", "--profile", "local", "--config", "scale=tinny"],
        ["snakemake", "-n", "--profile", "local", "--config", "scale=scratch", "ablations=encoder_mxi"],
        ["snakemake", "-n", "--profile", "local", "--config", "skale=scratch"],
    ):
        done = run(*command)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert "error: " in done.stderr
