"""The model card of an ablation: what the model is, what it saw, how good it is and what it cost."""

from typing import Any

from z1g.report.collect import Ablation, Measurements
from z1g.report.cost import COSTS, cost_text
from z1g.report.summary import SPLITS, Row, decimals
from z1g.report.tables import markdown_row, markdown_text, number, source_label


def model_card(ablation: Ablation, facts: dict[str, Any], measured: Measurements | None, rows: list[Row]) -> str:
    """Markdown, from what `reproduce` and the metrics stage found; it says what is not known."""
    data = facts["data"]
    ids = ", ".join(f"{stage} {found['id']}" for stage, found in facts["stages"].items())
    lines = [
        f"# {markdown_text(ablation.name)}",
        "",
        markdown_text(ablation.description) or "No description was given.",
        "",
        "A Zero-1-to-G model: one photograph in, six splatter images (3D Gaussians) out. "
        f"Base configuration `{ablation.base}`; resolved options in `config.json`.",
        "",
        "## Files",
        "",
        "- `stages/autodecoder/model`: stage 1, codes to splatter images (safetensors, diffusers' layout)",
        "- `stages/unet/pipeline`: stage 2, photograph to codes",
        "- `stages/infer/chunk-*`: samples as 3DGS `.ply`, sheets and turntables",
        "",
        "## Options that differ from the base",
        "",
        *([f"- `{key}`: `{value}`" for key, value in facts["differences"].items()] or ["None."]),
        "",
        "## Training data",
        "",
        *_data(data),
        "",
        "## Results",
        "",
        *_results(measured, rows),
        "",
        "## Limits",
        "",
        "- Trained and measured on renders of single objects on an empty background, from one distance.",
        "- The unseen side is sampled: it is plausible at best, not true.",
        f"- {_sample_size(rows)}",
        "",
        "## Cost",
        "",
        *(f"- {info.label}: {cost_text(facts['costs'].get(name))} {info.unit}" for name, info in COSTS.items()),
        "",
        "## Made with",
        "",
        f"- commit {', '.join(facts['commits']) or 'not recorded'}"
        + (", with changes that no commit has" if facts["changed_since_commit"] else ""),
        *(f"- {_machine(machine)}" for machine in facts["hardware"] or [None]),
        *(f"- {', '.join(f'{name} {version}' for name, version in found.items())}" for found in facts["versions"]),
        f"- seeds: {', '.join(f'{key} {value}' for key, value in facts['seeds'].items()) or 'none'}",
        f"- stage ids: {ids}",
        "",
        "Again:",
        "",
        f"    {facts['command']}",
        f"    z1g verify results/ablations/{ablation.name}",
    ]
    return "\n".join(lines) + "\n"


def _data(data: dict[str, Any]) -> list[str]:
    if data["manifest"] is None:
        return ["The list of objects could not be read."]
    lines = [f"{data['objects']} objects, list of SHA-256 {data['manifest'][:16]}…, in part held out for testing."]
    return lines + [f"- {n} under {markdown_text(terms)}" for terms, n in data["licenses"].items()]


def _results(measured: Measurements | None, rows: list[Row]) -> list[str]:
    if measured is None or not rows:
        return ["Not measured yet."]
    metrics = {name: info for name, info in measured.metrics.items() if any(name in row.figures for row in rows)}
    head = ["Objects", "Source", "n", *(markdown_text(info.heading) for info in metrics.values())]
    lines = [markdown_row(head), markdown_row(["---"] * 2 + ["---:"] * (len(head) - 2))]
    for row in rows:
        cells = [
            number(row.figures[name].value, decimals(rows, name)) if name in row.figures else "–" for name in metrics
        ]
        lines.append(markdown_row([SPLITS.get(row.split, row.split), source_label(row), str(row.n), *cells]))
    left = [
        f"- {measured.metrics[name].label} is missing: {markdown_text(why)}" for name, why in measured.missing.items()
    ]
    return [*lines, "", "Means over objects; intervals in `metrics.csv`.", *left]


def _sample_size(rows: list[Row]) -> str:
    n = max((row.n for row in rows if row.split == "test"), default=0)
    if n == 0:
        return "No test object was measured."
    return f"Measured on {n} test object{'' if n == 1 else 's'}" + (
        ": too few for more than a look." if n < 30 else "."
    )


def _machine(machine: dict[str, Any] | None) -> str:
    if machine is None:
        return "hardware not recorded"
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    nodes = f", {machine['nodes']} nodes" if machine["nodes"] > 1 else ""
    return f"{machine['cpu']}, {machine['cores']} cores, {gpus}{nodes}"
