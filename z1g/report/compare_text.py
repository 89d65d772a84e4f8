"""A comparison as text: for a terminal, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from z1g.report.compare import DIGESTED, Comparison, Contender, Entry, better, clear
from z1g.report.cost import COSTS, cost_text
from z1g.report.summary import Figure, Row, decimals
from z1g.report.tables import markdown_row, markdown_text, number, tex_row, tex_text

NOTE = (
    "Mean over objects with its 95 % bootstrap interval; Δ is the mean of the objects' differences to the first, with "
    "the interval of that mean. Where it leaves out zero, better or worse is said: weak evidence with few objects. "
    "Numbers of whole sets have no interval."
)


@dataclass(frozen=True)
class Sheet:
    """A titled table of plain text."""

    title: str
    head: list[str]
    rows: list[list[str]]


def sheets(found: Comparison) -> list[Sheet]:
    """The tables of a comparison: metrics, what was compared, and options that differ."""
    names = [one.name for one in found.contenders]
    title = f"{found.source}, {found.split} set, {found.n_objects} object{'' if found.n_objects == 1 else 's'}"
    head = ["Metric", names[0], *(text for name in names[1:] for text in (name, f"Δ {name}"))]
    rows = [[found.metrics[metric].heading, *_cells(found, metric)] for metric in found.entries]
    about = [[label, *(get(one) for one in found.contenders)] for label, get in _facts(found.contenders)]
    tables = [Sheet(title, head, rows), Sheet("What was compared", ["", *names], about)]
    if found.config:
        options = [[key, *map(_value, values)] for key, values in sorted(found.config.items())]
        tables.append(Sheet("Options that differ", ["Option", *names], options))
    return tables


def _cells(found: Comparison, metric: str) -> list[str]:
    entries, info = found.entries[metric], found.metrics[metric]
    # One number of digits a metric, as in the other tables.
    rows = [Row((), "", "", 0, {metric: entry.value}) for entry in entries if entry.value]
    digits = decimals(rows, metric)
    cells = []
    for i, entry in enumerate(entries):
        cells.append(_figure(entry.value, digits))
        if i:
            gap = entry.difference
            verdict = "" if gap is None or not clear(gap) else {True: " better", False: " worse", None: ""}[
                better(gap, info)
            ]  # fmt: skip
            cells.append(_figure(gap, digits, sign="+") + verdict)
    return cells


def _figure(found: Figure | None, digits: int, sign: str = "") -> str:
    if found is None:
        return "–"
    text = [f"{value:{sign}.{digits}f}" if sign else number(value, digits) for value in _ends(found)]
    return text[0] if len(text) == 1 else f"{text[0]} [{text[1]}, {text[2]}]"


def _ends(found: Figure) -> list[float]:
    return [x for x in (found.value, found.low, found.high) if x is not None]


def _facts(contenders: Sequence[Contender]) -> list[tuple[str, Callable[[Contender], str]]]:
    def stage(name: str) -> Callable[[Contender], str]:
        return lambda one: one.stages.get(name, "unknown")

    def digest(name: str) -> Callable[[Contender], str]:
        return lambda one: one.digests.get(name, "unknown")

    def price(name: str) -> Callable[[Contender], str]:
        return lambda one: cost_text(one.costs.get(name))

    facts: list[tuple[str, Callable[[Contender], str]]] = [("metrics id", lambda one: one.folder.name)]
    facts += [(f"{name} id", stage(name)) for name in ("ingest", "fit", "autodecoder", "unet", "infer")]
    facts += [(f"{name} files", digest(name)) for name in DIGESTED]
    facts += [("commit", lambda one: (one.measured.commit or "unknown")[:10])]
    return facts + [(f"{info.label} ({info.unit})", price(name)) for name, info in COSTS.items()]


def _value(value: Any) -> str:
    return "–" if value is ... else value if isinstance(value, str) else json.dumps(value)


def rich_text(found: Comparison) -> str:
    """For a terminal, or as wide as the text where it is none."""
    stream = io.StringIO()
    width = max(_width(sheet) for sheet in sheets(found))
    shown = Console()
    console = Console(file=stream, width=shown.width if shown.is_terminal else width, force_terminal=shown.is_terminal)
    for sheet in sheets(found):
        table = Table(title=sheet.title, title_justify="left", title_style="bold")
        for i, name in enumerate(sheet.head):
            table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
        for row in sheet.rows:
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        console.print(table)
    for note in (NOTE, *found.notes):
        console.print(note, markup=False, highlight=False)
    return stream.getvalue()


def _width(sheet: Sheet) -> int:
    columns = zip(sheet.head, *sheet.rows, strict=True)
    return max(len(sheet.title), sum(max(map(len, column)) + 3 for column in columns)) + 1


def markdown(found: Comparison) -> str:
    """Pipe tables."""
    lines: list[str] = []
    for sheet in sheets(found):
        lines += [f"**{markdown_text(sheet.title)}**", "", markdown_row([markdown_text(x) for x in sheet.head])]
        lines.append(markdown_row(["---", *["---:"] * (len(sheet.head) - 1)]))
        lines += [*(markdown_row([markdown_text(cell) for cell in row]) for row in sheet.rows), ""]
    return "\n".join([*lines, *(f"- {markdown_text(note)}" for note in (NOTE, *found.notes))]) + "\n"


def latex(found: Comparison) -> str:
    """Booktabs tabulars."""
    lines = [r"% needs \usepackage{booktabs}"]
    for sheet in sheets(found):
        lines += [f"% {sheet.title}", rf"\begin{{tabular}}{{@{{}}l{'r' * (len(sheet.head) - 1)}@{{}}}}", r"\toprule"]
        lines += [tex_row([tex_text(cell) for cell in sheet.head]), r"\midrule"]
        lines += [tex_row([tex_text(cell) for cell in row]) for row in sheet.rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {' '.join(note.split())}" for note in (NOTE, *found.notes))]) + "\n"


def csv_text(found: Comparison) -> str:
    """A line for each metric and contender, full precision."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = ("value", "low", "high", "n", "difference", "difference_low", "difference_high", "difference_n")
    writer.writerow(
        ("result", "metrics_id", "commit", "split", "source", "metric", "unit", "higher_is_better", *columns)
    )
    for metric, entries in found.entries.items():
        info = found.metrics[metric]
        for one, entry in zip(found.contenders, entries, strict=True):
            head = (one.name, one.folder.name, one.measured.commit or "", found.split, found.source, metric, info.unit)
            writer.writerow((*head, info.higher_is_better, *_numbers(entry)))
    return stream.getvalue()


def _numbers(entry: Entry) -> list[str]:
    values: list[float | None] = []
    for found in (entry.value, entry.difference):
        values += [None] * 4 if found is None else [found.value, found.low, found.high, found.n]
    return ["" if value is None else repr(value) for value in values]


def json_text(found: Comparison) -> str:
    """Everything, for programs."""
    results = [
        {
            "name": one.name,
            "metrics_id": one.folder.name,
            "stages": one.stages,
            "commit": one.measured.commit,
            "costs": one.costs,
            "digests": one.digests,
            "metrics": {name: asdict(entries[i]) for name, entries in found.entries.items()},
        }
        for i, one in enumerate(found.contenders)
    ]
    options = {key: [None if v is ... else v for v in values] for key, values in found.config.items()}
    about = {"split": found.split, "source": found.source, "objects": found.n_objects}
    metrics = {name: asdict(info) for name, info in found.metrics.items()}
    document = {**about, "metrics": metrics, "results": results, "options": options, "notes": found.notes}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "rich": rich_text,
    "md": markdown,
    "csv": csv_text,
    "tex": latex,
    "json": json_text,
}
