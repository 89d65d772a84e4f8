"""Models on the Hugging Face Hub, as `z1g publish` puts them there: `USER/NAME`, or `USER/NAME@REVISION`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from z1g.core.errors import UserError
from z1g.networks.weights.packaged import CARD, FILE, NETWORKS

NAME = re.compile(r"([a-z0-9][\w.-]{0,95}/[a-z0-9][\w.-]{0,95})(?:@([\w./-]{1,128}))?", re.ASCII | re.IGNORECASE)
FILES = (FILE, CARD, f"{NETWORKS}/*.json", f"{NETWORKS}/*.safetensors")
"""What is fetched: nothing of it runs code."""
CLIENTS = ("huggingface_hub", "httpx", "httpx2", "httpcore", "requests", "urllib3")
"""Packages whose errors the hub's client raises, depending on its version."""

LONGEST = 300
"""Length of what is told of a hub's error, characters."""


@dataclass(frozen=True)
class HubName:
    """A repository of the hub and a revision of it: a branch, a tag or a commit; None is the newest."""

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubName | None:
        """Read `USER/NAME` or `USER/NAME@REVISION`; None for other texts."""
        match = NAME.fullmatch(text)
        return None if match is None or ".." in text else cls(match[1], match[2])


def fetch(name: HubName) -> tuple[Path, str]:
    """The folder of a model in the hub's cache, and its commit. Raises UserError if it cannot be had.

    The hub's client keeps what it has fetched and works without a network then. Files are checked when they are read.
    """
    text = name.repository if name.revision is None else f"{name.repository}@{name.revision}"
    with hub_errors(f"{text} is no folder here, and the hub says"):
        from huggingface_hub import snapshot_download

        folder = Path(
            snapshot_download(name.repository, revision=name.revision, allow_patterns=list(FILES), endpoint=endpoint())
        )
    return folder, folder.name


def endpoint() -> str | None:
    """Another hub than the public one, by the variable that its client knows too."""
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def hub_errors(beginning: str) -> Iterator[None]:
    """Raise the errors of the hub's client as UserErrors of one line."""
    try:
        yield
    except ImportError as error:
        raise UserError("models of the hub need the package huggingface_hub: pip install huggingface_hub") from error
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in CLIENTS:
            raise
        # The first line is the status, the second one says what was not found.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise UserError(
            f"{beginning}: {' '.join(lines[:2])[:LONGEST]}; check the name and the network, and log in "
            "(`hf auth login`) for what is not public"
        ) from error
