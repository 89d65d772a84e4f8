"""Overlays of any shape, and what z1g makes of them.

Strategies are made once: Hypothesis validates each, which takes longer than to draw from it and to read the overlay.
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st

from support.paths import CONFIGS
from z1g.config.catalog import load_ablation
from z1g.config.lookup import unwrap
from z1g.config.preflight import findings
from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.core.slots import OneOf, Section, Slot, kinds
from z1g.plan.identity import identifying_values


def outcome(folder: Path, text: str) -> str:
    """What z1g says to an overlay; empty if it takes it. Exceptions other than UserError are not caught."""
    taken = resolved(folder, text)
    return taken if isinstance(taken, str) else ""


def resolved(folder: Path, text: str) -> Experiment | str:
    """The configuration of an overlay, which can be written, read again and planned, or what z1g says to it."""
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
    return ablation.experiment


@cache
def leaf() -> st.SearchStrategy[Any]:
    words = ["", "x", "auto", "rgb", "all", "1:30", "010", "null", "a\nb", "é", "../x", "9" * 40, "meshes", "mosaic"]
    numbers = st.sampled_from([0, 1, -1, 2, 7, 64, 10**6, 2**31, 2**32, 2**62, -(2**62), 4600000000000000000])
    floats = st.sampled_from([0.0, -0.5, 0.5, 1.0, 1e-300, 1e300, -1e300])
    return st.none() | st.booleans() | numbers | floats | st.sampled_from(words) | st.floats(-10, 10, width=32)


@cache
def odd(names: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """Values that have nothing to do with their place."""
    keys = st.sampled_from(["kind", "x", *names])
    return st.recursive(leaf(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@cache
@st.composite
def section_values(draw: st.DrawFn, section: type[Section], depth: int = 0) -> dict[str, Any]:
    """Some options of a section, most with a value of the right shape."""
    fields = section.model_fields
    names = draw(st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)) if fields else []
    values = {name: draw(field_values(section, name, depth)) for name in names}
    if draw(st.integers(0, 29)) == 0:
        values[draw(st.sampled_from(["kind", "x", "description", "base"]))] = draw(odd(tuple(fields)))
    return values


@cache
def field_values(section: type[Section], name: str, depth: int) -> st.SearchStrategy[Any]:
    field = section.model_fields[name]
    annotation, extra = unwrap(field.annotation)
    metadata = [*field.metadata, *extra]
    strange = odd(tuple(sorted(section.model_fields)))
    if get_origin(annotation) is dict:
        annotation, metadata = unwrap(get_args(annotation)[1])
        entry = slot_values(annotation, depth) | st.none()
        return st.dictionaries(st.sampled_from(["rgb", "alpha", "perceptual", "x"]), entry, max_size=2) | strange
    if any(isinstance(item, OneOf) for item in metadata):
        return slot_values(annotation, depth) | slot_values(annotation, depth) | strange
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return section_values(annotation, depth + 1) | section_values(annotation, depth + 1) | strange
    if get_origin(annotation) is tuple and get_origin(get_args(annotation)[0]) is Literal:
        return st.lists(st.sampled_from(get_args(get_args(annotation)[0])), max_size=3) | strange
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation)) | strange
    if annotation is bool:
        return st.booleans() | strange
    return leaf() | strange


@cache
@st.composite
def slot_values(draw: st.DrawFn, family: type[Slot], depth: int) -> Any:
    kind, cls = draw(st.sampled_from(sorted(kinds(family).items())))
    values = draw(section_values(cls, depth + 1))
    return values if draw(st.integers(0, 3)) == 0 else {"kind": kind, **values}
