"""Nearest-name suggestions for misspelled keys."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`'; did you mean "size"?'` or, if no name is similar, `'; valid: a, b'`."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else f"; valid: {', '.join(names)}"
