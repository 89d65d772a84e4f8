"""Names of runs: readable, and safe as names of files and as words of a shell.

A run of the file `study.yaml` is named `study`, then `@` and the values of its point, the fold and the number of the
replicate, as far as it has them: `study@lr=1e-4,guidance=2@fold=1@seed=2`. Names have the characters of SAFE only, none
of which is special in a shell or in Snakemake's patterns.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from z1g.config.sweep import plain

FILE_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
SAFE = re.compile(r"\w[\w.,=@+-]*", re.ASCII)
UNSAFE = re.compile(r"[^\w.+-]+", re.ASCII)
PART = "@"
MAX_WORD, MAX_POINT, MAX_NAME = 24, 100, 200
"""Characters of a value, of a point and of a name. File names have at most 255 bytes."""


def short_keys(paths: Iterable[str]) -> dict[str, str]:
    """The shortest last parts of key paths that tell them apart: `lr` for `unet.train.optimizer.lr`."""
    unique = list(dict.fromkeys(paths))
    short = {}
    for path in unique:
        parts = path.split(".")
        for n in range(1, len(parts) + 1):
            end = parts[-n:]
            if n == len(parts) or all(other.split(".")[-n:] != end for other in unique if other != path):
                short[path] = ".".join(end)
                break
    return short


def point_names(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the points of one sweep, `lr=1e-4,guidance=2`; different points have different names."""
    keys = short_keys(path for point in points for path in point)
    words = _value_words(points)
    names = []
    for point in points:
        pairs = [f"{UNSAFE.sub('-', keys[path])}={words[path][plain(value)]}" for path, value in point.items()]
        names.append(_shortened(pairs, point))
    if len(set(names)) < len(names):
        names = [f"{name}-{_digest(point)}" for name, point in zip(names, points, strict=True)]
    return names


def run_name(study: str, point: str | None = None, fold: int | None = None, seed: int | None = None) -> str:
    """The name of a run of the file `study`."""
    parts = [study, point, None if fold is None else f"fold={fold}", None if seed is None else f"seed={seed}"]
    return PART.join(part for part in parts if part is not None)


def means(word: str, name: str) -> bool:
    """Whether a word such as `study@seed=1` means the run `name`: the same file, and no part that the run lacks."""
    stem, *parts = word.split(PART)
    own, *has = name.split(PART)
    return stem == own and set(parts) <= set(has)


def value_word(value: Any) -> str:
    """A short word for a value: `1e-4`, `true`, the kind of a slot, `32+64` for a list."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return _short("+".join(value_word(item) for item in value) or "empty", value)
    if isinstance(value, dict):
        kind = value.get("kind", "options")
        word = UNSAFE.sub("-", str(kind))
        return _short(word if value.keys() == {"kind"} else f"{word}-{_digest(value)}", value)
    text = str(value)
    word = UNSAFE.sub("-", text)
    return _short(word if word == text else f"{word[: MAX_WORD - 5]}-{_digest(value)}", value)


def _value_words(points: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Words of the values of each key path; two values never have the same one."""
    words: dict[str, dict[str, str]] = {}
    for point in points:
        for path, value in point.items():
            taken = words.setdefault(path, {})
            if plain(value) not in taken:
                word = value_word(value)
                taken[plain(value)] = f"{word}-{_digest(value)}" if word in taken.values() else word
    return words


def _number(value: float) -> str:
    """The shortest form that reads back as the same number; without an exponent if that is as short."""
    if not math.isfinite(value):
        return str(value)
    if value.is_integer() and abs(value) < 1e6:
        return str(int(value))
    exact = Decimal(repr(value)).normalize()
    sign, digits, exponent = exact.as_tuple()
    whole, rest = str(digits[0]), "".join(map(str, digits[1:]))
    power = len(digits) - 1 + int(exponent)
    scientific = f"{'-' * sign}{whole}{'.' * bool(rest)}{rest}e{power}"
    return min(f"{exact:f}", scientific, key=len)


def _short(word: str, value: Any) -> str:
    return word if len(word) <= MAX_WORD else f"{word[: MAX_WORD - 5]}-{_digest(value)}"


def _shortened(pairs: Sequence[str], point: Mapping[str, Any]) -> str:
    """The pairs of a point as one word; where that is too long, the first of them and a digest."""
    whole = ",".join(pairs)
    if len(whole) <= MAX_POINT:
        return whole
    kept: list[str] = []
    for pair in pairs:
        if len(",".join([*kept, pair])) > MAX_POINT - 10:
            break
        kept.append(pair)
    return ",".join([*kept, f"point={_digest(point, 8)}"])


def _digest(value: Any, length: int = 4) -> str:
    return hashlib.sha256(plain(value).encode()).hexdigest()[:length]
