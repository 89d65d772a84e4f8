"""What must never be trained on: it is kept for evaluation outside of this project, and so is never listed."""

from collections.abc import Iterable

from z1g.core.errors import UserError

NEVER_LISTED = ("KatorLegaz", "Reallusion", "supertuxkart-data")
"""Furniture libraries and packages that the converter refuses."""


def excluded(text: str) -> str | None:
    """The name in NEVER_LISTED that a path or another text contains, None if there is none; case does not matter."""
    return next((name for name in NEVER_LISTED if name.lower() in text.lower()), None)


def require_allowed(texts: Iterable[str]) -> None:
    """Raise UserError if one of these paths, names or sources is of something that is never listed."""
    for text in texts:
        if (name := excluded(text)) is not None:
            raise UserError(f"{text}: {name} is kept for evaluation and never listed; leave it out")
