"""The static list of objects: ids, where they come from, chunks and splits. Pure and fast; no pixel is read."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from z1g.config.slot import Section
from z1g.files import read_jsonl, write_jsonl

Split = Literal["train", "test"]


class SplitOptions(Section):
    """Which objects training never sees."""

    test_fraction: float = Field(0.05, ge=0, lt=1, description="share of objects held out for testing")
    seed: int = Field(0, ge=0, description="changes which objects are held out")


@dataclass(frozen=True)
class ObjectEntry:
    """One object of the data set: `id` is a file-name-safe word without dots, `source` a path."""

    id: str
    source: str


@dataclass(frozen=True)
class Manifest:
    """All objects in a fixed order, in chunks of equal size."""

    objects: tuple[ObjectEntry, ...]
    chunk_size: int

    @property
    def n_chunks(self) -> int:
        """Number of chunks; the last may be short."""
        return -(-len(self.objects) // self.chunk_size)

    def chunk(self, index: int) -> tuple[ObjectEntry, ...]:
        """The objects of one chunk."""
        return self.objects[index * self.chunk_size : (index + 1) * self.chunk_size]

    def splits(self, options: SplitOptions) -> dict[str, Split]:
        """Split of every object by a hash of its id, so that adding objects moves none of the others.

        Where the hash holds out none although a test share was asked for, the object with the smallest hash is; where
        it holds out all, the object with the largest is not.
        """
        rank = {entry.id: unit_hash(f"{options.seed}/{entry.id}") for entry in self.objects}
        held_out = {name for name, value in rank.items() if value < options.test_fraction}
        if not held_out and options.test_fraction > 0 and len(rank) > 1:
            held_out = {min(rank, key=rank.__getitem__)}
        if len(held_out) == len(rank) > 1:
            held_out.remove(max(rank, key=rank.__getitem__))
        return {name: "test" if name in held_out else "train" for name in rank}

    def digest(self) -> str:
        """Hash of ids, sources and chunking."""
        text = "\n".join(f"{entry.id}\t{entry.source}" for entry in self.objects)
        return hashlib.sha256(f"{self.chunk_size}\n{text}".encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write as JSON Lines; the first line holds the chunk size."""
        rows: list[dict[str, Any]] = [{"chunk_size": self.chunk_size}]
        write_jsonl(path, rows + [asdict(entry) for entry in self.objects])

    @classmethod
    def load(cls, path: Path) -> "Manifest":
        """Read what `save` wrote."""
        head, *rows = read_jsonl(path)
        return cls(tuple(ObjectEntry(**row) for row in rows), head["chunk_size"])


def evaluation_objects(manifest: Manifest, options: SplitOptions, n_train: int) -> list[tuple[str, Split]]:
    """Objects that are sampled and measured: all test objects, then up to `n_train` training objects by hash."""
    splits = manifest.splits(options)
    test = [name for name, split in splits.items() if split == "test"]
    train = [name for name, split in splits.items() if split == "train"]
    train.sort(key=lambda name: unit_hash(f"evaluate/{name}"))
    chosen: list[tuple[str, Split]] = [(name, "test") for name in test]
    return chosen + [(name, "train") for name in train[:n_train]]


def unit_hash(text: str) -> float:
    """A number in [0,1) from a text, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def int_hash(text: str) -> int:
    """A 32-bit seed from a text, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def unique_ids(names: Sequence[str]) -> list[str]:
    """Word-like ids from names: letters, digits, '-' and '_' stay; equal results get a short hash appended."""
    words = ["".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name) for name in names]
    count = Counter(words)
    hashed = [
        f"{word}_{hashlib.sha256(name.encode()).hexdigest()[:12]}" for word, name in zip(words, names, strict=True)
    ]
    taken = set(hashed)  # a name may look like another one's word with its hash
    return [longer if count[word] > 1 or word in taken else word for word, longer in zip(words, hashed, strict=True)]
