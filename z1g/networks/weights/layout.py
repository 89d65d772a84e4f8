"""What a folder in the layout of the published Zero123++ pipeline must hold; nothing is loaded here."""

import json
import re
from pathlib import Path
from typing import Any

WEIGHTS = {
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "vision_encoder": "model",
    "text_encoder": "model",
}
"""Parts with weights, and the stem of their file. The scheduler and feature extractors are settings z1g has itself."""
FORMS: tuple[dict[str, Any], ...] = (
    {"use_safetensors": True},
    {"use_safetensors": True, "variant": "fp16"},
    {"use_safetensors": False},
    {"use_safetensors": False, "variant": "fp16"},
)
"""How weights may be stored, in the order of preference. Pickled ones are read as plain tensors, never executed."""
INDEX = "model_index.json"
PATH = re.compile(r"^[/.~]|\\|/.*/")
"""What is no hub name, which is `owner/name`."""


def is_path(pretrained: str) -> bool:
    """Whether this can only be a folder on this machine."""
    return bool(PATH.search(pretrained))


def form_of(folder: Path, part: str) -> dict[str, Any] | None:
    """How a part's weights are stored, None where there are none."""
    return next((form for form in FORMS if _files(folder / part, WEIGHTS[part], form)), None)


def _files(folder: Path, stem: str, form: dict[str, Any]) -> list[Path]:
    pickled = not form["use_safetensors"]
    if pickled and stem == "model":
        stem = "pytorch_model"
    variant, ending = f".{form['variant']}" if "variant" in form else "", "bin" if pickled else "safetensors"
    names = (f"{stem}{variant}.{ending}", f"{stem}.{ending}.index{variant}.json")
    return [folder / name for name in names if (folder / name).is_file()]


def missing(folder: Path, parts: tuple[str, ...] = tuple(WEIGHTS)) -> list[str]:
    """What the parts of a folder lack, by path below it."""
    lacking = []
    for part in parts:
        if not (folder / part).is_dir():
            lacking.append(part)
            continue
        if not (folder / part / "config.json").is_file():
            lacking.append(f"{part}/config.json")
        if form_of(folder, part) is None:
            lacking.append(f"{part}/{WEIGHTS[part]}.safetensors")
    return lacking


def missing_in_pipeline(folder: Path) -> list[str]:
    """What a whole pipeline lacks."""
    lacking = [] if (folder / INDEX).is_file() else [INDEX]
    lacking += missing(folder)
    words = folder / "tokenizer"
    if not words.is_dir():
        lacking.append("tokenizer")
    elif not (words / "tokenizer.json").is_file():
        lacking += [f"tokenizer/{name}" for name in ("vocab.json", "merges.txt") if not (words / name).is_file()]
    return lacking


def other_process(folder: Path) -> str | None:
    """What the pipeline's scheduler says otherwise than Zero123++'s: v is predicted, betas grow linearly."""
    try:
        settings = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        predicts = settings.get("prediction_type", "epsilon")
        betas = settings.get("beta_schedule", "linear")
    except (OSError, ValueError, AttributeError):
        return None
    if predicts != "v_prediction":
        return f"predicts {predicts}"
    return None if betas == "linear" else f"has {betas} betas"
