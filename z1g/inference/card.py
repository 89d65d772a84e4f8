"""Model cards of models that travel: their metadata and the license that these name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from z1g.core.errors import UserError
from z1g.core.files import read_bytes

OTHER = "other"
LICENSES = (
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear",
    "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
    "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0",
    "cdla-sharing-1.0", "creativeml-openrail-m", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2",
    "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "lppl-1.3c", "mit",
    "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1", "openrail", "openrail++", "osl-3.0", "pddl", "postgresql",
    "unknown", "unlicense", "wtfpl", "zlib",
)  # fmt: skip
"""Names of licenses in model cards of the Hugging Face Hub. Others are `OTHER`, with a name and a link."""
COMMON = ("apache-2.0", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit", "openrail")
NEAR, CUTOFF = 4, 0.5
"""Largest number of similar names that are told, and how similar they are at least (`difflib`)."""
METADATA = re.compile(r"---\n(.*?\n)??---(?:\n|$)", re.DOTALL)
WHAT = "what the model was trained on, whose objects these are and under which licenses, and its limits"


def read_card(file: Path) -> tuple[dict[str, Any], str]:
    """`parse_card` of a file. Raises UserError, also if it cannot be read."""
    try:
        text = read_bytes(file).decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}, the model card, cannot be read: {reason}; write one that says {WHAT}") from error
    return parse_card(text, str(file))


def parse_card(text: str, where: str) -> tuple[dict[str, Any], str]:
    """Metadata of a model card, and its text without them. `where` is the card in messages.

    Raises UserError if the card says nothing, if its metadata are not a mapping in YAML, or if they name a license that
    model cards do not know.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    match = METADATA.match(text)
    values = {} if match is None else _mapping(match[1] or "", where)
    rest = text if match is None else text[match.end() :]
    if not rest.strip():
        raise UserError(f"{where}, the model card, is empty; write {WHAT}")
    require_license(values, where, "license_name and license_link")
    return values, rest


def require_license(metadata: Mapping[str, Any], where: str, name_and_link: str) -> None:
    """Raise UserError unless the license of a card's metadata, if they name one, is known to model cards.

    `where` begins messages; name_and_link: what says name and link of another license.
    """
    value = metadata.get("license")
    names = value if isinstance(value, list) else [] if value is None else [value]
    for name in names:
        if name not in (*LICENSES, OTHER):
            raise UserError(
                f"{where}: {name!r} is no license that model cards name; {_near(str(name))} All others are {OTHER!r} "
                f"with {name_and_link}"
            )
    about = [metadata.get(f"license_{key}") for key in ("name", "link")]
    if OTHER in names and not all(isinstance(text, str) and text.strip() for text in about):
        raise UserError(f"{where}: the license {OTHER!r} needs {name_and_link}")


def _near(name: str) -> str:
    written = "-".join(re.sub(r"\b(the|licen[sc]e|version)\b|[,_]", " ", name.lower()).split())
    near = difflib.get_close_matches(written, LICENSES, NEAR, CUTOFF)
    return f"did you mean {' or '.join(near)}?" if near else f"some are {', '.join(COMMON)}."


def _mapping(block: str, where: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(block)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: its metadata is not YAML: {str(error).splitlines()[0]}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{where}: its metadata is not a mapping")
    return values
