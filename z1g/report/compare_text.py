"""A comparison as text for a terminal, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from z1g.core.names import counted
from z1g.report.compare import Comparison, Entry
from z1g.report.contenders import DIGESTED, Contender
from z1g.report.cost import COSTS, cost_text
from z1g.report.explain import explained
from z1g.report.peers import PEER_COSTS
from z1g.report.summary import Row, decimals
from z1g.report.tables import markdown_row, markdown_text, number, signed, tex_row, tex_text
from z1g.report.verdicts import Figure, spoken


@dataclass(frozen=True)
class TextTable:
    """A titled table of plain text."""

    title: str
    head: list[str]
    rows: list[list[str]]


def text_tables(comparison: Comparison) -> list[TextTable]:
    """The tables of a comparison: metrics, compared results, and options that differ."""
    names = [contender.name for contender in comparison.contenders]
    title = f"{comparison.source}, {comparison.split} set, {counted(comparison.n_objects, 'object')}"
    head = ["Metric", names[0], *(text for name in names[1:] for text in (name, f"Δ {name}"))]
    rows = [[comparison.metrics[metric].heading, *_cells(comparison, metric)] for metric in comparison.entries]
    about = [
        [label, *(get(contender) for contender in comparison.contenders)]
        for label, get in _facts(comparison.contenders)
    ]
    tables = [TextTable(title, head, rows), TextTable("Compared results", ["", *names], about)]
    if comparison.config:
        options = [[key, *map(_value, values)] for key, values in sorted(comparison.config.items())]
        tables.append(TextTable("Options that differ", ["Option", *names], options))
    return tables


def _cells(comparison: Comparison, metric: str) -> list[str]:
    entries = comparison.entries[metric]
    # All values of a metric have the same number of digits, as in the other tables.
    rows = [Row((), "", "", 0, {metric: entry.value}) for entry in entries if entry.value]
    digits = decimals(rows, metric)
    cells = []
    for i, entry in enumerate(entries):
        cells.append(_figure(entry.value, digits))
        if i:
            verdict = spoken(entry.judged.verdict, entry.judged.about) if entry.judged else ""
            gap = "–" if entry.difference is None else signed(entry.difference, digits)
            cells.append(f"{gap} {verdict}".rstrip())
    return cells


def _figure(figure: Figure | None, digits: int) -> str:
    if figure is None:
        return "–"
    if figure.low is None or figure.high is None:
        return number(figure.value, digits)
    return f"{number(figure.value, digits)} [{number(figure.low, digits)}, {number(figure.high, digits)}]"


def _facts(contenders: Sequence[Contender]) -> list[tuple[str, Callable[[Contender], str]]]:
    def stage(name: str) -> Callable[[Contender], str]:
        return lambda contender: contender.stages.get(name, "unknown")

    def digest(name: str) -> Callable[[Contender], str]:
        return lambda contender: contender.digests.get(name, "unknown")

    def price(name: str) -> Callable[[Contender], str]:
        return lambda contender: cost_text(contender.costs.get(name))

    facts: list[tuple[str, Callable[[Contender], str]]] = [("metrics id", lambda contender: contender.metrics_ids)]
    facts += [("seeds", lambda contender: _seeds(contender))]
    facts += [(f"{name} id", stage(name)) for name in ("ingest", "fit", "autodecoder", "unet", "infer")]
    facts += [(f"{name} files", digest(name)) for name in DIGESTED]
    facts += [("commit", lambda contender: (contender.measured.commit or "unknown")[:10])]
    facts += [(f"{info.label} ({info.unit})", price(name)) for name, info in COSTS.items()]
    if any(contender.is_peer for contender in contenders):
        more = {name: info for name, (_, info) in PEER_COSTS.items() if name not in COSTS}
        facts += [(f"{info.label} ({info.unit})", price(name)) for name, info in more.items()]
    return facts


def _seeds(contender: Contender) -> str:
    known = [str(member.seed) for member in contender.replicates.members if member.seed is not None]
    return ", ".join(known) or "one training"


def _value(value: Any) -> str:
    return "–" if value is ... else value if isinstance(value, str) else json.dumps(value)


def rich_text(comparison: Comparison) -> str:
    """Tables for a terminal; as wide as the text if the output is not a terminal."""
    stream = io.StringIO()
    width = max(_width(text_table) for text_table in text_tables(comparison))
    terminal = Console()
    console = Console(
        file=stream, width=terminal.width if terminal.is_terminal else width, force_terminal=terminal.is_terminal
    )
    for text_table in text_tables(comparison):
        table = Table(title=text_table.title, title_justify="left", title_style="bold")
        for i, name in enumerate(text_table.head):
            table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
        for row in text_table.rows:
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        console.print(table)
    for note in (*explained(comparison), *comparison.notes):
        console.print(note, markup=False, highlight=False)
    return stream.getvalue()


def _width(text_table: TextTable) -> int:
    columns = zip(text_table.head, *text_table.rows, strict=True)
    return max(len(text_table.title), sum(max(map(len, column)) + 3 for column in columns)) + 1


def markdown(comparison: Comparison) -> str:
    """Markdown tables."""
    lines: list[str] = []
    for text_table in text_tables(comparison):
        lines += [
            f"**{markdown_text(text_table.title)}**",
            "",
            markdown_row([markdown_text(x) for x in text_table.head]),
        ]
        lines.append(markdown_row(["---", *["---:"] * (len(text_table.head) - 1)]))
        lines += [*(markdown_row([markdown_text(cell) for cell in row]) for row in text_table.rows), ""]
    return (
        "\n".join([*lines, *(f"- {markdown_text(note)}" for note in (*explained(comparison), *comparison.notes))])
        + "\n"
    )


def latex(comparison: Comparison) -> str:
    """LaTeX booktabs tables."""
    lines = [r"% needs \usepackage{booktabs}"]
    for text_table in text_tables(comparison):
        lines += [
            f"% {text_table.title}",
            rf"\begin{{tabular}}{{@{{}}l{'r' * (len(text_table.head) - 1)}@{{}}}}",
            r"\toprule",
        ]
        lines += [tex_row([tex_text(cell) for cell in text_table.head]), r"\midrule"]
        lines += [tex_row([tex_text(cell) for cell in row]) for row in text_table.rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
    return (
        "\n".join([*lines, *(f"% {' '.join(note.split())}" for note in (*explained(comparison), *comparison.notes))])
        + "\n"
    )


def csv_text(comparison: Comparison) -> str:
    """One line per metric and result, with full precision."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ("result", "metrics_id", "commit", "split", "source", "metric", "unit", "higher_is_better", *_COLUMNS)
    )
    for metric, entries in comparison.entries.items():
        info = comparison.metrics[metric]
        for contender, entry in zip(comparison.contenders, entries, strict=True):
            head = (
                contender.name,
                contender.metrics_ids,
                contender.measured.commit or "",
                comparison.split,
                comparison.source,
                metric,
                info.unit,
            )
            writer.writerow((*head, info.higher_is_better, *_numbers(entry)))
    return stream.getvalue()


_FIGURE = ("mean", "low", "high", "n_objects", "n_seeds")
_COLUMNS = (
    *_FIGURE,
    "difference",
    *(f"difference_{name}" for name in _FIGURE[1:]),
    "p",
    "p_family",
    "verdict",
    "about",
)


def _numbers(entry: Entry) -> list[str]:
    values: list[float | None] = []
    for figure in (entry.value, entry.difference):
        values += [None] * 5 if figure is None else [figure.value, figure.low, figure.high, figure.n, figure.seeds]
    one = entry.judged
    values += [one.p, one.p_family] if one else [None, None]
    words = [one.verdict, one.about] if one else ["", ""]
    return [*("" if value is None else repr(value) for value in values), *words]


def json_text(comparison: Comparison) -> str:
    """The complete comparison, for programs."""
    results = [
        {
            "name": contender.name,
            "metrics_id": contender.metrics_ids,
            "seeds": [member.seed for member in contender.replicates.members],
            "replicated": list(contender.replicates.replicated),
            "stages": contender.stages,
            "commit": contender.measured.commit,
            "costs": contender.costs,
            "digests": contender.digests,
            "metrics": {name: _entry(entries[i]) for name, entries in comparison.entries.items()},
        }
        for i, contender in enumerate(comparison.contenders)
    ]
    options = {key: [None if v is ... else v for v in values] for key, values in comparison.config.items()}
    about = {"split": comparison.split, "source": comparison.source, "objects": comparison.n_objects}
    about |= {"differences_tested": comparison.family, "correction": "Holm"}
    metrics = {name: asdict(info) for name, info in comparison.metrics.items()}
    rankings = {
        name: {
            "verdicts": ranking.verdicts(),
            "may_be_best": [comparison.contenders[i].name for i in ranking.tied],
            "about": ranking.subject,
        }
        for name, ranking in comparison.rankings.items()
    }
    document = {
        **about, "metrics": metrics, "results": results, "rankings": rankings, "options": options,
        "explained": explained(comparison), "notes": comparison.notes,
    }  # fmt: skip
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _entry(entry: Entry) -> dict[str, Any]:
    """An entry as a flat document, with its variance components left out."""
    one = entry.judged
    judged = {name: getattr(one, name) if one else None for name in ("p", "p_family", "verdict", "about")}
    figures = {"value": entry.value, "difference": entry.difference}
    return {
        **{name: None if item is None else asdict(item) for name, item in figures.items()},
        **judged,
        "left_out": entry.left_out,
    }


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "rich": rich_text,
    "md": markdown,
    "csv": csv_text,
    "tex": latex,
    "json": json_text,
}
