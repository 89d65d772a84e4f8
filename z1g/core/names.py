"""Nearest-name suggestions for misspelled keys, and lists of names and counts in messages."""

import difflib
from collections.abc import Iterable, Sequence

MOST_CHARACTERS = 1500
"""Length of a list of names, since studies have thousands of runs."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`'; did you mean "size"?'` or, if no name is similar, `'; valid: a, b'`, or `'; there are none'`."""
    names = sorted(set(valid))
    if not names:
        return "; there are none"
    spelled = {text.casefold(): text for text in names}
    near = difflib.get_close_matches(name.casefold(), spelled, n=1, cutoff=0.6)
    return f'; did you mean "{spelled[near[0]]}"?' if near else f"; valid: {listed(names)}"


def counted(n: int, noun: str) -> str:
    """A number with its noun: 1 object, 2 objects."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def listed(names: Sequence[str], most: int = MOST_CHARACTERS) -> str:
    """The names that fit into about `most` characters, at least one, and the number of the others."""
    shown = len(names)
    while shown > 1 and sum(len(name) + 2 for name in names[:shown]) > most:
        shown = shown // 2
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more else "")
