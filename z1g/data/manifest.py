"""The static list of objects: ids, sources, chunks and splits. No images are read."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from z1g.core.errors import UserError
from z1g.core.files import require_regular, write_text
from z1g.core.sealed import CHECKSUM, Damaged
from z1g.core.slots import MAX_COUNT, MAX_SEED, Section
from z1g.core.unchecked import warn_unchecked

Split = Literal["train", "test", "test_unseen", "unused"]
"""`test_unseen` has the objects whose list holds them out: of categories that training never sees."""
HELD_OUT = ("unseen",)
"""What a list may say in its column `held_out`."""
INSIDE = "!/"
"""Separates an archive and the path of a file in it, as in Java's jar URLs."""
NO_WORD = re.compile(r"[^A-Za-z0-9_-]")
NAME_LENGTH = 64
"""Longest part of an id that is taken from a name. Ids become file names, which have at most 255 bytes."""
HASH_LENGTH = 12
GROUP = "!group/"
"""Begins the key of a group that a list names. It sorts before digests and ids, so that the group's name is the key."""


class SplitOptions(Section):
    """Split into training and test objects."""

    test_fraction: float = Field(0.05, ge=0, lt=1, description="fraction of objects held out for testing")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="random seed of the split")
    keep_together: Literal["mesh", "mesh_or_textures"] = Field(
        "mesh",
        description="objects with the same mesh, or with the same mesh or textures, are never separated; nor are those "
        "of one `group` of a list",
    )
    train_on_test: bool = Field(False, description="the original's bug: also train on test objects")
    folds: int | None = Field(
        None,
        ge=2,
        le=1000,
        description="number of parts of equal size, one of which is held out instead of test_fraction; null: no parts",
    )
    fold: int = Field(0, ge=0, lt=1000, description="index of the part that is held out, from 0")
    train_objects: int | None = Field(
        None,
        ge=1,
        le=MAX_COUNT,
        description="number of training objects, for learning curves: smaller numbers take some of those of larger "
        "ones, the same objects are held out, and the rest is used for nothing; null: all",
    )

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold and self.fold >= (self.folds or 0):
            raise ValueError(f"fold {self.fold} needs folds of at least {self.fold + 1}, got {self.folds}")
        return self


@dataclass(frozen=True)
class ObjectEntry:
    """One object of the data set.

    `id` is a file-name-safe word without dots. `source` is a path; `a.zip!/path/in/it` names a file in an archive.
    `content`, `mesh` and `textures` are SHA-256 digests of all its files, of its geometry and of the set of its
    images, empty if the data source provides none. `copies` are further sources with the same content. `root` is the
    folder in which all side files lie, empty if that is the folder of the mesh. `origin` names the collection that the
    object is from, `group` the objects that must be on one side of the split, and `held_out` is one of HELD_OUT for
    objects that are never trained on.
    """

    id: str
    source: str
    content: str = ""
    mesh: str = ""
    textures: str = ""
    name: str = ""
    category: str = ""
    creator: str = ""
    license: str = ""
    copies: tuple[str, ...] = ()
    root: str = ""
    origin: str = ""
    group: str = ""
    held_out: str = ""

    @property
    def seed(self) -> int:
        """A 32-bit seed derived from the content, independent of the object's id."""
        return int_hash(self.content or self.id)

    @property
    def file(self) -> str:
        """The file on disk that `source` names or is contained in."""
        return self.source.partition(INSIDE)[0]


@dataclass(frozen=True)
class Manifest:
    """All objects in a fixed order, in chunks of equal size."""

    objects: tuple[ObjectEntry, ...]
    chunk_size: int

    @property
    def n_chunks(self) -> int:
        """Number of chunks; the last may be smaller."""
        return -(-len(self.objects) // self.chunk_size)

    def chunk(self, index: int) -> tuple[ObjectEntry, ...]:
        """The objects of one chunk."""
        return self.objects[index * self.chunk_size : (index + 1) * self.chunk_size]

    def splits(self, options: SplitOptions) -> dict[str, Split]:
        """Split of every object by a hash of its content, so that adding objects changes no other split.

        Objects that are kept together share one hash: of their group, else of the smallest of their common digests. If
        a positive test fraction holds out no object, the objects with the smallest hash are held out; if it holds out
        all, those with the largest hash are not. With `folds`, the objects in order of their hash are dealt to the
        folds in turn, so that every object is held out in exactly one of them; added objects change the folds.
        Objects that their list holds out, and those that are kept together with one of them, are `test_unseen` whatever
        the options. Of the others, all but `train_objects` are `unused`.
        """
        keys, unseen = self._keys(options)
        chosen = _chosen({key for key in keys.values() if key not in unseen}, options)
        splits: dict[str, Split] = {
            name: "test_unseen" if key in unseen else "test" if key in chosen else "train" for name, key in keys.items()
        }
        if options.train_objects is not None:
            contents = {entry.id: entry.content or entry.id for entry in self.objects if splits[entry.id] == "train"}
            drawn = sorted(contents, key=lambda name: (unit_hash(f"train/{options.seed}/{contents[name]}"), name))
            splits |= dict.fromkeys(drawn[options.train_objects :], "unused")
        return splits

    def n_apart(self, options: SplitOptions) -> int:
        """Number of objects, or of groups of them that are kept together, that are train or test."""
        keys, unseen = self._keys(options)
        return len(set(keys.values()) - unseen)

    def _keys(self, options: SplitOptions) -> tuple[dict[str, str], set[str]]:
        """Keys of the objects, see `tied`, and those keys with an object that its list holds out."""
        keys = tied(self.objects, options.keep_together)
        return keys, {keys[entry.id] for entry in self.objects if entry.held_out}

    def categories(self) -> str:
        """Hash of ids and categories, which are no part of `digest`."""
        return _sha256("\n".join(f"{entry.id}\t{entry.category}" for entry in self.objects))

    def digest(self) -> str:
        """Hash of chunk size, ids, contents (sources if unknown) and, of objects that have one, of what the list says
        about their split.
        """
        text = "\n".join(f"{entry.id}\t{entry.content or entry.source}{_about_split(entry)}" for entry in self.objects)
        return _sha256(f"{self.chunk_size}\n{text}")

    def save(self, path: Path) -> None:
        """Write as JSON Lines; the first line holds the chunk size, and a checksum of it and of all other lines."""
        rows = "".join(json.dumps(as_row(entry)) + "\n" for entry in self.objects)
        head = {"chunk_size": self.chunk_size, CHECKSUM: _sha256(f"{self.chunk_size}\n{rows}")}
        write_text(path, json.dumps(head) + "\n" + rows)

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read what `save` wrote. Raises OSError, also if it is no regular file, and UserError if it is damaged.

        Files of earlier versions have no checksum.
        """
        require_regular(path)
        try:
            first, _, rows = path.read_text(encoding="utf-8").partition("\n")
            head = json.loads(first)
            if head.keys() - {"chunk_size", CHECKSUM}:
                raise Damaged("its first line has unknown keys")
            if head.get(CHECKSUM) not in (None, _sha256(f"{head['chunk_size']}\n{rows}")):
                raise Damaged("its rows do not have its checksum")
            if type(head["chunk_size"]) is not int or head["chunk_size"] < 1:
                raise Damaged(f"its chunks are of {head['chunk_size']!r} objects")
            if CHECKSUM not in head:
                warn_unchecked(path, "lists of objects of an earlier version have no checksum")
            return cls(tuple(from_row(json.loads(row)) for row in rows.splitlines() if row), head["chunk_size"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged: {error}; start `snakemake` again to write it again") from error


def as_row(entry: ObjectEntry) -> dict[str, Any]:
    """An entry as JSON, without empty fields."""
    return {name: value for name, value in asdict(entry).items() if value}


def from_row(row: dict[str, Any]) -> ObjectEntry:
    """Inverse of `as_row`."""
    return ObjectEntry(**{**row, "copies": tuple(row.get("copies", ()))})


def tied(objects: Sequence[ObjectEntry], keep_together: str) -> dict[str, str]:
    """Key of every object id. Objects of one key must be on one side of the split.

    These are objects with a common mesh, a common `group` or, if asked for, common textures. An object without digests
    and group has its id as key.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    keys = {entry.id: entry.mesh or entry.content or entry.id for entry in objects}
    for entry in objects:
        textures = entry.textures if keep_together == "mesh_or_textures" else ""
        for other in (textures, entry.group and GROUP + entry.group):
            if other:
                first, second = root(keys[entry.id]), root(other)
                parent[max(first, second)] = min(first, second)
    return {name: root(key) for name, key in keys.items()}


def evaluation_objects(manifest: Manifest, options: SplitOptions, n_train: int) -> list[tuple[str, Split]]:
    """Objects that are sampled and measured: all test objects, all of unseen categories, then up to `n_train` training
    objects by hash.
    """
    splits = manifest.splits(options)
    named: dict[Split, list[str]] = {"test": [], "test_unseen": [], "train": []}
    for name, split in splits.items():
        if split != "unused":
            named[split].append(name)
    named["train"] = sorted(named["train"], key=lambda name: unit_hash(f"evaluate/{name}"))[:n_train]
    return [(name, split) for split, names in named.items() for name in names]


def unit_hash(text: str) -> float:
    """A number in [0,1) from a text, the same on every machine."""
    return int(_sha256(text)[:16], 16) / 2**64


def int_hash(text: str) -> int:
    """A 32-bit seed from a text, the same on every machine."""
    return int(_sha256(text)[:8], 16)


def unique_ids(names: Sequence[str]) -> list[str]:
    """Word-like ids from names: letters, digits, '-' and '_' are kept; equal results get a short hash appended.

    Ids are at most NAME_LENGTH and HASH_LENGTH characters and the character between them long; longer names are cut
    and get a hash of the whole name.
    """
    words = [NO_WORD.sub("_", name) for name in names]
    count = Counter(words)
    hashed = [f"{word[:NAME_LENGTH]}_{_sha256(name)[:HASH_LENGTH]}" for word, name in zip(words, names, strict=True)]
    taken = set(hashed)  # a name may equal the hashed word of another name
    return [
        longer if count[word] > 1 or word in taken or len(word) > NAME_LENGTH + 1 + HASH_LENGTH else word
        for word, longer in zip(words, hashed, strict=True)
    ]


def _chosen(keys: set[str], options: SplitOptions) -> set[str]:
    """The keys of the test objects."""
    rank = {key: unit_hash(f"{options.seed}/{key}") for key in keys}
    if options.folds is not None:
        return set(sorted(rank, key=rank.__getitem__)[options.fold :: options.folds])
    held_out = {key for key, value in rank.items() if value < options.test_fraction}
    if not held_out and options.test_fraction > 0 and len(rank) > 1:
        held_out = {min(rank, key=rank.__getitem__)}
    if len(held_out) == len(rank) > 1:
        held_out.remove(max(rank, key=rank.__getitem__))
    return held_out


def _about_split(entry: ObjectEntry) -> str:
    """What a list says about the split of an object; empty if it says nothing, as in lists of earlier versions."""
    return f"\t{entry.group}\t{entry.held_out}" if entry.group or entry.held_out else ""


def _sha256(text: str) -> str:
    """Digest of a text that may have names of files and of lists, which need not be UTF-8."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
