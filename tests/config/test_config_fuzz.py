"""Plain choices of the whole tree: what is none of them is named. Overlays of any shape are in tests/adversarial."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.overlays import outcome

from z1g.config.lookup import unwrap
from z1g.config.walk import places


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


@pytest.mark.parametrize(
    "text",
    [
        "data: {renderer: {kind: blender, device: {kind: x}}}",
        "data: {renderer: {kind: blender, device: {}}}",
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
    """Found by overlays of any shape."""
    said = outcome(tmp_path, "metrics: {metrics: {kind: {metrics: [false, null, [1, -1, 64]]}}}\n")
    assert said.startswith(f"{tmp_path}/idea.yaml:1: metrics.metrics.kind: needs a `kind`; valid: alpha_iou, ")


def test_the_kinds_of_a_slot_in_a_slot_are_listed(tmp_path: Path) -> None:
    said = outcome(tmp_path, "autodecoder: {losses: {x: {}}}\nrepresentation: {decoder: {path: {kind: null}}}\n")
    assert "losses.x: needs a `kind`; valid: alpha, " in said
    assert "representation.decoder.path.kind: unknown kind null; valid: average_pool, " in said
