"""The model card of an ablation: model, training data, results, limitations and cost."""

import re
from typing import Any

from z1g.core.names import counted
from z1g.networks.weights.packaged import CARD
from z1g.report.collect import Ablation, Measurements
from z1g.report.cost import COSTS, cost_text
from z1g.report.data import NO_LICENSE, SET_ASIDE
from z1g.report.statistics import MIN_OBJECTS
from z1g.report.summary import SPLITS, Row, decimals
from z1g.report.tables import markdown_row, markdown_text, number, source_label

PARTS = ("train", "test", "test_unseen", "unused", SET_ASIDE)
"""Splits in the order in which the card names them."""


def model_card(ablation: Ablation, facts: dict[str, Any], measured: Measurements | None, rows: list[Row]) -> str:
    """Return the model card as Markdown. Missing information is stated.

    `facts` is the content of `reproduce.json`, `rows` are the summary rows of `measured`.
    """
    data = facts["data"]
    ids = ", ".join(f"{stage} {record['id']}" for stage, record in facts["stages"].items())
    lines = [
        f"# {markdown_text(ablation.name)}",
        "",
        markdown_text(ablation.description) or "No description.",
        "",
        "A Zero-1-to-G model: it generates six splatter images (3D Gaussians) from one image. "
        f"Base configuration `{ablation.base}`; resolved options in `config.json`.{_kind(ablation.config)}",
        *_origin(ablation.config),
        "",
        "## Files",
        "",
        "- `stages/autodecoder/model`: stage 1, codes to splatter images (safetensors, diffusers' layout)",
        "- `stages/unet/pipeline`: stage 2, image to codes",
        "- `stages/infer/chunk-*`: samples as 3DGS `.ply`, mosaics and turntables",
        "",
        "## Options that differ from the base",
        "",
        *([f"- `{key}`: `{value}`" for key, value in facts["differences"].items()] or ["None."]),
        "",
        "## Training data",
        "",
        *_data(data),
        *([facts["clipped"]] if "clipped" in facts else []),
        "",
        "## Results",
        "",
        *_results(measured, rows),
        "",
        "## Limitations",
        "",
        "- Trained and evaluated on renders of single objects without background, at a fixed camera distance.",
        f"- {_unseen_parts(ablation.config)}",
        f"- {_sample_size(rows)}",
        f"- {_training_noise(ablation)}",
        "",
        "## Cost",
        "",
        *(f"- {info.label}: {cost_text(facts['costs'].get(name))} {info.unit}" for name, info in COSTS.items()),
        "",
        "## Provenance",
        "",
        f"- commit {', '.join(facts['commits']) or 'not recorded'}"
        + (", with uncommitted changes" if facts["changed_since_commit"] else ""),
        *(f"- {_machine(machine)}" for machine in facts["hardware"] or [None]),
        *(
            f"- {', '.join(f'{name} {version}' for name, version in packages.items())}"
            for packages in facts["versions"]
        ),
        f"- seeds: {', '.join(f'{key} {value}' for key, value in facts['seeds'].items()) or 'none'}",
        f"- stage ids: {ids}",
        "",
        "To reproduce and verify:",
        "",
        f"    {facts['command']}",
        f"    z1g verify results/ablations/{ablation.name}",
    ]
    return "\n".join(lines) + "\n"


def packed_card(text: str) -> str:
    """The card of a run for the folder that `z1g pack` writes, which has other files."""
    text = text.replace("; resolved options in `config.json`", "")
    files = "- `pipeline`: the networks of both stages, each with its digest\n- `model.json`: how to sample from them\n"
    return re.sub(r"(?<=## Files\n\n)(?:- .*\n)+", files, text, count=1)


def _kind(config: dict[str, Any]) -> str:
    """What the stages exchange, and how stage 2 generates it."""
    kind, unet = config.get("representation", {}).get("kind"), config.get("unet", {})
    if not kind or not unet.get("objective"):
        return ""
    distill = unet.get("distill")
    steps = f", distilled to sampling in {counted(distill['steps'], 'step')} without guidance" if distill else ""
    return f" Representation `{kind}`, stage 2 by {unet['objective']}{steps}."


def _unseen_parts(config: dict[str, Any]) -> str:
    """Where the parts of an object come from that its image does not show."""
    if config.get("unet", {}).get("objective") == "regression":
        return "Unseen parts of an object are the mean of what is possible: they are blurred, not reconstructed."
    return "Unseen parts of an object are sampled: they are plausible at best, not reconstructed."


def _origin(config: dict[str, Any]) -> list[str]:
    """What is said of the trained model that training started from."""
    model = config.get("model", {})
    if model.get("kind") != "trained":
        return []
    return [
        "",
        f"Finetuned from the trained model `{model['pretrained']}`; its `{CARD}` says what it was trained on and under "
        "which terms.",
    ]


def _data(data: dict[str, Any]) -> list[str]:
    if data["manifest"] is None:
        return ["The manifest could not be read."]
    digest = f"SHA-256 of the manifest {data['manifest'][:16]}…"
    splits = data.get("splits")  # what earlier versions recorded has none
    parts = ", ".join(f"{splits[name]:,} {name}" for name in PARTS if name in splits) if splits else ""
    held_out = f": {parts}" if parts else ", some of them held out for testing"
    lines = [f"{data['objects']} objects{held_out}; {digest}."]
    return lines + [
        f"- {n} {'with ' if terms == NO_LICENSE else 'under '}{markdown_text(terms)}"
        for terms, n in data["licenses"].items()
    ]


def _results(measured: Measurements | None, rows: list[Row]) -> list[str]:
    if measured is None or not rows:
        return ["Not measured yet."]
    metrics = {name: info for name, info in measured.metrics.items() if any(name in row.figures for row in rows)}
    head = ["Objects", "Source", "n", *(markdown_text(info.heading) for info in metrics.values())]
    lines = [markdown_row(head), markdown_row(["---"] * 2 + ["---:"] * (len(head) - 2))]
    for row in rows:
        cells = [_cell(rows, row, name) for name in metrics]
        lines.append(markdown_row([SPLITS.get(row.split, row.split), source_label(row), str(row.n), *cells]))
    missing = [
        f"- {measured.metrics[name].label} is missing: {markdown_text(why)}" for name, why in measured.missing.items()
    ]
    return [*lines, "", f"Means over objects. {_reading(rows)}", *missing]


def _cell(rows: list[Row], row: Row, name: str) -> str:
    figure, digits = row.figures.get(name), decimals(rows, name)
    if figure is None:
        return "–"
    if figure.low is None or figure.high is None:
        return number(figure.value, digits)
    return f"{number(figure.value, digits)} [{number(figure.low, digits)}, {number(figure.high, digits)}]"


def _reading(rows: list[Row]) -> str:
    """How to read the intervals, if there are any."""
    if any(figure.low is not None for row in rows for figure in row.figures.values()):
        return (
            f"[low, high] is the 95 % interval over objects, given from {MIN_OBJECTS} objects: with other objects of "
            "the same kind, about 95 of 100 such intervals would contain this model's true mean."
        )
    return f"There are too few objects for intervals, which take at least {MIN_OBJECTS}."


def _sample_size(rows: list[Row]) -> str:
    n = max((row.n for row in rows if row.split == "test"), default=0)
    if n == 0:
        return "No test object was measured."
    text = f"Measured on {counted(n, 'test object')}"
    return text + (
        f": too few to say anything about other objects (at least {MIN_OBJECTS})." if n < MIN_OBJECTS else "."
    )


def _training_noise(ablation: Ablation) -> str:
    """What one training says about the method."""
    if ablation.seed is None:
        return (
            "Trained with one seed: how much results change from one training to the next (training noise) is unknown. "
            "The numbers above are about this model, not about its method."
        )
    repeated = f" of {', '.join(ablation.replicated)}" if ablation.replicated else ""
    return (
        f"This is seed {ablation.seed}{repeated} of `{ablation.arm}`: the numbers above are about this model. "
        f"`z1g compare {ablation.arm}` has means and intervals over all seeds."
    )


def _machine(machine: dict[str, Any] | None) -> str:
    if machine is None:
        return "hardware not recorded"
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    nodes = f", {machine['nodes']} nodes" if machine["nodes"] > 1 else ""
    return f"{machine['cpu']}, {machine['cores']} cores, {gpus}{nodes}"
