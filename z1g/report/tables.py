"""Comparison tables as CSV, Markdown and LaTeX."""

import csv
import io
from collections.abc import Iterator

from z1g.report.collect import MetricInfo
from z1g.report.left_out import left_out_text
from z1g.report.peers import cost_texts, coverage_texts
from z1g.report.published import HEADING, read_published
from z1g.report.statistics import MIN_SEEDS
from z1g.report.summary import SOURCES, SPLIT_NAMES, SPLITS, Row, Summary, best, decimals, rankings, verdict_words
from z1g.report.verdicts import HOW_TO_READ, Figure, Ranking, one_seed, ranking_text

MEANS = "Mean over objects (n) and training seeds of each object's mean over views."
BOLD = (
    "Bold: the samples among which the best one is, with 95 % confidence for each metric and split. Nothing is bold "
    "where none can be told from the best."
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


def csv_text(rows: list[Row], metrics: dict[str, MetricInfo] | None = None) -> str:
    """One line per ablation, source, split and metric, with full precision.

    With `metrics`, the samples are ranked: `verdict` is best, may be the best, worse than the best, or too few to say,
    and `about` says whether it is about methods or about trained models.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = ("mean", "low", "high", "n_objects", "n_seeds", "verdict", "about")
    writer.writerow(("ablation", "source", "split", "metric", *columns))
    verdicts = verdict_words(rows, metrics or {})
    for index, row in enumerate(rows):
        for metric, figure in row.figures.items():
            values = (figure.value, figure.low, figure.high)
            numbers = ["" if value is None else repr(value) for value in values]
            words = verdicts.get((index, metric), ("", ""))
            head = (row.source, row.split, metric)
            writer.writerows((name, *head, *numbers, figure.n, figure.seeds, *words) for name in row.ablations)
    return stream.getvalue()


def notes(summary: Summary) -> list[str]:
    """Sentences below the table: how to read it, who may be the best, and what is missing."""
    ranked = rankings(summary.merged, summary.metrics)
    sentences = [MEANS]
    if any(figure.low is not None for row in summary.merged for figure in row.figures.values()):
        sentences.append(HOW_TO_READ)
    sentences += [BOLD] if ranked else []
    once = trained_once(summary)
    sentences += [one_seed(once)] if once and ranked else []
    sentences += best_texts(summary)
    sentences += [f"{name} is left out: {why}." for name, why in summary.pruned.items()]
    sentences += [left_out_text(summary.budget)] if summary.budget else []
    sentences += [*coverage_texts(summary.peers), *cost_texts(summary.peers)]
    sentences += [f"{name} is missing: {why}" for name, why in summary.missing.items()]
    return sentences + [f"{name}: {why}" for name, why in summary.gaps.items()]


def trained_once(summary: Summary) -> list[str]:
    """Names of the ablations whose samples come from one training."""
    rows = [row for row in summary.merged if row.source == "sampled" and row.tables]
    once = {name for row in rows for name in row.ablations if row.seeds < MIN_SEEDS}
    return [name for name in summary.names if name in once]


def best_texts(summary: Summary) -> list[str]:
    """A sentence a split and metric on who may be the best; one a split where nothing can be said of any metric."""
    rows, texts = summary.merged, []
    by_split: dict[str, list[tuple[str, list[str], Ranking]]] = {}
    for (split, metric), (ranked, ranking) in rankings(rows, summary.metrics).items():
        names = [summary.served(rows[i]) for i in ranked]
        by_split.setdefault(split, []).append((summary.metrics[metric].label, names, ranking))
    for split, found in by_split.items():
        where = SPLITS.get(split, split)
        if all(ranking.why for _, _, ranking in found):
            texts.append(f"{where}: {ranking_text(found[0][2], found[0][1], 'all metrics')}")
        else:
            texts += [f"{where}, {ranking_text(ranking, names, label)}" for label, names, ranking in found]
    return texts


def markdown(summary: Summary) -> str:
    """A Markdown table followed by notes."""
    head = [
        "Split",
        "Source",
        "Ablation",
        "n",
        "Seeds",
        *(markdown_text(info.heading) for info in summary.metrics.values()),
    ]
    lines = [markdown_row(head), markdown_row(["---"] * 3 + ["---:"] * (len(head) - 3))]
    for row, cells in _cells(summary, "**{}**", "{} [{}, {}]"):
        lines.append(
            markdown_row(
                [
                    SPLIT_NAMES.get(row.split, row.split), markdown_text(source_label(row)),
                    markdown_text(summary.served(row)), str(row.n), str(row.seeds), *cells,
                ]
            )
        )  # fmt: skip
    lines += ["", *(f"- {markdown_text(note)}" for note in notes(summary)), *_published_lines()]
    return "\n".join(lines) + "\n"


def _published_lines() -> list[str]:
    """Tables of figures from papers, one a source and protocol, apart from the measured ones."""
    published = read_published()
    lines = ["", HEADING] if published else []
    for one in published:
        head = ["System", *one.names()]
        lines += ["", markdown_text(one.about()), "", markdown_row(head), markdown_row(["---"] * len(head))]
        lines += [markdown_row([markdown_text(cell) for cell in (system, *cells)]) for system, cells in one.rows()]
    return lines


def latex(summary: Summary) -> str:
    """A LaTeX booktabs table with one group of rows per split."""
    metrics = summary.metrics
    head = ["Source", "Ablation", "$n$", "Seeds", *(tex_text(info.heading) for info in metrics.values())]
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{@{{}}llrr{'r' * len(metrics)}@{{}}}}",
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
        lines.append(tex_row([label, tex_text(summary.served(row)), str(row.n), str(row.seeds), *cells]))
    comments = [f"% {' '.join(note.split())}" for note in notes(summary)]
    published = read_published()
    comments += [f"% {HEADING}" for _ in published[:1]]
    for one in published:
        comments.append(f"% {one.about()}")
        for system, cells in one.rows():
            figures = (f"{name} {cell}" for name, cell in zip(one.names(), cells, strict=True))
            comments.append(f"% {system}: {', '.join(figures)}")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *comments]) + "\n"


def source_label(row: Row) -> str:
    """Display name of a row's source."""
    return SOURCES.get(row.source, row.source)


def number(value: float, digits: int) -> str:
    """Format with a fixed number of decimals; never returns a negative zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(figure: Figure, digits: int) -> str:
    """A difference with its sign and, if known, its interval."""
    known = [x for x in (figure.value, figure.low, figure.high) if x is not None]
    ends = [f"{round(x, digits) + 0.0:+.{digits}f}" for x in known]  # + 0.0: no negative zero
    return ends[0] if len(ends) == 1 else f"{ends[0]} [{ends[1]}, {ends[2]}]"


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
