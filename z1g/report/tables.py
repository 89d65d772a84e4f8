"""Comparison tables as CSV, Markdown and LaTeX."""

import csv
import io
from collections.abc import Iterator

from z1g.report.summary import SOURCES, SPLITS, Figure, Row, Summary, best, decimals

INTERVAL_NOTE = (
    "Mean over objects of each object's mean over views; in brackets the 95 % bootstrap interval over objects. "
    "Bold: best sampled value of the split. n: objects."
)
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "²": r"\textsuperscript{2}",
    "Δ": r"$\Delta$",
}


def csv_text(rows: list[Row]) -> str:
    """One line per ablation, source, split and metric, with full precision."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("ablation", "source", "split", "metric", "value", "low", "high", "n"))
    for row in rows:
        for metric, figure in row.figures.items():
            values = (figure.value, figure.low, figure.high)
            numbers = ["" if value is None else repr(value) for value in values]
            writer.writerows((name, row.source, row.split, metric, *numbers, figure.n) for name in row.ablations)
    return stream.getvalue()


def markdown(summary: Summary) -> str:
    """A Markdown table followed by notes."""
    head = ["Split", "Source", "Ablation", "n", *(markdown_text(info.heading) for info in summary.metrics.values())]
    lines = [markdown_row(head), markdown_row(["---"] * 3 + ["---:"] * (len(head) - 3))]
    for row, cells in _cells(summary, "**{}**", "{} [{}, {}]"):
        lines.append(
            markdown_row(
                [row.split, markdown_text(source_label(row)), markdown_text(summary.served(row)), str(row.n), *cells]
            )
        )
    notes = [
        INTERVAL_NOTE,
        *(f"{markdown_text(name)} is missing: {markdown_text(why)}" for name, why in summary.missing.items()),
    ]
    notes += [f"{markdown_text(name)}: {markdown_text(why)}" for name, why in summary.gaps.items()]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"


def latex(summary: Summary) -> str:
    """A LaTeX booktabs table with one group of rows per split."""
    metrics = summary.metrics
    head = ["Source", "Ablation", "$n$", *(tex_text(info.heading) for info in metrics.values())]
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{@{{}}llr{'r' * len(metrics)}@{{}}}}",
        r"\toprule",
        tex_row(head),
    ]
    split = source = None
    for row, cells in _cells(summary, r"\textbf{{{}}}", r"{} {{\scriptsize[{}, {}]}}"):
        if row.split != split:
            title = tex_text(SPLITS.get(row.split, row.split))
            lines += [r"\midrule", rf"\multicolumn{{{len(head)}}}{{@{{}}l}}{{\emph{{{title}}}}} \\"]
            split, source = row.split, None
        label = "" if row.source == source else tex_text(source_label(row))
        source = row.source
        lines.append(tex_row([label, tex_text(summary.served(row)), str(row.n), *cells]))
    notes = [INTERVAL_NOTE, *(f"{name} is missing: {why}" for name, why in summary.missing.items())]
    notes += [f"{name}: {why}" for name, why in summary.gaps.items()]
    comments = [f"% {' '.join(note.split())}" for note in notes]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *comments]) + "\n"


def source_label(row: Row) -> str:
    """Display name of a row's source."""
    return SOURCES.get(row.source, row.source)


def number(value: float, digits: int) -> str:
    """Format with a fixed number of decimals; never returns a negative zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _cells(summary: Summary, bold: str, interval: str) -> Iterator[tuple[Row, list[str]]]:
    rows, marked = summary.merged, best(summary.merged, summary.metrics)
    digits = {metric: decimals(rows, metric) for metric in summary.metrics}
    for index, row in enumerate(rows):
        cells = []
        for metric in summary.metrics:
            style = bold if (index, metric) in marked else "{}"
            cells.append(_cell(row.figures.get(metric), digits[metric], style, interval))
        yield row, cells


def _cell(figure: Figure | None, digits: int, style: str, interval: str) -> str:
    if figure is None:
        return "–" if "scriptsize" not in interval else "--"
    value = style.format(number(figure.value, digits))
    if figure.low is None or figure.high is None:
        return value
    return interval.format(value, number(figure.low, digits), number(figure.high, digits))


def markdown_row(cells: list[str]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def markdown_text(text: str) -> str:
    """Escape text for a Markdown table."""
    for mark in ("\\", "|", "*", "<", "`"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def tex_row(cells: list[str]) -> str:
    """One row of a LaTeX table."""
    return " & ".join(cells) + r" \\"


def tex_text(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
