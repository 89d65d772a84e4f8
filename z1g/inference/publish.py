"""Publishes a model's folder on the Hugging Face Hub or in a bucket, with pictures and a card for the hub."""

from __future__ import annotations

import io
import logging
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, UnidentifiedImageError

from z1g.core.errors import UserError
from z1g.core.files import atomic_folder, read_bytes
from z1g.core.listed import files_of
from z1g.core.recorded import sha256
from z1g.core.s3 import copy_to, key_of
from z1g.core.sealed import read_sealed, write_sealed
from z1g.core.urls import SCHEME, is_url
from z1g.inference.card import OTHER, read_card, require_license
from z1g.inference.models import NETWORKS_DIGEST, open_model
from z1g.networks.weights.hub import HubName, endpoint, hub_errors
from z1g.networks.weights.packaged import CARD, FILE, METHOD_FILE, NETWORKS

log = logging.getLogger("z1g")
PICTURES = "pictures"
LARGEST_PICTURE = 16 * 2**20
"""Size limit of a picture's file, bytes."""
TAGS = ["zero-1-to-g", "gaussian-splatting", "image-to-3d", "3d"]
USE = """## Use
```python
from z1g import ImageToSplats

model = ImageToSplats.from_pretrained({0!r})
model.reconstruct("photo.png").save("photo.ply")
```
or `z1g infer photo.png --model {0}`.
"""
EARLIER_USE = re.compile(r"\n*" + re.sub(r"\\\{0(!r)?\\\}", r"[^\\n]*", re.escape(USE.strip())) + r"\n*")
"""The section in the card of a model that was published before."""
REPLACED = [f"{NETWORKS}/*", f"{PICTURES}/*"]
"""Earlier files there that are removed unless they are published again."""


@dataclass(frozen=True)
class Publication:
    """What is published.

    to: `USER/NAME` of the hub, or `s3://BUCKET/PATH`. license: the hub's word for it, such as `cc-by-4.0`; None says
    nothing. license_name, license_link: of the license `other`. private: whether a new repository of the hub is only
    for its user.
    """

    model: str
    to: str
    pictures: Sequence[Path] = ()
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    private: bool = False

    @property
    def repository(self) -> str:
        """The repository's name, or the place in a bucket. Raises UserError if it is neither."""
        if is_url(self.to):
            if self.private:
                raise UserError(f"--private: who may read {self.to} is a setting of its bucket")
            return f"{SCHEME}{key_of(self.to)}"
        name = HubName.parse(self.to)
        if name is None or name.revision is not None:
            raise UserError(f"--to {self.to}: a name on the hub is USER/NAME, a place in a bucket {SCHEME}BUCKET/PATH")
        return name.repository

    @property
    def license_metadata(self) -> dict[str, str]:
        """What a card's metadata say of the license. Raises UserError if it is none that the hub knows."""
        values = {"license": self.license, "license_name": self.license_name, "license_link": self.license_link}
        known = {key: value for key, value in values.items() if value is not None}
        if self.license != OTHER and len(known) > (self.license is not None):
            raise UserError(f"--license-name and --license-link are of --license {OTHER} only")
        require_license(known, "--license", "--license-name NAME and --license-link URL")
        if self.license_link is not None and not self.license_link.startswith(("https://", "http://")):
            raise UserError(f"--license-link {self.license_link}: give the address of a page, https://...")
        return known


def prepare(publication: Publication, out: Path) -> None:
    """Write the folder that would be published, complete or not at all. Raises UserError.

    The model's files are checked first. `out` must not exist.
    """
    repository, terms = publication.repository, publication.license_metadata
    if out.exists():
        raise UserError(f"{out} exists already; delete it, or give another folder")
    source = open_model(publication.model).pipeline.parent
    card = read_card(source / CARD)
    with atomic_folder(out) as temporary:
        for name in (name for name in files_of(source / NETWORKS) if name.endswith((".json", ".safetensors"))):
            target = temporary / NETWORKS / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / NETWORKS / name, target)
        values = read_sealed(source / FILE, FILE)
        digest = sha256(temporary / NETWORKS / METHOD_FILE)
        write_sealed(temporary / FILE, {**values, NETWORKS_DIGEST: digest}, FILE)
        names = _copy_pictures(publication.pictures, temporary / PICTURES)
        text = _card(*card, repository, terms, names)
        (temporary / CARD).write_text(text, encoding="utf-8")


def publish(publication: Publication) -> str:
    """Upload a model; returns `USER/NAME@COMMIT`, or `s3://BUCKET/PATH`. Raises UserError.

    The hub's client knows the user (`hf auth login`), the bucket's by AWS's variables and files.
    """
    repository = publication.repository
    with tempfile.TemporaryDirectory(prefix="z1g-publish-") as temporary:
        folder = Path(temporary) / "model"
        prepare(publication, folder)
        if is_url(repository):
            # Readers know by the model's file that all others are there.
            names = sorted(files_of(folder), key=lambda name: name == FILE)
            copy_to(folder, names, repository, lambda name: any(fnmatch(name, pattern) for pattern in REPLACED))
            return repository
        with hub_errors(f"{repository}: the hub says"):
            from huggingface_hub import HfApi

            hub = HfApi(endpoint=endpoint())
            hub.create_repo(repository, private=publication.private, exist_ok=True)
            commit = hub.upload_folder(
                repo_id=repository, folder_path=folder, commit_message="z1g publish", delete_patterns=REPLACED
            )
    return f"{repository}@{commit.oid}"


def _copy_pictures(files: Sequence[Path], folder: Path) -> list[str]:
    """Copy pictures as `1.png`, `2.jpg` and so on. Raises UserError for what is no picture."""
    names = []
    for number, file in enumerate(files, start=1):
        try:
            content = read_bytes(file, LARGEST_PICTURE)
            with Image.open(io.BytesIO(content)) as image:
                image.verify()
                kind = (image.format or "").lower()
        except UnidentifiedImageError as error:
            raise UserError(f"--picture {file} is not an image of a supported format") from error
        except (OSError, SyntaxError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"--picture {file} cannot be read: {reason}; name another one") from error
        if kind not in ("png", "jpeg", "webp", "gif"):
            raise UserError(f"--picture {file}: browsers show PNG, JPEG, WebP and GIF, not {kind}")
        folder.mkdir(exist_ok=True)
        names.append(f"{number}.{kind}")
        (folder / names[-1]).write_bytes(content)
    return names


def _card(own: dict[str, Any], text: str, repository: str, terms: dict[str, str], pictures: Sequence[str]) -> str:
    """The model's card with the hub's metadata; what its own metadata says stays."""
    if terms and own.get("license", terms["license"]) != terms["license"]:
        log.warning("the card's own license, %s, stays; --license %s is not used", own["license"], terms["license"])
    if "license" in own:
        terms = {}
    if not terms and "license" not in own:
        log.warning("the card names no license, without which nobody may use the weights; --license says it")
    metadata: dict[str, Any] = {
        **terms,
        "library_name": "z1g",
        "pipeline_tag": "image-to-3d",
        "tags": TAGS,
        **own,
    }
    text = EARLIER_USE.sub("\n\n", text)
    shown = "".join(f"![a picture of the model's results]({PICTURES}/{name})\n" for name in pictures)
    return (
        f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n{text.strip()}\n\n"
        + (f"## Pictures\n{shown}\n" if shown else "")
        + USE.format(repository)
    )
