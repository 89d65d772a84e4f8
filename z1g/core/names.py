"""Nearest-name suggestions for misspelled keys."""

import difflib
from collections.abc import Iterable

MOST_LISTED = 80
"""Names that are listed at most, since studies have thousands of runs."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`'; did you mean "size"?'` or, if no name is similar, `'; valid: a, b'`."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f'; did you mean "{near[0]}"?'
    more = len(names) - MOST_LISTED
    return f"; valid: {', '.join(names[:MOST_LISTED])}{f' and {more} more' if more > 0 else ''}"
