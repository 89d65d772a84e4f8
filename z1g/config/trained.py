"""What a trained model settles of a configuration: the options without which its networks would be other networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from z1g.config.yaml_file import KeyPath
from z1g.core.errors import UserError
from z1g.networks.weights.trained import Trained
from z1g.representations import folder as method_folder

CAMERA = ("fov_y_deg", "radius", "layout")
"""Options of cameras on which splats and codes depend; other views may be drawn."""
SETTLED = ("camera", "splat", "representation", "unet")
"""Parts of the configuration with options that a trained model settles."""


def settled(model: Trained) -> dict[str, Any]:
    """The options that a model was trained with, as plain values of the configuration tree.

    Raises UserError if the model is missing or damaged.
    """
    representation, camera, splats = method_folder.read_options(model.method)
    cameras = camera.model_dump(mode="json")
    return {
        "camera": {name: cameras[name] for name in CAMERA},
        "splat": splats.model_dump(mode="json"),
        "representation": representation.model_dump(mode="json"),
        "unet": {"condition_size": model.condition_size},
    }


def settled_by(model: Any) -> dict[str, Any]:
    """`settled` of the plain values of a `model`; none if it is of another kind, or cannot be read.

    What is wrong with a model is said by its `check`, and by the validation of its values.
    """
    if not isinstance(model, dict) or model.get("kind") != "trained":
        return {}
    try:
        return settled(Trained.model_validate(model))
    except (UserError, ValidationError):
        return {}


def conflict(model: Trained, values: dict[str, Any]) -> str | None:
    """What of a configuration differs from what a model was trained with; None if nothing does, or nothing is known.

    values: at least the parts `SETTLED` of the configuration, as plain values.
    """
    try:
        own_values = settled(model)
    except UserError:
        return None
    for path, own in _leaves(own_values):
        given: Any = values
        for part in path:
            given = given.get(part) if isinstance(given, dict) else None
        if given != own:
            return (
                f"{'.'.join(path)} {given} is {own} in the model {model.pretrained}, which training starts from: "
                "leave it out, or start from other weights"
            )
    return None


def _leaves(values: dict[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value
