"""Figures of several GPUs as rows of a Markdown table."""

from collections.abc import Mapping
from typing import Any

COLUMNS = (
    "stage", "GPUs", "objects a GPU", "samples/s", "efficiency", "step", "averages: alone, added", "sent a step",
    "memory a GPU",
)  # fmt: skip


def markdown(figures: Mapping[str, Any]) -> str:
    """A table of the rows, with medians and, in brackets, the smallest and the largest value."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in figures["rows"]:
        if "error" in row:
            lines.append(f"| {row['name']} | {row['error']} |" + " |" * (len(COLUMNS) - 2))
            continue
        cells = [
            row["stage"] if row["mode"] == "one" else f"{row['stage']}, {row['mode']}",
            str(row["gpus"]),
            str(row["batch_a_gpu"]),
            _spread(row["samples_per_s"], 1, "{:.3g}"),
            _spread(row["efficiency"], 100, "{:.1f}") + " %" if "efficiency" in row else "",
            _spread(row["step_s"], 1000, "{:.1f}") + " ms",
            _averages(row),
            f"{row['sent_mib_a_step']:,.0f} MiB" if "sent_mib_a_step" in row else "",
            _memory(row["memory_mib"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _averages(row: Mapping[str, Any]) -> str:
    if "average_s" not in row:
        return ""
    return f"{1000 * row['average_s']['median']:.1f}, {1000 * row['average_adds_s']['median']:.1f} ms"


def _memory(memory: list[int | None]) -> str:
    known = [mib for mib in memory if mib is not None]
    return f"{max(known) / 1024:.1f} GiB" if known else ""


def _spread(values: Mapping[str, float], factor: float, form: str) -> str:
    least, median, most = (form.format(factor * values[name]) for name in ("min", "median", "max"))
    return median if least == most else f"{median} ({least}–{most})"
