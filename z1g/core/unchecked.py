"""Files that cannot be checked, since an earlier version wrote them, or a person."""

import logging
from pathlib import Path

log = logging.getLogger("z1g")

_warned: set[str] = set()


def warn_unchecked(path: Path, why: str) -> None:
    """Warn once in a process for each reason that files cannot be checked; `path` is the first of them."""
    if why not in _warned:
        _warned.add(why)
        log.warning("%s and others are read unchecked: %s", path, why)
