"""Scalars of YAML 1.2: what a text means, without the surprises of YAML 1.1, which PyYAML implements.

In YAML 1.1, `1:30` is 90, `010` is 8, `1_0` is 10 and `no` is false. Here plain scalars are those of YAML 1.2's core
schema (YAML 1.2.2, section 10.3.2); only whole numbers with leading zeros are errors, as the two versions disagree.
"""

import math
import re
from typing import Any

import yaml

TAG = "tag:yaml.org,2002:"
MAX_NUMBER = 2**63
MAX_DIGITS = 200
"""Python converts only so many decimal digits; all of MAX_NUMBER have fewer in every base."""
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_FORMS = {"null": _NULL, "bool": _BOOL, "int": _INT, "float": _FLOAT}
TAGS = tuple(_FORMS)
_LEADING_ZERO = re.compile(r"([-+]?)0+([0-9]+)")


class Loader(yaml.SafeLoader):
    """Gives plain scalars the tags of YAML 1.2."""

    # Typed as in PyYAML; whole texts are matched, so the first character does not matter.
    yaml_implicit_resolvers = {
        None: [(TAG + name, re.compile(f"(?:{form.pattern})\\Z")) for name, form in _FORMS.items()]
        + [(f"{TAG}merge", re.compile(r"<<\Z"))]
    }


class Dumper(yaml.SafeDumper):
    """Quotes texts that are numbers in YAML 1.1 or in YAML 1.2."""


for _name in ("int", "float"):
    # PyYAML looks for a resolver by the first character.
    Dumper.add_implicit_resolver(TAG + _name, re.compile(f"(?:{_FORMS[_name].pattern})\\Z"), list("-+.0123456789"))


class ScalarError(ValueError):
    """A text that cannot be read."""


def scalar(tag: str, text: str) -> Any:
    """The value of a text with one of the TAGS. Raises ScalarError."""
    if not _FORMS[tag].fullmatch(text):
        raise ScalarError(f"cannot be read as {tag}: {text[:40]!r}")
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    return _integer(text) if tag == "int" else _float(text)


def _integer(text: str) -> int:
    zeros = _LEADING_ZERO.fullmatch(text)
    if zeros:
        plain = (zeros[1].replace("+", "") + zeros[2])[:40]
        raise ScalarError(
            f"{text[:40]} has a leading zero, which some programs read as octal; write {plain}, or put it in quotes to "
            "make it a string"
        )
    if len(text) <= MAX_DIGITS:
        number = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if abs(number) < MAX_NUMBER:
            return number
    raise ScalarError("the number is too large: whole numbers have at most 64 bits")


def _float(text: str) -> float:
    word = text.lower()
    if word.endswith(".inf"):
        return -math.inf if word.startswith("-") else math.inf
    return math.nan if word == ".nan" else float(text)
