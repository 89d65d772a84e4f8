"""Required files of folders in the layouts of published pipelines; nothing is loaded here."""

import re
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.files import read_json

WEIGHTS = {
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "vision_encoder": "model",
    "text_encoder": "model",
    "image_encoder": "model",
}
"""Parts with weights, and the stem of their file."""
ZERO123PLUS = ("vae", "unet", "vision_encoder", "text_encoder")
IMAGE_VARIATIONS = ("vae", "unet", "image_encoder")
"""Parts with weights of the pipelines."""
FORMS: tuple[dict[str, Any], ...] = (
    {"use_safetensors": True},
    {"use_safetensors": True, "variant": "fp16"},
    {"use_safetensors": False},
    {"use_safetensors": False, "variant": "fp16"},
)
"""Supported formats of weights in the order of preference. Pickles are read as plain tensors, never executed."""
INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
PROCESSORS = ("feature_extractor_vae/preprocessor_config.json", "feature_extractor_clip/preprocessor_config.json")
VARIATIONS_NAME = "pipeline of image variations"
VARIATIONS_PROCESSOR = "feature_extractor/preprocessor_config.json"
PATH = re.compile(r"^[/.~]|\\|/.*/")
"""Matches paths; hub names have the form `owner/name`."""


def is_path(pretrained: str) -> bool:
    """Whether the string is a path and not a hub name."""
    return bool(PATH.search(pretrained))


def form_of(folder: Path, part: str) -> dict[str, Any] | None:
    """The format of a part's weights, or None if it has none."""
    return next((form for form in FORMS if _files(folder / part, WEIGHTS[part], form)), None)


def _files(folder: Path, stem: str, form: dict[str, Any]) -> list[Path]:
    pickled = not form["use_safetensors"]
    if pickled and stem == "model":
        stem = "pytorch_model"
    variant, ending = f".{form['variant']}" if "variant" in form else "", "bin" if pickled else "safetensors"
    names = (f"{stem}{variant}.{ending}", f"{stem}.{ending}.index{variant}.json")
    return [folder / name for name in names if (folder / name).is_file()]


def missing(folder: Path, parts: tuple[str, ...]) -> list[str]:
    """Missing files of the given parts, relative to the folder."""
    absent = []
    for part in parts:
        if not (folder / part).is_dir():
            absent.append(part)
            continue
        if not (folder / part / "config.json").is_file():
            absent.append(f"{part}/config.json")
        if form_of(folder, part) is None:
            absent.append(f"{part}/{WEIGHTS[part]}.safetensors")
    return absent


def missing_in_pipeline(folder: Path, processors: tuple[str, ...]) -> list[str]:
    """Missing files of Zero123++'s pipeline, relative to the folder. processors: files of image processors."""
    absent = [] if (folder / INDEX).is_file() else [INDEX]
    absent += missing(folder, ZERO123PLUS)
    absent += [name for name in (SCHEDULER, *processors) if not (folder / name).is_file()]
    tokenizer = folder / "tokenizer"
    if not tokenizer.is_dir():
        absent.append("tokenizer")
    elif not (tokenizer / "tokenizer.json").is_file():
        absent += [f"tokenizer/{name}" for name in ("vocab.json", "merges.txt") if not (tokenizer / name).is_file()]
    return absent


def missing_in_variations(folder: Path) -> list[str]:
    """Missing files of Stable Diffusion's pipeline of image variations, relative to the folder."""
    absent = missing(folder, IMAGE_VARIATIONS)
    return absent + [name for name in (SCHEDULER, VARIATIONS_PROCESSOR) if not (folder / name).is_file()]


def clips(scheduler: Path) -> bool:
    """Whether DDPM clips predicted codes with these settings; an absent key means diffusers' default, which is true.

    scheduler: the file `scheduler_config.json`. Raises UserError if it cannot be used.
    """
    try:
        return clip_sample(scheduler, absent=True)
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"model.pretrained: {scheduler} cannot be used: {error}") from error


def clip_sample(scheduler: Path, absent: bool) -> bool:
    """The value of `clip_sample` in a scheduler's file, or `absent`. Raises OSError, ValueError or AttributeError."""
    clip = read_json(scheduler).get("clip_sample", absent)
    if not isinstance(clip, bool):
        raise ValueError(f"clip_sample is {clip!r}, neither true nor false")
    return clip


def other_process(folder: Path, expected: tuple[str, str] = ("v_prediction", "linear")) -> str | None:
    """Difference of the pipeline's scheduler from a prediction and betas, by default Zero123++'s, or None."""
    try:
        settings = read_json(folder / SCHEDULER)
        prediction = settings.get("prediction_type", "epsilon")
        betas = settings.get("beta_schedule", "linear")
    except (OSError, ValueError, AttributeError):
        return None
    if prediction != expected[0]:
        return f"predicts {prediction}"
    return None if betas == expected[1] else f"has {betas} betas"
