"""Charts of a study as Vega-Lite specifications. Colors, fonts and data tables come from the page."""

import json
from collections.abc import Sequence
from typing import Any

from z1g.report.collect import MetricInfo
from z1g.report.importance import Importance, short_names
from z1g.report.learning_curves import CurvePoint
from z1g.report.slices import Marginal
from z1g.report.studies import Factor, Study
from z1g.report.study_tables import factor_field, mean_of, metric_field

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
MAX_TICKS = 8
"""Most values of an option that all get a tick."""
WIDE = 8
"""Ratio of the last to the first x from which learning curves have a logarithmic axis."""
MAX_NAMED = 12
"""Most categories of an axis of parallel coordinates whose names are written."""

Spec = dict[str, Any]


def importance_chart(found: Importance) -> Spec:
    """Bars of all shares with their intervals. Effects that cannot be told from noise are pale."""
    rows = [
        {"effect": e.label, "share": e.share, "low": e.low, "high": e.high, "kind": _KIND[e.kind], "told": e.told}
        for e in found.effects
    ]
    effect = {"field": "effect", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 260}}
    share = _number("share", "share of the variance", axis={"format": ".0%"}, scale={"domain": [0, 1], "nice": False})
    color = {
        "field": "kind",
        "type": "nominal",
        "title": None,
        "scale": {"domain": list(dict.fromkeys(_KIND.values())), "range": ["@c0", "@c1", "@faint"]},
        "legend": {"orient": "bottom"},
    }
    opacity = {"condition": {"test": "datum.told", "value": 1}, "value": 0.35}
    tips = [
        {"field": "effect"},
        {"field": "share", "format": ".1%"},
        {"field": "low", "format": ".1%"},
        {"field": "high", "format": ".1%"},
    ]
    bars = {"mark": {"type": "bar", "height": {"band": 0.62}}, "encoding": {"color": color, "opacity": opacity}}
    whiskers = {
        "mark": {"type": "rule", "color": "@ink"},
        "encoding": {"x": _number("low", "share of the variance"), "x2": {"field": "high"}},
    }
    encoding = {"y": effect, "x": share, "tooltip": tips}
    return _spec(rows, {"height": {"step": 24}, "encoding": encoding, "layer": [bars, whiskers]})


def slice_chart(study: Study, factor: Factor, marginals: Sequence[Marginal], metric: str) -> Spec:
    """All runs as dots and marginal means as a line, against one option."""
    title = study.metrics[metric].heading
    values, at = metric_field(study, metric), factor_field(study, factor)
    means = [{at: m.at, "mean": m.mean, "low": m.low, "high": m.high, "n": m.n, "range": m.label} for m in marginals]
    if factor.numbers is None:
        kind: Spec = {"type": "nominal", "sort": list(factor.levels), "axis": {"labelAngle": -30, "labelLimit": 120}}
    else:
        kind = {"type": "quantitative", **_numeric_axis(factor.numbers, factor.logarithmic)}
    x = {"field": at, "title": factor.key, **kind}
    tips = [
        {"field": "range", "title": factor.key},
        {"field": "mean", "format": ".5~g"},
        {"field": "n", "title": "runs"},
    ]
    dots = {
        "data": {"name": "runs"},
        "transform": [{"filter": f"isValid(datum.{values}) && !datum.pruned"}],
        "mark": {"type": "circle", "color": "@faint", "size": 22, "opacity": 0.6},
        "encoding": {
            "x": x,
            "y": _number(values, title, scale={"zero": False}),
            "tooltip": [{"field": "run"}, {"field": values, "title": title, "format": ".5~g"}],
        },
    }
    means_layers = _means_layers(means, x, title, {"color": "@c0"}, tips, lines=factor.numbers is not None)
    return {"$schema": SCHEMA, "width": "container", "height": 190, "layer": [dots, *means_layers]}


def curve_chart(points: Sequence[CurvePoint], study: Study, title: str) -> Spec:
    """One line per group against x, with intervals over runs."""
    rows = [
        {"at": p.x, "mean": p.mean, "low": p.low, "high": p.high, "n": p.n, "group": p.group or "all"} for p in points
    ]
    xs = sorted({p.x for p in points})
    logarithmic = xs[0] > 0 and xs[-1] >= WIDE * xs[0]
    x = {"field": "at", "type": "quantitative", "title": study.x_label, **_numeric_axis(xs, logarithmic)}
    legend = {"orient": "bottom", "columns": 2, "labelLimit": 320} if len({p.group for p in points}) > 1 else None
    color = {"field": "group", "type": "nominal", "title": None, "legend": legend}
    tips = [
        {"field": "group"},
        {"field": "at", "title": study.x_label},
        {"field": "mean", "format": ".5~g"},
        {"field": "n"},
    ]
    layers = _means_layers(rows, x, title, {}, tips, lines=True)
    return {"$schema": SCHEMA, "width": "container", "height": 260, "encoding": {"color": color}, "layer": layers}


def parallel_chart(study: Study, metric: str) -> Spec:
    """A line per arm over the study's options and the mean metric, colored by it. Pruned arms are gray."""
    info = study.metrics[metric]
    known = [value for runs in study.arms.values() if (value := mean_of(runs, metric)) is not None]
    ends = (min(known), max(known))
    names = short_names([factor.key for factor in study.factors])
    axes = [names[factor.key] for factor in study.factors] + [info.label]
    axis = {"orient": "top", "domain": False, "ticks": False, "labelAngle": 0, "grid": False, "labelFontSize": 12}
    scale = {"type": "point", "padding": 0.35}
    x = {"field": "axis", "type": "nominal", "sort": axes, "title": None, "scale": scale, "axis": axis}
    y = {"field": "at", "type": "quantitative", "axis": None, "scale": {"domain": [-0.05, 1.05], "nice": False}}
    ticks = [
        {"axis": names[factor.key], "at": at, "text": text} for factor in study.factors for at, text in _ticks(factor)
    ]
    heights = (0, 1) if ends[1] > ends[0] else (0.5,)
    ticks += [{"axis": info.label, "at": at, "text": f"{end:.4g}"} for at, end in zip(heights, ends, strict=False)]
    lines = _arm_lines(info, metric_field(study, metric), axes, ends)
    lines["encoding"] |= {"x": x, "y": y}
    layers = [_axis_rules(axes, x, y), lines, *_axis_texts(ticks, x, y)]
    return {"$schema": SCHEMA, "width": "container", "height": 300, "layer": layers}


def _arm_lines(info: MetricInfo, values: str, axes: Sequence[str], ends: tuple[float, float]) -> Spec:
    """Lines of parallel coordinates: a row of `arms` becomes a row per axis; the line under the pointer stands out."""
    low, high = ends
    last = f"(datum.{values} - {low!r}) / {high - low!r}" if high > low else "0.5"
    columns = [f"a{i}" for i in range(len(axes))]
    names = json.dumps(dict(zip(columns, axes, strict=True)))
    fold = [
        {"filter": f"isValid(datum.{values}) || datum.state == 'pruned'"},
        {"calculate": f"isValid(datum.{values}) ? {last} : null", "as": columns[-1]},
        {"fold": columns, "as": ["column", "at"]},
        {"filter": "isValid(datum.at)"},
        {"calculate": f"{names}[datum.column]", "as": "axis"},
    ]
    shades = {
        "test": f"isValid(datum.{values})",
        **_number(values, info.heading),
        "scale": {"scheme": {"name": "viridis", "extent": [0.15, 1]}, "reverse": info.higher_is_better is False},
        "legend": {"orient": "right", "gradientLength": 200},
    }
    tips = [{"field": "arm"}, {"field": values, "title": info.label, "format": ".5~g"}, {"field": "state"}]
    return {
        "data": {"name": "arms"},
        "params": [{"name": "picked", "select": {"type": "point", "fields": ["arm"], "on": "pointerover"}}],
        "transform": fold,
        "mark": {"type": "line", "strokeWidth": 1.3},
        "encoding": {
            "detail": {"field": "arm"},
            "color": {"condition": shades, "value": "@faint"},
            "opacity": {"condition": {"param": "picked", "value": 0.85}, "value": 0.1},
            "tooltip": tips,
        },
    }


_KIND = {
    "option": "one option",
    "pair": "two options together",
    "higher": "two options together",
    "replicates": "noise and rest",
    "unexplained": "noise and rest",
}


def _axis_rules(axes: Sequence[str], x: Spec, y: Spec) -> Spec:
    return {
        "data": {"values": [{"axis": axis, "at": 0, "top": 1} for axis in axes]},
        "mark": {"type": "rule", "color": "@soft"},
        "encoding": {"x": x, "y": y, "y2": {"field": "top"}},
    }


def _axis_texts(ticks: list[Spec], x: Spec, y: Spec) -> list[Spec]:
    """Ticks of parallel coordinates, on a halo of the page's color, since lines pass behind them."""
    mark = {"type": "text", "align": "right", "dx": -6, "fontSize": 11}
    halo = {**mark, "color": "@page", "stroke": "@page", "strokeWidth": 4, "strokeJoin": "round"}
    encoding = {"x": x, "y": y, "text": {"field": "text"}}
    return [
        {"data": {"values": ticks}, "mark": look, "encoding": encoding} for look in (halo, {**mark, "color": "@ink"})
    ]


def _spec(rows: list[Spec], rest: Spec) -> Spec:
    return {"$schema": SCHEMA, "data": {"values": rows}, "width": "container", **rest}


def _number(field: str, title: str, **rest: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, **rest}


def _numeric_axis(values: Sequence[float], logarithmic: bool) -> Spec:
    """Scale and axis of numbers: ticks at the values if there are few, small numbers as 3e-5."""
    scale: Spec = {"type": "log"} if logarithmic else {"zero": False}
    axis: Spec = {"grid": False, "labelOverlap": "greedy", "tickCount": 5}
    small = 0 < abs(values[-1]) < 0.01 or (logarithmic and values[0] < 1e-3)
    axis["format"] = ".2~e" if small else "~s" if values[-1] >= 1000 else ".3~g"
    if len(values) <= MAX_TICKS:
        axis["values"] = list(values)
    return {"scale": {**scale, "nice": False, "padding": 12}, "axis": axis}


def _means_layers(rows: list[Spec], x: Spec, title: str, look: Spec, tips: list[Spec], lines: bool) -> list[Spec]:
    """Means as points, joined by lines if asked, with whiskers where there is an interval."""
    y = _number("mean", title, scale={"zero": False})
    own: Spec = {"data": {"values": rows}}
    ends = {"y": _number("low", title, scale={"zero": False}), "y2": {"field": "high"}}
    whiskers: Spec = {
        **own,
        "transform": [{"filter": "isValid(datum.low)"}],
        "mark": {"type": "rule", "strokeWidth": 1.6, **look},
        "encoding": {"x": x, **ends},
    }
    dots: Spec = {"filled": True, "size": 50, **look}
    mark: Spec = {"type": "line", "point": dots, **look} if lines else {"type": "point", **dots}
    return [whiskers, {**own, "mark": mark, "encoding": {"x": x, "y": y, "tooltip": tips}}]


def _ticks(factor: Factor) -> list[tuple[float, str]]:
    """Ends of a number's axis, or all values if there are few."""
    n = len(factor.levels)
    if factor.numbers is None:
        return [(i / (n - 1), text) for i, text in enumerate(factor.levels) if n <= MAX_NAMED or i in (0, n - 1)]
    shown = factor.numbers if n <= 5 else (factor.numbers[0], factor.numbers[-1])
    return [(factor.position(value), f"{value:.3g}") for value in shown]
