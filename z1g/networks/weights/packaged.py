"""Where trained models are: folders that `z1g pack` writes, some of which come with the package.

Such a folder has the networks (`pipeline/`, with weights in float32 or int8), `model.json` with all else that sampling
needs, and for people a model card, `README.md`.
"""

from __future__ import annotations

from pathlib import Path

import z1g

FILE, NETWORKS, CARD = "model.json", "pipeline", "README.md"
METHOD_FILE = "stage1.json"
"""In the folder of the networks: how they are built, and the digests of all of their files."""
MODELS = Path(z1g.__file__).parent / "inference" / "models_of_the_package"
"""Folder of the models that come with the package."""


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in MODELS.glob(f"*/{FILE}"))


def folder_of(model: str) -> Path:
    """The folder of a model: one of the package, by its name, or else the folder itself, which may not exist."""
    folder = Path(model).expanduser()
    if not folder.is_dir() and "/" not in model and (MODELS / model / FILE).is_file():
        return MODELS / model
    return folder


def absent(model: str) -> str:
    """What is said of a model that is not there."""
    names = ", ".join(shipped()) or "none"
    name = model if model.strip() else "an empty name"
    return f"{name} is neither a folder with {FILE} nor a model of the package ({names})"


def method_file(model: str) -> Path:
    """The file of a model that depends on all of its networks, by which identities know it."""
    return folder_of(model) / NETWORKS / METHOD_FILE
