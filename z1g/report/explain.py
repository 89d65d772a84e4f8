"""A comparison in sentences: how to read it, what its verdicts are about, and what it would take to say more."""

from z1g.core.names import counted
from z1g.report.compare import Comparison
from z1g.report.statistics import MIN_OBJECTS, MIN_SEEDS
from z1g.report.verdicts import (
    HOW_TO_READ,
    MODELS,
    TOO_FEW,
    UNCLEAR,
    one_seed,
    power_text,
    ranking_text,
)

DECIBEL = "dB"


def explained(comparison: Comparison) -> list[str]:
    """Sentences for a reader who knows no statistics, the most important ones first."""
    entries = [entry for row in comparison.entries.values() for entry in row]
    judged = [entry.judged for entry in entries if entry.judged]
    sentences = [_sizes(comparison)]
    if any(one.verdict == TOO_FEW for one in judged):
        sentences.append(
            f"{TOO_FEW.capitalize()}: a difference over fewer than {MIN_OBJECTS} objects can come from the choice of "
            "these objects alone, so there is neither an interval nor a verdict."
        )
    if any(one.about == MODELS for one in judged):
        sentences.append(one_seed([c.name for c in comparison.contenders if len(c.replicates.members) < MIN_SEEDS]))
    if any(entry.value and entry.value.low is not None for entry in entries):
        sentences.append(HOW_TO_READ)
    if comparison.family:
        sentences.append(_verdicts(comparison))
    sentences += [
        ranking_text(ranking, [contender.name for contender in comparison.contenders], comparison.metrics[name].label)
        for name, ranking in comparison.rankings.items()
    ]
    sentences += _power(comparison)
    if any(comparison.metrics[name].scope == "set" for name in comparison.entries):
        sentences.append("Metrics of whole sets have one value a set: no interval and no verdict.")
    return sentences + _left_out(comparison)


def _sizes(comparison: Comparison) -> str:
    """Numbers of objects and seeds, and what the seeds repeat."""
    names: dict[str, list[str]] = {}
    for contender in comparison.contenders:
        n, stages = len(contender.replicates.members), contender.replicates.replicated
        repeated = f" (repeated: {', '.join(stages)})" if n > 1 and stages else ""
        names.setdefault(f"{counted(n, 'seed')}{repeated}", []).append(contender.name)
    seeds = "; ".join(f"{', '.join(group)}: {text}" for text, group in names.items())
    return f"Means over {counted(comparison.n_objects, 'object')}, each over its views. {seeds}."


def _verdicts(comparison: Comparison) -> str:
    first = comparison.contenders[0].name
    what = f"Δ is the mean over objects of the difference to {first} on the same object."
    return f"{what} {chance_text(comparison.family)}"


def chance_text(tests: int) -> str:
    """How likely a wrong verdict is among differences that are tested together."""
    if tests == 1:
        chance = "If there were none, it would be called better or worse with at most 5 % probability."
    else:
        chance = (
            f"{tests} differences are tested together: Holm's correction makes it at most 5 % likely that any of them "
            "is called better or worse without being it, so one whose own interval excludes zero can still be unclear."
        )
    return f"{chance} {UNCLEAR.capitalize()}: it may be in either direction, or none."


def _power(comparison: Comparison) -> list[str]:
    """Numbers of objects and seeds for metrics in decibels."""
    return [
        power_text(entry.judged.estimate, f"Δ {contender.name}", entry.judged.about)
        for name, row in comparison.entries.items()
        if comparison.metrics[name].unit == DECIBEL
        for contender, entry in zip(comparison.contenders, row, strict=True)
        if entry.judged is not None
    ]


def _left_out(comparison: Comparison) -> list[str]:
    return [
        f"{contender.name}: {counted(entry.left_out, 'object')} left out of {comparison.metrics[name].label}, "
        "because not every seed has them."
        for name, row in comparison.entries.items()
        for contender, entry in zip(comparison.contenders, row, strict=True)
        if entry.left_out
    ]
