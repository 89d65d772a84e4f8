"""Overlays of any shape: a configuration that can be used, or lines that name what is wrong; never a traceback."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from support.paths import CONFIGS, ROOT

from z1g.config.lookup import unwrap
from z1g.config.preflight import findings
from z1g.config.resolve import load_ablation
from z1g.config.tree import Experiment
from z1g.config.walk import places
from z1g.core.errors import UserError
from z1g.core.slots import OneOf, Section, Slot, kinds
from z1g.plan.identity import identifying_values

N_OVERLAYS = 500


def choices() -> list[tuple[str, tuple[str, ...]]]:
    """Key paths of a plain choice: a literal, a truth, or the kind of a slot; `.<name>` stands for the name `x`."""
    paths = []
    for path, section, _ in places():
        keys = [re.sub(r": \{kind: (\w+)\}", "", part).replace("<name>", "x") for part in path.split(".") if part]
        paths += [
            (f"{path} {name}", (*keys, name))
            for name, field in section.model_fields.items()
            if "Literal" in str(unwrap(field.annotation)[0]) or unwrap(field.annotation)[0] is bool
        ]
    return paths


def nested(keys: tuple[str, ...], value: Any, kinds_on_the_way: dict[int, str]) -> dict[str, Any]:
    """The value at a key path, with the kinds of the slots above it."""
    for depth in range(len(keys), 0, -1):
        value = {keys[depth - 1]: value}
        if depth - 1 in kinds_on_the_way and depth > 1:
            value = {"kind": kinds_on_the_way[depth - 1], **value}
    return value


def kinds_of(path: str) -> dict[int, str]:
    """The kind of a slot by the number of keys above its options."""
    parts = [part for part in path.split(" ")[0:-1] if part]
    text = " ".join(parts)
    return {
        text[: match.start()].count(".") - text[: match.start()].count("kind: .") + 1: match[1]
        for match in re.finditer(r"\{kind: (\w+)\}", text)
    }


def outcome(folder: Path, text: str) -> str:
    """What z1g says to an overlay; empty if it takes it. Exceptions other than UserError are not caught."""
    path, base = folder / "idea.yaml", folder / "base.yaml"
    path.write_text(text, encoding="utf-8")
    base.write_text("model: {kind: scratch}\n", encoding="utf-8")
    try:
        ablation = load_ablation(path, str(base), CONFIGS)
    except UserError as error:
        return str(error)
    identifying_values(ablation.experiment)
    ablation.experiment.camera.poses(0)
    assert Experiment.model_validate_json(ablation.experiment.model_dump_json()) == ablation.experiment
    for line, _ in findings(ablation):
        assert ": " in line
    return ""


@pytest.mark.parametrize(
    "text",
    [
        "data: {renderer: {device: {kind: x}}}",
        "data: {renderer: {device: {}}}",
        "data: {split: {keep_together: {kind: mesh}}}",
        "unet: {attention: {a: 1}}",
        "representation: {decoder: {mode: {kind: all}}}",
        "render: {kind: {kind: auto}}",
        "representation: {kind: {kind: mosaic}}",
        "representation: {kind: {}}",
        "representation: {decoder: {path: {kind: {a: 1}}}}",
        "autodecoder: {losses: {rgb: {kind: {kind: rgb}}}}",
        "autodecoder: {random_background: {kind: x}}",
        "splat: {size: {kind: x}}",
        "data: {kind: [meshes]}",
        "camera: {layout: [v1.1]}",
        "camera: {layout: {v1.1: 1}}",
        "representation: {decoder: {path: {kind: null}}}",
    ],
)
def test_a_mapping_where_a_plain_choice_belongs_is_named(tmp_path: Path, text: str) -> None:
    said = outcome(tmp_path, f"{text}\n")
    (line,) = said.splitlines()
    keys = re.findall(r"(\w+): (?=[{\[])", text)
    assert re.match(rf"{re.escape(str(tmp_path))}/idea\.yaml:1: {re.escape('.'.join(keys))}", line), line
    assert re.search(r"expected .*got|unknown kind .*(valid|did you mean)", line), line


@pytest.mark.parametrize("value", [{"kind": "x"}, [{}], None])
def test_every_plain_choice_of_the_tree_says_what_it_takes(tmp_path: Path, value: Any) -> None:
    """`value` is none of the choices anywhere."""
    assert len(choices()) > 60
    for label, keys in choices():
        overlay = nested(keys, value, kinds_of(label))
        said = outcome(tmp_path, json.dumps(overlay) + "\n")
        assert said or value is None, label
        assert "input should be" not in said.lower(), "pydantic's wording"


def test_an_entry_named_like_the_key_of_kinds_is_named(tmp_path: Path) -> None:
    """Found by the test below."""
    said = outcome(tmp_path, "metrics: {metrics: {kind: {metrics: [false, null, [1, -1, 64]]}}}\n")
    assert said.startswith(f"{tmp_path}/idea.yaml:1: metrics.metrics.kind: needs a `kind`; valid: alpha_iou, ")


def test_the_kinds_of_a_slot_in_a_slot_are_listed(tmp_path: Path) -> None:
    said = outcome(tmp_path, "autodecoder: {losses: {x: {}}}\nrepresentation: {decoder: {path: {kind: null}}}\n")
    assert "losses.x: needs a `kind`; valid: alpha, " in said
    assert "representation.decoder.path.kind: unknown kind null; valid: average_pool, " in said


def leaf() -> st.SearchStrategy[Any]:
    words = ["", "x", "auto", "rgb", "all", "1:30", "010", "null", "a\nb", "é", "../x", "9" * 40, "meshes", "mosaic"]
    numbers = st.sampled_from([0, 1, -1, 2, 7, 64, 10**6, 2**31, 2**32, 2**62, -(2**62), 4600000000000000000])
    floats = st.sampled_from([0.0, -0.5, 0.5, 1.0, 1e-300, 1e300, -1e300])
    return st.none() | st.booleans() | numbers | floats | st.sampled_from(words) | st.floats(-10, 10, width=32)


def odd(names: list[str]) -> st.SearchStrategy[Any]:
    """Values that have nothing to do with their place."""
    keys = st.sampled_from(["kind", "x", *names])
    return st.recursive(leaf(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@st.composite
def section_values(draw: st.DrawFn, section: type[Section], depth: int = 0) -> dict[str, Any]:
    """Some options of a section, most with a value of the right shape."""
    fields = section.model_fields
    names = draw(st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)) if fields else []
    values = {name: draw(field_values(section, name, depth)) for name in names}
    if draw(st.integers(0, 29)) == 0:
        values[draw(st.sampled_from(["kind", "x", "description", "base"]))] = draw(odd(list(fields)))
    return values


def field_values(section: type[Section], name: str, depth: int) -> st.SearchStrategy[Any]:
    field = section.model_fields[name]
    annotation, extra = unwrap(field.annotation)
    metadata = [*field.metadata, *extra]
    strange = odd(sorted(section.model_fields))
    if get_origin(annotation) is dict:
        annotation, metadata = unwrap(get_args(annotation)[1])
        entry = slot_values(annotation, depth) | st.none()
        return st.dictionaries(st.sampled_from(["rgb", "alpha", "perceptual", "x"]), entry, max_size=2) | strange
    if any(isinstance(item, OneOf) for item in metadata):
        return slot_values(annotation, depth) | slot_values(annotation, depth) | strange
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return section_values(annotation, depth + 1) | section_values(annotation, depth + 1) | strange
    if "Literal" in str(annotation):
        return st.sampled_from(get_args(annotation)) | strange
    if annotation is bool:
        return st.booleans() | strange
    return leaf() | strange


@st.composite
def slot_values(draw: st.DrawFn, family: type[Slot], depth: int) -> Any:
    kind, cls = draw(st.sampled_from(sorted(kinds(family).items())))
    values = draw(section_values(cls, depth + 1))
    return values if draw(st.integers(0, 3)) == 0 else {"kind": kind, **values}


@pytest.mark.slow
@seed(17)
@settings(
    max_examples=N_OVERLAYS,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(section_values(Experiment))
def test_no_overlay_gives_anything_but_a_configuration_or_a_message(
    tmp_path_factory: pytest.TempPathFactory, overlay: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "overlays"
    folder.mkdir(exist_ok=True)
    with contextlib.chdir(ROOT):
        said = outcome(folder, json.dumps(overlay) + "\n")
    for line in said.splitlines():
        assert re.match(r"\S*(idea|base)\.yaml(:\d+)?: ", line) or line.startswith("scale "), line
        assert "input should be" not in line.lower(), "pydantic's wording"
